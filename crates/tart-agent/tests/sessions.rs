//! Sessions with the agent as a library on the machine of the test: real processes in real cgroups, without a guest.
//!
//! They need root and a cgroup version 2 mount, as the agent does.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tart_agent::{
    exec::{cgroup::Cgroups, reaper::Reaper},
    machine::Machine,
    transport,
    tree::Trees,
};
use tart_proto::{
    StreamItem,
    message::{
        Configure, ExitStatus, FailureKind, GuestOpen, HostControl, HostOpen, Limits, Listen, Output,
        PutFile, Root, decode,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

mod support;
use support::{Host, shell, within};

/// An agent that serves a session on a socket pair.
struct Agent {
    host: Host,
    serving: JoinSet<bool>,
    machine: Arc<Machine>,
    cgroup: PathBuf,
    etc: tempfile::TempDir,
}

impl Agent {
    /// The job tree is the test machine's own.
    async fn start() -> Self {
        Self::start_with(Path::new("/")).await
    }

    async fn start_with(job: &Path) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let cgroup2 = mounts.find_map(|mut fields| {
            let point = fields.nth(1)?;
            (fields.next()? == "cgroup2").then_some(point)
        });
        let cgroup2 = Path::new(cgroup2.expect("these tests need a cgroup version 2 mount"));
        let etc = tempfile::tempdir().unwrap();
        let name =
            format!("tart-test-{}-{}", std::process::id(), etc.path().file_name().unwrap().to_str().unwrap());
        let cgroups = Cgroups::create(cgroup2, &name, &Limits::default()).expect("these tests need root");
        let reaper = Reaper::default();
        let cgroup = cgroups.path().to_owned();
        let machine =
            Machine::new(Trees::at("/", "/", job), cgroups, reaper.clone(), etc.path(), Duration::ZERO);
        let machine = Arc::new(machine);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            reaper.run().await.unwrap();
            false
        });
        let served = machine.clone();
        let theirs = Arc::new(std::sync::Mutex::new(Some(theirs.into_split())));
        serving.spawn(async move {
            transport::converse(&served, || {
                theirs.lock().unwrap().take().ok_or_else(|| std::io::Error::other("one session only"))
            })
            .await
        });
        let (reader, writer) = ours.into_split();
        let host = Host::greet(reader, writer).await;
        Self { host, serving, machine, cgroup, etc }
    }

    fn processes(&self, step: &str) -> Vec<String> {
        let text = fs::read_to_string(self.cgroup.join(step).join("cgroup.procs")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        fs::write(self.cgroup.join("cgroup.kill"), "1").unwrap();
        // A killed process leaves its cgroup when it is collected by whoever is its parent now.
        let steps = fs::read_dir(&self.cgroup)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir());
        for dir in steps.chain([self.cgroup.clone()]) {
            let deadline = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(&dir).is_err() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}

fn code(exited: &Result<tart_proto::message::Exited, tart_proto::message::Failure>) -> ExitStatus {
    exited.as_ref().unwrap().status
}

#[tokio::test]
async fn the_agent_greets_first() {
    let agent = Agent::start().await;
    assert!(agent.host.hello.cpus > 0);
    assert!(agent.host.hello.memory_bytes > 0);
    assert_eq!(agent.host.hello.agent_version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn a_command_has_its_output_apart_and_its_code() {
    let agent = Agent::start().await;
    let outcome = agent.host.sh("echo out; echo err >&2; exit 3").await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(code(&outcome.result), ExitStatus::Code(3));
}

#[tokio::test]
async fn merged_output_keeps_the_order_written() {
    let agent = Agent::start().await;
    let mut exec = shell("for i in 1 2 3; do echo o$i; echo e$i >&2; done");
    exec.output = Output::Merged;
    let outcome = agent.host.exec(exec).await.finish().await;
    assert_eq!(outcome.stdout, "o1\ne1\no2\ne2\no3\ne3\n");
}

#[tokio::test]
async fn a_signal_is_reported_as_one() {
    let agent = Agent::start().await;
    assert_eq!(code(&agent.host.sh("kill -9 $$").await.result), ExitStatus::Signal(9));
}

#[tokio::test]
async fn the_environment_and_directory_are_the_requests() {
    let agent = Agent::start().await;
    let mut exec = shell("pwd; umask; env | sort; cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l");
    exec.env.push(("GREETING".into(), "a=b\nc".into()));
    exec.cwd = "/usr".into();
    let outcome = agent.host.exec(exec).await.finish().await;
    // `ls` has the three standard descriptors and the directory it reads.
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("/usr\n0022\nGREETING=a=b\nHOME=/root\n{path}\nPWD=/usr\nc\n0\n4\n");
    assert_eq!(outcome.stdout, expected);
}

#[tokio::test]
async fn a_home_of_the_request_wins() {
    let agent = Agent::start().await;
    let mut exec = shell("echo $HOME");
    exec.env.push(("HOME".into(), "/elsewhere".into()));
    assert_eq!(agent.host.exec(exec).await.finish().await.stdout, "/elsewhere\n");
}

#[tokio::test]
async fn another_user_owns_its_streams() {
    let agent = Agent::start().await;
    let mut exec = shell("id -u; id -g; id -G; echo again > /dev/stdout; echo $HOME");
    exec.user = "1234:4321".into();
    let outcome = agent.host.exec(exec).await.finish().await;
    assert_eq!(outcome.stdout, "1234\n4321\n4321\nagain\n/\n", "{}", outcome.stderr);
}

#[tokio::test]
async fn signals_are_neither_blocked_nor_ignored_in_a_command() {
    let agent = Agent::start().await;
    let outcome = agent.host.sh("grep -E 'Sig(Blk|Ign)' /proc/self/status").await;
    let masks: Vec<u64> = outcome
        .stdout
        .lines()
        .map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap())
        .collect();
    // Those that the C library keeps for itself are as whoever started this test left them.
    let internal = 0b11 << 31;
    assert_eq!(masks.iter().map(|mask| mask & !internal).collect::<Vec<_>>(), [0, 0], "{}", outcome.stdout);
}

#[tokio::test]
async fn input_reaches_the_command_up_to_its_end() {
    let agent = Agent::start().await;
    let mut exec = shell("wc -c");
    exec.stdin = true;
    let command = agent.host.exec(exec).await;
    let upload = async {
        for _ in 0..50 {
            command.input(&[b'x'; 100_000]).await;
        }
        command.end_input().await;
    };
    upload.await;
    assert_eq!(command.finish().await.stdout, "5000000\n");
}

#[tokio::test]
async fn a_command_that_does_not_read_its_input_can_be_cancelled_and_ends() {
    let agent = Agent::start().await;
    let mut exec = shell("echo up; sleep 1000");
    exec.stdin = true;
    let mut command = agent.host.exec(exec).await;
    command.wait_for_output("up").await;
    command.input(&vec![0; 1_000_000]).await;
    command.cancel(10_000).await;
    assert_eq!(code(&command.finish().await.result), ExitStatus::Signal(15));
}

#[tokio::test]
async fn all_output_arrives_however_slowly_the_host_reads() {
    let agent = Agent::start().await;
    let command = agent.host.exec(shell("seq 1 500000")).await;
    // Far more than the credit of a stream; the command has long ended when the last of it is read.
    let outcome = command.finish().await;
    assert_eq!(outcome.stdout.lines().count(), 500_000);
    assert!(outcome.stdout.ends_with("\n500000\n"));
}

#[tokio::test]
async fn a_background_process_does_not_hold_the_exit_up() {
    let agent = Agent::start().await;
    let outcome = agent.host.sh("sleep 1000 & echo done").await;
    assert_eq!(outcome.stdout, "done\n", "{outcome:?}");
    assert_eq!(code(&outcome.result), ExitStatus::Code(0));
    assert_eq!(agent.processes("step").len(), 1, "it lives on");
}

#[tokio::test]
async fn a_background_process_may_go_on_writing() {
    let agent = Agent::start().await;
    let outcome = agent
        .host
        .sh("(trap '' HUP; read x < /proc/sys/kernel/random/uuid; exec cat /dev/zero) & echo $!")
        .await;
    let pid = outcome.stdout.lines().next().unwrap();
    let first: u64 = written(pid);
    within("the writer", async {
        while written(pid) <= first {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn written(pid: &str) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("the background process died");
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_cancelled_command_may_clean_up() {
    let agent = Agent::start().await;
    let mut command =
        agent.host.exec(shell("trap 'echo cleaned; exit 9' TERM; echo up; while :; do sleep 1; done")).await;
    command.wait_for_output("up").await;
    command.cancel(30_000).await;
    let outcome = command.finish().await;
    assert_eq!(code(&outcome.result), ExitStatus::Code(9));
    assert_eq!(outcome.stdout, "up\ncleaned\n");
}

#[tokio::test]
async fn what_ignores_a_cancellation_is_killed_with_all_its_offspring() {
    let agent = Agent::start().await;
    let script =
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo up; while :; do sleep 100; done' & wait; wait";
    let mut command = agent.host.exec(shell(script)).await;
    command.wait_for_output("up").await;
    command.cancel(100).await;
    assert_eq!(code(&command.finish().await.result), ExitStatus::Signal(9));
    assert_eq!(agent.processes("step"), Vec::<String>::new());
}

#[tokio::test]
async fn a_signal_goes_to_the_commands_group() {
    let agent = Agent::start().await;
    let mut command =
        agent.host.exec(shell("trap 'echo got; exit 4' USR1; sleep 1000 & echo up; wait")).await;
    command.wait_for_output("up").await;
    command.control(HostControl::Signal(10)).await;
    let outcome = command.finish().await;
    assert_eq!(outcome.stdout, "up\ngot\n");
    assert_eq!(code(&outcome.result), ExitStatus::Code(4));
}

#[tokio::test]
async fn a_dropped_stream_kills_its_command() {
    let agent = Agent::start().await;
    let mut command = agent.host.exec(shell("echo up; exec sleep 1000")).await;
    command.wait_for_output("up").await;
    drop(command);
    within("the kill", async {
        while !agent.processes("step").is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_connection_kills_everything() {
    let mut agent = Agent::start().await;
    let outcome = agent.host.sh("sleep 1000 & setsid sleep 1000 & :").await;
    assert_eq!(code(&outcome.result), ExitStatus::Code(0));
    assert_eq!(agent.processes("step").len(), 2);
    let (left, _right) = UnixStream::pair().unwrap();
    let (reader, writer) = left.into_split();
    // Replacing the session by a dead one drops it.
    let (mux, incoming) =
        tart_proto::Mux::start(reader, writer, tart_proto::Role::Host, tart_proto::Decoder::in_session());
    drop((
        std::mem::replace(&mut agent.host.mux, mux),
        std::mem::replace(&mut agent.host.incoming, incoming),
    ));
    within("the kill", async {
        while !agent.processes("step").is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_terminal_has_a_size_that_follows_the_hosts() {
    let agent = Agent::start().await;
    let mut exec = shell(
        "trap 'stty size' WINCH; test -t 0 && stty size; until read line; do :; done; echo \"<$line>\"; tty",
    );
    exec.output = Output::Pty { rows: 24, cols: 80 };
    exec.stdin = true;
    let mut command = agent.host.exec(exec).await;
    command.wait_for_output("24 80\r\n").await;
    command.control(HostControl::Resize { rows: 50, cols: 132 }).await;
    command.wait_for_output("50 132\r\n").await;
    command.input(b"hello\n").await;
    let outcome = command.finish().await;
    assert!(outcome.stdout.contains("<hello>\r\n/dev/pts/"), "{}", outcome.stdout);
    assert_eq!(code(&outcome.result), ExitStatus::Code(0));
}

#[tokio::test]
async fn control_c_in_a_terminal_interrupts() {
    let agent = Agent::start().await;
    let mut exec = shell("echo up; exec sleep 1000");
    exec.output = Output::Pty { rows: 24, cols: 80 };
    exec.stdin = true;
    let mut command = agent.host.exec(exec).await;
    command.wait_for_output("up").await;
    command.input(&[3]).await;
    assert_eq!(code(&command.finish().await.result), ExitStatus::Signal(2));
}

#[tokio::test]
async fn the_end_of_input_ends_a_terminals_reader() {
    let agent = Agent::start().await;
    let mut exec = shell("cat");
    exec.output = Output::Pty { rows: 24, cols: 80 };
    exec.stdin = true;
    let command = agent.host.exec(exec).await;
    command.input(b"last\n").await;
    command.end_input().await;
    assert_eq!(command.finish().await.stdout, "last\r\nlast\r\n");
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let agent = Agent::start().await;
    let failed = |change: fn(&mut tart_proto::message::Exec)| {
        let mut exec = shell("true");
        change(&mut exec);
        async { agent.host.exec(exec).await.finish().await.result.unwrap_err() }
    };
    let missing = failed(|exec| exec.argv = vec!["no-such-program".into()]).await;
    assert_eq!(missing.kind, FailureKind::NotFound);
    let directory = failed(|exec| exec.cwd = "/no/such".into()).await;
    assert_eq!(directory.kind, FailureKind::NotFound);
    assert_eq!(directory.message, "cannot enter the working directory `/no/such`: no such file or directory");
    let user = failed(|exec| exec.user = "no-such-user".into()).await;
    assert_eq!(user.message, "no user `no-such-user` in the image's `/etc/passwd`");
    let argv = failed(|exec| exec.argv.clear()).await;
    assert_eq!(argv.kind, FailureKind::Invalid);
    let nul = failed(|exec| exec.argv.push("a\0b".into())).await;
    assert_eq!(nul.kind, FailureKind::Invalid);
    let cgroup = failed(|exec| exec.cgroup = "../up".into()).await;
    assert_eq!(cgroup.kind, FailureKind::Invalid);
    let long = failed(|exec| exec.argv.push("x".repeat(200_000))).await;
    assert_eq!(long.kind, FailureKind::Invalid);
}

#[tokio::test]
async fn many_commands_run_at_once() {
    let agent = Agent::start().await;
    let mut commands = Vec::new();
    for i in 0..30 {
        commands.push(agent.host.exec(shell(&format!("read x < /proc/uptime; exit {i}"))).await);
    }
    for (i, command) in commands.into_iter().enumerate() {
        assert_eq!(code(&command.finish().await.result), ExitStatus::Code(i32::try_from(i).unwrap()));
    }
}

fn put(path: &str, mode: u32) -> PutFile {
    PutFile { root: Root::Job, path: path.into(), mode, owner: "12:34".into() }
}

#[tokio::test]
async fn a_file_is_put_with_mode_owner_and_directories() {
    let job = tempfile::tempdir().unwrap();
    fs::create_dir(job.path().join("real")).unwrap();
    symlink("/real", job.path().join("link")).unwrap();
    let agent = Agent::start_with(job.path()).await;
    let contents: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    agent.host.put(put("/link/a/b/file", 0o4750), &contents).await.unwrap();
    let path = job.path().join("real/a/b/file");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), contents);
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid(), meta.gid()), (0o4750, 12, 34));
    assert_eq!(fs::metadata(job.path().join("real/a")).unwrap().uid(), 12);
    assert_eq!(agent.host.get("/link/a/b/file", 3_000_000).await.unwrap(), contents);
}

#[tokio::test]
async fn a_file_behind_a_link_is_replaced_and_the_link_kept() {
    let job = tempfile::tempdir().unwrap();
    fs::create_dir(job.path().join("etc")).unwrap();
    fs::write(job.path().join("etc/real"), "old").unwrap();
    symlink("/etc/real", job.path().join("link")).unwrap();
    let agent = Agent::start_with(job.path()).await;
    agent.host.put(put("/link", 0o644), b"new").await.unwrap();
    assert_eq!(fs::read_to_string(job.path().join("etc/real")).unwrap(), "new");
    assert!(fs::symlink_metadata(job.path().join("link")).unwrap().is_symlink());
}

#[tokio::test]
async fn a_broken_transfer_leaves_nothing() {
    let job = tempfile::tempdir().unwrap();
    fs::write(job.path().join("file"), "old").unwrap();
    let agent = Agent::start_with(job.path()).await;
    let (_reader, writer) = agent.host.open(&HostOpen::PutFile(put("/file", 0o644))).await.split();
    writer.data(0, bytes::Bytes::from_static(b"half")).await.unwrap();
    within("the draft", async {
        while fs::read_dir(job.path()).unwrap().count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    writer.reset("gone");
    within("the clean-up", async {
        while fs::read_dir(job.path()).unwrap().count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fs::read_to_string(job.path().join("file")).unwrap(), "old");
}

#[tokio::test]
async fn only_regular_files_within_the_limit_are_read() {
    let job = tempfile::tempdir().unwrap();
    fs::write(job.path().join("file"), "12345").unwrap();
    fs::create_dir(job.path().join("dir")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, job.path().join("fifo"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let agent = Agent::start_with(job.path()).await;
    assert_eq!(agent.host.get("/file", 5).await.unwrap(), b"12345");
    for (path, max, kind) in [
        ("/file", 4, FailureKind::Invalid),
        ("/dir", 9, FailureKind::Denied),
        ("/fifo", 9, FailureKind::Denied),
        ("/none", 9, FailureKind::NotFound),
        ("file", 9, FailureKind::Invalid),
    ] {
        assert_eq!(agent.host.get(path, max).await.unwrap_err().kind, kind, "{path}");
    }
}

#[tokio::test]
async fn connections_in_the_guest_reach_the_host_and_close_each_way() {
    let mut agent = Agent::start().await;
    let address = "127.77.0.1:7777";
    let listen = HostOpen::Listen(Listen { forward: 42, address: address.into() });
    let (mut reader, writer) = agent.host.open(&listen).await.split();
    assert!(matches!(within("listen", reader.next()).await, StreamItem::Message(_)));

    let mut client = within("connect", TcpStream::connect(address)).await.unwrap();
    let (payload, stream) = within("forward", agent.host.incoming.next()).await.unwrap();
    assert_eq!(decode::<GuestOpen>(&payload).unwrap(), GuestOpen::Connect { forward: 42 });
    let (mut from_guest, to_guest) = stream.split();
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = Vec::new();
    loop {
        match within("request", from_guest.next()).await {
            StreamItem::Data { channel: 0, bytes } => request.extend_from_slice(&bytes),
            StreamItem::Eof { channel: 0 } => break,
            item => panic!("unexpected {item:?}"),
        }
    }
    assert_eq!(request, b"request");
    to_guest.data(0, bytes::Bytes::from_static(b"answer")).await.unwrap();
    to_guest.eof(0).await.unwrap();
    let mut answer = String::new();
    within("answer", client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "answer");

    writer.close().await.unwrap();
    within("the end of the listener", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_in_use_or_malformed_is_a_failure() {
    let agent = Agent::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [taken.local_addr().unwrap().to_string(), "localhost:80".to_owned()] {
        let failure = agent.host.ask(&HostOpen::Listen(Listen { forward: 1, address })).await.unwrap_err();
        assert!(failure.message.contains("listen on"), "{failure}");
    }
}

#[tokio::test]
async fn a_malformed_request_costs_only_itself() {
    let agent = Agent::start().await;
    let (mut reader, _writer) =
        agent.host.mux.open(bytes::Bytes::from_static(&[99, 1, 2])).await.unwrap().split();
    let StreamItem::Message(bytes) = within("the refusal", reader.next()).await else { panic!("no answer") };
    let tart_proto::message::GuestEvent::Failed(failure) = decode(&bytes).unwrap() else {
        panic!("no failure")
    };
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(agent.host.stats().await.tasks > 0);
    let weak = Configure { entropy: vec![0; 3], ..Configure::default() };
    assert!(agent.host.ask(&HostOpen::Reseed { entropy: weak.entropy }).await.is_err());
}

#[tokio::test]
async fn a_shutdown_kills_commands_answers_and_ends_the_serving() {
    let mut agent = Agent::start().await;
    agent.host.sh("sleep 1000 & :").await;
    agent.host.ask(&HostOpen::Shutdown).await.unwrap();
    assert_eq!(agent.processes("step"), Vec::<String>::new());
    let reset = within("the end", agent.serving.join_next()).await.unwrap().unwrap();
    assert!(reset);
    assert!(agent.etc.path().exists());
    assert_eq!(Arc::strong_count(&agent.machine), 1);
}
