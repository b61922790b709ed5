//! Sessions with the real agent, on a socket pair and with real processes. They need root and a cgroup version 2
//! mount, as the agent does.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tart_guest::{CommandEvent, GuestError, NoRelay, Relay};
use tart_proto::{
    Stream, StreamItem,
    message::{ExitStatus, FailureKind, GetFile, Listen, Output, PutFile, Root},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

mod support;
use support::{Agent, finish, shell, wait_for, within};

async fn agent() -> Agent {
    Agent::start(Arc::new(NoRelay)).await
}

#[tokio::test]
async fn a_command_gives_its_output_and_then_its_end() {
    let agent = agent().await;
    let mut command = agent.guest.exec(&shell("echo out; echo err >&2; exit 3")).await.unwrap();
    assert!(command.pid > 0);
    let (out, err, exited) = finish(&mut command).await;
    assert_eq!((out.as_str(), err.as_str(), exited.status), ("out\n", "err\n", ExitStatus::Code(3)));
    assert_eq!(command.next().await.unwrap(), CommandEvent::Exited(exited), "the end stays");
    assert!(matches!(command.control().signal(15).await, Err(GuestError::Ended)));
}

#[tokio::test]
async fn output_that_nobody_reads_waits_in_the_guest() {
    let agent = agent().await;
    let mut flood = agent.guest.exec(&shell("head -c 20000000 /dev/zero | tr '\\0' x; echo")).await.unwrap();
    // Meanwhile others go on.
    for _ in 0..10 {
        let mut command = agent.guest.exec(&shell("echo quick")).await.unwrap();
        assert_eq!(finish(&mut command).await.0, "quick\n");
    }
    assert_eq!(finish(&mut flood).await.0.len(), 20_000_001);
}

#[tokio::test]
async fn input_and_controls_reach_a_command() {
    let agent = agent().await;
    let mut exec = shell("trap 'echo got' USR1; echo up; cat; echo end");
    exec.stdin = true;
    let mut command = agent.guest.exec(&exec).await.unwrap();
    let control = command.control();
    wait_for(&mut command, "up\n").await;
    within(control.write_stdin(Bytes::from_static(b"input\n"))).await.unwrap();
    within(control.close_stdin()).await.unwrap();
    within(control.close_stdin()).await.unwrap();
    assert_eq!(finish(&mut command).await.0, "input\nend\n");
}

#[tokio::test]
async fn a_command_that_reads_none_of_its_full_input_can_be_cancelled() {
    let agent = agent().await;
    let mut exec = shell("echo up; exec sleep 1000");
    exec.stdin = true;
    let mut command = agent.guest.exec(&exec).await.unwrap();
    wait_for(&mut command, "up\n").await;
    let control = command.control();
    let flood = tokio::spawn({
        let control = control.clone();
        async move { control.write_stdin(vec![0; 20_000_000].into()).await }
    });
    within(agent.guest.ping()).await.unwrap();
    within(control.cancel(Duration::from_secs(30))).await.unwrap();
    assert_eq!(finish(&mut command).await.2.status, ExitStatus::Signal(15));
    assert!(matches!(within(flood).await.unwrap(), Ok(()) | Err(GuestError::Ended)));
}

#[tokio::test]
async fn a_terminal_gets_its_size() {
    let agent = agent().await;
    let mut exec = shell("trap 'stty size' WINCH; stty size; read line; exit 0");
    exec.output = Output::Pty { rows: 24, cols: 80 };
    exec.stdin = true;
    let mut command = agent.guest.exec(&exec).await.unwrap();
    wait_for(&mut command, "24 80").await;
    within(command.control().resize(50, 132)).await.unwrap();
    wait_for(&mut command, "50 132").await;
    within(command.control().write_stdin(Bytes::from_static(b"\n"))).await.unwrap();
    assert_eq!(finish(&mut command).await.2.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_dropped_command_is_killed_although_its_control_lives() {
    let agent = agent().await;
    let mut command = agent.guest.exec(&shell("echo up; exec sleep 1000")).await.unwrap();
    wait_for(&mut command, "up\n").await;
    let control = command.control();
    drop(command);
    agent.emptied("step").await;
    assert!(matches!(control.signal(15).await, Err(GuestError::Ended)));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let agent = agent().await;
    let mut exec = shell("true");
    exec.argv = vec!["no-\u{1b}[31msuch".into()];
    let error = agent.guest.exec(&exec).await.unwrap_err();
    assert_eq!(error.failure_kind(), Some(FailureKind::NotFound));
    assert!(!error.is_lost());
    assert!(error.to_string().starts_with("no program `no-\u{fffd}[31msuch` in the image"), "{error}");
}

#[tokio::test]
async fn a_request_that_fits_no_frame_is_refused_here() {
    let agent = agent().await;
    let mut exec = shell("true");
    exec.env.push(("BIG".into(), "x".repeat(2 << 20)));
    assert!(matches!(agent.guest.exec(&exec).await, Err(GuestError::TooLarge { .. })));
    agent.guest.stats().await.unwrap();
}

#[tokio::test]
async fn files_go_both_ways() {
    let agent = agent().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/file").to_str().unwrap().to_owned();
    let contents: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let file = PutFile { root: Root::Job, path: path.clone(), mode: 0o600, owner: String::new() };
    within(agent.guest.put_file(&file, contents.as_slice())).await.unwrap();
    let mut read = Vec::new();
    let request = GetFile { root: Root::Job, path: path.clone(), max_bytes: 3_000_000 };
    assert_eq!(within(agent.guest.get_file(&request, &mut read)).await.unwrap(), 3_000_000);
    assert!(read == contents);
    let small = GetFile { max_bytes: 10, ..request };
    let error = within(agent.guest.get_file(&small, &mut read)).await.unwrap_err();
    assert_eq!(error.failure_kind(), Some(FailureKind::Invalid));
}

#[tokio::test]
async fn a_refused_file_is_not_taken_to_its_end() {
    let agent = agent().await;
    let file = PutFile { root: Root::Job, path: "/dev".into(), mode: 0o600, owner: String::new() };
    // It never ends, so this would not either.
    let error = within(agent.guest.put_file(&file, tokio::io::repeat(7))).await.unwrap_err();
    assert_eq!(error.failure_kind(), Some(FailureKind::Denied));
    agent.guest.stats().await.unwrap();
}

/// Answers every connection with the name of its listener and what it said.
#[derive(Default)]
struct Echo {
    seen: Mutex<Vec<u32>>,
}

#[async_trait]
impl Relay for Echo {
    async fn serve(&self, forward: u32, stream: Stream) {
        self.seen.lock().unwrap().push(forward);
        let (mut reader, writer) = stream.split();
        loop {
            match reader.next().await {
                StreamItem::Data { bytes, .. } => writer.data(0, bytes).await.unwrap(),
                StreamItem::Eof { .. } => {
                    writer.eof(0).await.unwrap();
                    let _gone = writer.close().await;
                    return;
                }
                _ => return,
            }
        }
    }
}

#[tokio::test]
async fn connections_in_the_guest_reach_the_relay() {
    let echo = Arc::new(Echo::default());
    let agent = Agent::start(echo.clone()).await;
    let address = "127.78.0.1:7878";
    let listener = agent.guest.listen(&Listen { forward: 7, address: address.into() }).await.unwrap();
    for _ in 0..200 {
        let mut client = within(TcpStream::connect(address)).await.unwrap();
        client.write_all(b"over and back").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        within(client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "over and back");
    }
    assert_eq!(echo.seen.lock().unwrap().as_slice(), &[7; 200]);
    drop(listener);
    within(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_relay_connections_end() {
    let agent = agent().await;
    let listen = Listen { forward: 1, address: "127.78.0.2:7878".into() };
    let _listener = agent.guest.listen(&listen).await.unwrap();
    let mut client = within(TcpStream::connect("127.78.0.2:7878")).await.unwrap();
    let read = within(client.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn the_last_handle_ends_the_session_and_the_guest_kills_what_runs() {
    let mut agent = agent().await;
    let mut command = agent.guest.exec(&shell("sleep 1000 & setsid sleep 1000 & :")).await.unwrap();
    finish(&mut command).await;
    assert_eq!(agent.processes("step"), 2);
    drop(command);
    let other = Agent::start(Arc::new(NoRelay)).await;
    drop(std::mem::replace(&mut agent.guest, other.guest.clone()));
    agent.emptied("step").await;
}

#[tokio::test]
async fn a_shutdown_is_answered_and_ends_the_session() {
    let mut agent = agent().await;
    within(agent.guest.shutdown()).await.unwrap();
    let other = agent.guest.clone();
    let closed = tokio::spawn(async move { other.closed().await });
    assert!(within(agent.serving.join_next()).await.unwrap().unwrap());
    assert!(within(closed).await.unwrap().is_lost());
    assert!(within(agent.guest.stats()).await.unwrap_err().is_lost());
}
