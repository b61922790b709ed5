//! Guests that lie.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use tart_guest::{Command, CommandEvent, Guest, GuestError, MAX_TEXT, NoRelay, Relay};
use tart_proto::{
    Incoming, Mux, Role, Stream, StreamItem, StreamReader, StreamWriter,
    limits::MAX_PEER_STREAMS,
    message::{
        Exec, ExitStatus, Exited, Failure, FailureKind, GetFile, GuestEvent, GuestOpen, Hello, Limits,
        Output, PutFile, Root, Stats, encode,
    },
    mux,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf},
    sync::oneshot,
};

const LIMIT: Duration = Duration::from_secs(60);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it took too long")
}

fn hello() -> GuestOpen {
    GuestOpen::Hello(Hello {
        agent_version: "1\u{1b}[2J".into(),
        kernel: "k".repeat(100_000),
        cpus: 1,
        memory_bytes: 1,
        init_uptime_usec: 1,
        ready_uptime_usec: 2,
    })
}

/// A guest that speaks the protocol of frames, and above it what the test wants.
struct Liar {
    mux: Mux,
    incoming: Incoming,
}

impl Liar {
    async fn start(stream: DuplexStream) -> Self {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let decoder = mux::handshake_guest(&mut reader, &mut writer).await.unwrap();
        let (mux, incoming) = Mux::start(reader, writer, Role::Guest, decoder);
        Self { mux, incoming }
    }

    async fn greet(&self, greeting: &GuestOpen) {
        let opened = self.mux.open(encode(greeting).unwrap()).await.unwrap();
        opened.split().1.close().await.unwrap();
    }

    /// The host's next request, whatever it is.
    async fn asked(&mut self) -> (StreamReader, StreamWriter) {
        within(self.incoming.next()).await.unwrap().1.split()
    }
}

async fn pair(relay: Arc<dyn Relay>) -> (Guest, Liar) {
    let (ours, theirs) = tokio::io::duplex(4096);
    let liar = async {
        let liar = Liar::start(theirs).await;
        liar.greet(&hello()).await;
        liar
    };
    let (connected, liar) = within(async { tokio::join!(Guest::connect(ours, relay, LIMIT), liar) }).await;
    (connected.unwrap().0, liar)
}

fn exec() -> Exec {
    Exec {
        root: Root::Job,
        argv: vec!["x".into()],
        env: Vec::new(),
        cwd: "/".into(),
        user: String::new(),
        output: Output::Separate,
        stdin: false,
        cgroup: "x".into(),
        limits: Limits::default(),
    }
}

fn exited() -> GuestEvent {
    let status = ExitStatus::Code(i32::MIN);
    GuestEvent::Exited(Exited {
        status,
        oom_kills: u64::MAX,
        cpu_usec: u64::MAX,
        memory_peak_bytes: u64::MAX,
    })
}

async fn say(writer: &StreamWriter, event: &GuestEvent) {
    let _gone = writer.message(encode(event).unwrap()).await;
}

fn is_violation(error: &GuestError, text: &str) -> bool {
    matches!(error, GuestError::Violation { what } if what == text)
}

#[tokio::test]
async fn a_greeting_is_made_harmless() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let liar = async {
        let liar = Liar::start(theirs).await;
        liar.greet(&hello()).await;
        liar
    };
    let connect = Guest::connect(ours, Arc::new(NoRelay), LIMIT);
    let (connected, _liar) = within(async { tokio::join!(connect, liar) }).await;
    let hello = connected.unwrap().1;
    assert_eq!(hello.agent_version, "1\u{fffd}[2J");
    assert!(hello.kernel.len() <= MAX_TEXT + 3);
}

#[tokio::test]
async fn whoever_does_not_greet_first_is_no_agent() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let liar = async {
        let liar = Liar::start(theirs).await;
        liar.greet(&GuestOpen::Connect { forward: 1 }).await;
        liar
    };
    let connect = Guest::connect(ours, Arc::new(NoRelay), LIMIT);
    let (connected, _liar) = within(async { tokio::join!(connect, liar) }).await;
    assert!(is_violation(&connected.unwrap_err(), "it did not greet first"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_says_nothing_times_out() {
    let (ours, _theirs) = tokio::io::duplex(4096);
    let error = Guest::connect(ours, Arc::new(NoRelay), Duration::from_secs(7)).await.unwrap_err();
    assert_eq!(error.to_string(), "the guest did not come up within 7 s");
    assert!(!error.is_lost());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_times_out() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let (asked, _kept) = tokio::join!(guest.set_time(1), liar.asked());
    assert_eq!(asked.unwrap_err().to_string(), "the guest did not set its clock within 60 s");
    let exec = exec();
    let (asked, _kept) = tokio::join!(guest.exec(&exec), liar.asked());
    assert_eq!(asked.unwrap_err().to_string(), "the guest did not start a command within 60 s");
}

#[tokio::test]
async fn a_guest_that_greets_twice_or_opens_nonsense_loses_its_session() {
    for (open, what) in [
        (encode(&hello()).unwrap(), "the agent greeted twice"),
        (Bytes::from_static(&[99]), "malformed request of the guest"),
    ] {
        let (guest, liar) = pair(Arc::new(NoRelay)).await;
        let _stream = liar.mux.open(open).await.unwrap();
        assert!(is_violation(&within(guest.closed()).await, what));
        assert!(is_violation(&within(guest.stats()).await.unwrap_err(), what));
        within(liar.mux.closed()).await;
    }
}

#[tokio::test]
async fn answers_that_do_not_fit_end_the_session() {
    let wrong = [exited(), GuestEvent::Started { pid: 1 }, GuestEvent::Stats(Stats::default())];
    for event in wrong {
        let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
        let answer = async {
            let (reader, writer) = liar.asked().await;
            say(&writer, &event).await;
            (reader, writer)
        };
        let (asked, _kept) = tokio::join!(guest.reseed(&[0; 32]), answer);
        assert!(is_violation(&asked.unwrap_err(), "an answer that does not fit its request"), "{event:?}");
        assert!(within(guest.closed()).await.is_lost());
    }
}

#[tokio::test]
async fn other_things_than_answers_end_the_session() {
    type Say = fn(StreamWriter) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    let cases: [(Say, &str); 3] = [
        (
            |w| Box::pin(async move { w.data(0, Bytes::from_static(b"x")).await.unwrap() }),
            "data that nobody asked for",
        ),
        (|w| Box::pin(async move { w.close().await.unwrap() }), "a request without an answer"),
        (|w| Box::pin(async move { w.message(Bytes::from_static(&[77])).await.unwrap() }), "malformed event"),
    ];
    for (say, what) in cases {
        let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
        let answer = async {
            let (reader, writer) = liar.asked().await;
            say(writer.clone()).await;
            (reader, writer)
        };
        let (asked, _kept) = tokio::join!(guest.stats(), answer);
        assert!(is_violation(&asked.unwrap_err(), what), "{what}");
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_fails_alone_in_plain_words() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let give_up = async { liar.asked().await.1.reset("no \u{1b}]0;x\u{7} more\n") };
    let (asked, ()) = tokio::join!(guest.stats(), give_up);
    let error = asked.unwrap_err();
    assert_eq!(error.to_string(), "the guest gave the request up: no \u{fffd}]0;x\u{fffd} more ");
    assert_eq!(error.failure_kind(), Some(FailureKind::Other));
    let answer = async {
        let (_reader, writer) = liar.asked().await;
        say(&writer, &GuestEvent::Stats(Stats::default())).await;
        writer.close().await.unwrap();
    };
    tokio::join!(guest.stats(), answer).0.unwrap();
}

#[tokio::test]
async fn too_many_requests_at_once_cost_no_session() {
    let (guest, _liar) = pair(Arc::new(NoRelay)).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..=MAX_PEER_STREAMS {
        let guest = guest.clone();
        asking.spawn(async move { guest.stats().await });
    }
    // The others are never answered.
    let error = within(asking.join_next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "too many requests are under way");
    within(guest.ping()).await.unwrap();
}

#[tokio::test]
async fn a_long_failure_is_cut() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let fail = async {
        let (_reader, writer) = liar.asked().await;
        let message = "\u{7}ü".repeat(100_000);
        say(&writer, &GuestEvent::Failed(Failure { kind: FailureKind::NoSpace, message })).await;
        writer.close().await.unwrap();
    };
    let error = tokio::join!(guest.mount(&[]), fail).0.unwrap_err();
    assert_eq!(error.failure_kind(), Some(FailureKind::NoSpace));
    assert!(error.to_string().len() <= MAX_TEXT + 3);
}

async fn command(guest: &Guest, liar: &mut Liar) -> (Command, StreamReader, StreamWriter) {
    let start = async {
        let (reader, writer) = liar.asked().await;
        say(&writer, &GuestEvent::Started { pid: u32::MAX }).await;
        (reader, writer)
    };
    let exec = exec();
    let (command, (reader, writer)) = tokio::join!(guest.exec(&exec), start);
    (command.unwrap(), reader, writer)
}

#[tokio::test]
async fn a_command_that_never_stops_writing_is_held_up() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let (mut command, _reader, writer) = command(&guest, &mut liar).await;
    let flood = tokio::spawn(async move { writer.data(1, vec![0; 64 << 20].into()).await });
    within(guest.ping()).await.unwrap();
    within(liar.mux.ping()).await.unwrap();
    assert!(!flood.is_finished());
    assert!(matches!(within(command.next()).await.unwrap(), CommandEvent::Stdout(_)));
    drop(command);
    within(flood).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_command_says_only_what_commands_say() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let (mut first, _reader, writer) = command(&guest, &mut liar).await;
    let (mut other, _other_reader, _other_writer) = command(&guest, &mut liar).await;
    writer.data(9, Bytes::from_static(b"x")).await.unwrap();
    let error = within(first.next()).await.unwrap_err();
    assert!(is_violation(&error, "data that nobody asked for"));
    // All of the session is gone.
    assert!(is_violation(&within(other.next()).await.unwrap_err(), "data that nobody asked for"));
    assert!(within(other.control().signal(9)).await.unwrap_err().is_lost());

    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let (mut command, _reader, writer) = command(&guest, &mut liar).await;
    say(&writer, &GuestEvent::Started { pid: 1 }).await;
    let error = within(command.next()).await.unwrap_err();
    assert!(is_violation(&error, "an event that does not belong to a command"));
}

#[tokio::test]
async fn impossible_numbers_of_an_end_are_only_numbers() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let (mut command, _reader, writer) = command(&guest, &mut liar).await;
    say(&writer, &exited()).await;
    assert!(matches!(within(command.next()).await.unwrap(), CommandEvent::Exited(_)));
}

#[tokio::test]
async fn a_machine_that_dies_is_a_lost_session() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let (mut command, reader, writer) = command(&guest, &mut liar).await;
    drop((reader, writer, liar));
    assert!(within(command.next()).await.unwrap_err().is_lost());
    assert_eq!(
        within(guest.closed()).await.to_string(),
        "the connection to the guest is lost: the connection was closed"
    );
}

#[tokio::test]
async fn a_file_larger_than_asked_for_is_refused() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let send = async {
        let (_reader, writer) = liar.asked().await;
        let _cut = writer.data(0, vec![0; 2_000_000].into()).await;
    };
    let request = GetFile { root: Root::Job, path: "/x".into(), max_bytes: 1_000_000 };
    let mut kept = Vec::new();
    let (got, ()) = within(async { tokio::join!(guest.get_file(&request, &mut kept), send) }).await;
    assert!(is_violation(&got.unwrap_err(), "a file larger than the limit of its request"));
    assert!(kept.len() <= 1_000_000);
}

#[tokio::test]
async fn a_file_is_done_only_after_its_end() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let put = PutFile { root: Root::Job, path: "/x".into(), mode: 0o600, owner: String::new() };
    let lie = async {
        let (reader, writer) = liar.asked().await;
        say(&writer, &GuestEvent::Done).await;
        (reader, writer)
    };
    let (done, _kept) = within(async { tokio::join!(guest.put_file(&put, tokio::io::repeat(1)), lie) }).await;
    assert!(is_violation(&done.unwrap_err(), "a file taken before its end"));
}

#[tokio::test]
async fn a_source_that_fails_is_no_fault_of_the_guest() {
    let (guest, mut liar) = pair(Arc::new(NoRelay)).await;
    let put = PutFile { root: Root::Job, path: "/x".into(), mode: 0o600, owner: String::new() };
    let source = tokio::io::repeat(1).take(1_000_000).chain(Broken);
    let watch = async {
        let (mut reader, _writer) = liar.asked().await;
        loop {
            match within(reader.next()).await {
                StreamItem::Data { .. } => {}
                item => return item,
            }
        }
    };
    let (done, seen) = within(async { tokio::join!(guest.put_file(&put, source), watch) }).await;
    assert_eq!(done.unwrap_err().to_string(), "cannot read what goes to the guest: gone");
    assert!(matches!(seen, StreamItem::Reset(_)), "the guest keeps nothing of it");
}

struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("gone")))
    }
}

/// Waits until the session drops it.
struct Forever(std::sync::Mutex<Option<oneshot::Sender<()>>>);

#[async_trait]
impl Relay for Forever {
    async fn serve(&self, _forward: u32, _stream: Stream) {
        let _held = self.0.lock().unwrap().take();
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn relays_end_with_the_session() {
    let (sender, dropped) = oneshot::channel();
    let (guest, liar) = pair(Arc::new(Forever(std::sync::Mutex::new(Some(sender))))).await;
    let _stream = liar.mux.open(encode(&GuestOpen::Connect { forward: 1 }).unwrap()).await.unwrap();
    within(guest.ping()).await.unwrap();
    within(liar.mux.ping()).await.unwrap();
    drop(guest);
    assert!(within(dropped).await.is_err());
    within(liar.mux.closed()).await;
}

/// A guest that answers the handshake and then says arbitrary bytes.
async fn noise(bytes: Vec<u8>, framed: bool) {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let guest = tokio::spawn(async move {
        let mut preamble = [0; 22];
        theirs.read_exact(&mut preamble).await.unwrap();
        let _gone = theirs.write_all(&preamble).await;
        if framed {
            let hello = encode(&hello()).unwrap();
            let mut frame = tart_proto::Frame::new(tart_proto::FrameKind::Open, 2, hello);
            frame.stream = 2;
            let mut out = bytes::BytesMut::new();
            frame.encode(&mut out).unwrap();
            let _gone = theirs.write_all(&out).await;
        }
        let _gone = theirs.write_all(&bytes).await;
        let _gone = theirs.shutdown().await;
        let mut sink = Vec::new();
        let _gone = theirs.read_to_end(&mut sink).await;
    });
    match within(Guest::connect(ours, Arc::new(NoRelay), LIMIT)).await {
        Ok((guest, _)) => {
            let _lost = within(guest.exec(&exec())).await;
            assert!(within(guest.closed()).await.is_lost());
        }
        Err(error) => assert!(error.is_lost(), "{error}"),
    }
    within(guest).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn noise_is_a_lost_session(bytes in prop::collection::vec(any::<u8>(), 0..400), framed in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(noise(bytes, framed));
    }
}
