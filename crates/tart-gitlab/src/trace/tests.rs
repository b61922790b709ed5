//! The sender against a scripted server, in simulated time.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::job_api::{JobUpdate, PatchAnswer, PatchResult, UpdateAnswer, UpdateResult};

/// What the sender did, with the seconds since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Append { at: u64, start: u64, text: String },
    Update { at: u64, state: JobState, size: u64 },
}

#[derive(Debug)]
struct Script {
    start: Instant,
    appends: VecDeque<PatchAnswer>,
    updates: VecDeque<UpdateAnswer>,
    /// Every append takes this long.
    delay: Duration,
    events: Vec<Event>,
    last: Option<JobUpdate>,
}

/// Answers from a list, then with success.
#[derive(Debug, Clone)]
struct Server {
    script: Arc<Mutex<Script>>,
    seen: watch::Sender<usize>,
}

impl Server {
    fn new() -> Self {
        let script = Script {
            start: Instant::now(),
            appends: VecDeque::new(),
            updates: VecDeque::new(),
            delay: Duration::ZERO,
            events: Vec::new(),
            last: None,
        };
        Self { script: Arc::new(Mutex::new(script)), seen: watch::Sender::new(0) }
    }

    fn script<T>(&self, look: impl FnOnce(&mut Script) -> T) -> T {
        look(&mut self.script.lock().expect("no test panics with it"))
    }

    fn on_append(&self, results: impl IntoIterator<Item = PatchResult>) {
        let answers =
            results.into_iter().map(|result| PatchAnswer { result, canceling: false, interval: None });
        self.script(|script| script.appends.extend(answers));
    }

    fn on_update(&self, results: impl IntoIterator<Item = UpdateResult>) {
        let answers =
            results.into_iter().map(|result| UpdateAnswer { result, canceling: false, interval: None });
        self.script(|script| script.updates.extend(answers));
    }

    fn note(&self, event: impl FnOnce(u64) -> Event) {
        self.script(|script| {
            let at = script.start.elapsed().as_secs();
            script.events.push(event(at));
        });
        self.seen.send_modify(|seen| *seen += 1);
    }

    async fn wait_events(&self, count: usize) {
        self.seen.subscribe().wait_for(|seen| *seen >= count).await.expect("the server lives");
    }

    fn events(&self) -> Vec<Event> {
        self.script(|script| script.events.clone())
    }

    fn start(&self, options: TraceOptions) -> JobTrace {
        JobTrace::start(Arc::new(self.clone()), options).expect("a temporary file")
    }
}

#[async_trait]
impl JobApi for Server {
    async fn update(&self, update: &JobUpdate) -> UpdateAnswer {
        let (state, size) = (update.state, update.output.map_or(0, |output| output.size));
        self.script(|script| script.last = Some(update.clone()));
        self.note(|at| Event::Update { at, state, size });
        let answer = self.script(|script| script.updates.pop_front());
        answer.unwrap_or(UpdateAnswer { result: UpdateResult::Succeeded, canceling: false, interval: None })
    }

    async fn append(&self, start: u64, chunk: Bytes, _: bool) -> PatchAnswer {
        assert!(!chunk.is_empty() && chunk.len() <= crate::MAX_CHUNK_BYTES);
        let text = match chunk.len() {
            0..100 => String::from_utf8_lossy(&chunk).into_owned(),
            length => format!("{length} bytes"),
        };
        self.note(|at| Event::Append { at, start, text });
        let delay = self.script(|script| script.delay);
        tokio::time::sleep(delay).await;
        let answer = self.script(|script| script.appends.pop_front());
        answer.unwrap_or(PatchAnswer { result: PatchResult::Stored, canceling: false, interval: None })
    }
}

fn append(at: u64, start: u64, text: &str) -> Event {
    Event::Append { at, start, text: text.into() }
}

fn update(at: u64, state: JobState, size: u64) -> Event {
    Event::Update { at, state, size }
}

fn failure() -> ApiError {
    ApiError::Status { status: 503, message: "try later".into() }
}

fn success() -> FinalState {
    FinalState::success()
}

#[tokio::test(start_paused = true)]
async fn a_silent_job_is_reported_at_the_first_tick_and_then_after_thirty_seconds() {
    let server = Server::new();
    let trace = server.start(TraceOptions::default());
    server.wait_events(2).await;
    assert_eq!(server.events(), [update(3, JobState::Running, 0), update(36, JobState::Running, 0)]);
    drop(trace);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_sent_at_each_tick_of_the_interval_the_server_wants() {
    let server = Server::new();
    let interval = Some(Duration::from_secs(10));
    server.script(|script| {
        script.appends.push_back(PatchAnswer { result: PatchResult::Stored, canceling: false, interval });
    });
    let trace = server.start(TraceOptions::default());
    let log = trace.writer();
    log.write(b"one\n");
    server.wait_events(1).await;
    log.write(b"two\n");
    server.wait_events(2).await;
    log.write(b"three\n");
    assert_eq!(trace.finish(success()).await, FinishOutcome::Completed);
    assert_eq!(
        server.events(),
        [
            append(3, 0, "one\n"),
            append(13, 4, "two\n"),
            append(13, 8, "three\n"),
            update(13, JobState::Success, 14)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn cancellation_is_signalled_and_the_log_goes_on() {
    let server = Server::new();
    server.script(|script| {
        script.updates.push_back(UpdateAnswer {
            result: UpdateResult::Succeeded,
            canceling: true,
            interval: None,
        });
    });
    let trace = server.start(TraceOptions::default());
    let mut signals = trace.signals();
    signals.wait_for(|signal| *signal == RemoteSignal::Cancel).await.expect("the trace lives");
    trace.writer().write(b"after_script");
    server.wait_events(2).await;
    assert_eq!(server.events().last(), Some(&append(6, 0, "after_script")));
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_the_ticks_but_not_the_final_update() {
    let server = Server::new();
    server.on_append([PatchResult::Abort, PatchResult::Abort]);
    server.on_update([UpdateResult::Abort { taken: false }]);
    let trace = server.start(TraceOptions::default());
    trace.writer().write(b"x");
    let mut signals = trace.signals();
    signals.wait_for(|signal| *signal == RemoteSignal::Abort).await.expect("the trace lives");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.events().len(), 1);
    let end = FinalState::failed(FailureReason::ScriptFailure, Some(1));
    assert_eq!(trace.finish(end).await, FinishOutcome::Refused);
    assert_eq!(server.events().last(), Some(&update(603, JobState::Failed, 1)));
}

#[tokio::test(start_paused = true)]
async fn failed_and_unknown_chunks_are_sent_again_without_a_touch() {
    let server = Server::new();
    server.on_append([PatchResult::Failed(failure()), PatchResult::NotFound, PatchResult::Stored]);
    let trace = server.start(TraceOptions::default());
    trace.writer().write(b"x");
    server.wait_events(3).await;
    assert_eq!(server.events(), [append(3, 0, "x"), append(6, 0, "x"), append(9, 0, "x")]);
    drop(trace);
}

#[tokio::test(start_paused = true)]
async fn the_server_says_where_the_log_goes_on() {
    let server = Server::new();
    server.on_append([PatchResult::Stored, PatchResult::Mismatch { stored: 2 }]);
    let trace = server.start(TraceOptions::default());
    let log = trace.writer();
    log.write(b"abcd");
    server.wait_events(1).await;
    log.write(b"ef");
    server.wait_events(3).await;
    assert_eq!(server.events(), [append(3, 0, "abcd"), append(6, 4, "ef"), append(9, 2, "cdef")]);
    drop(trace);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_long_log_is_sent_at_once_in_chunks() {
    let server = Server::new();
    let trace = server.start(TraceOptions { output_limit: 1 << 30, ..TraceOptions::default() });
    let log = trace.writer();
    let line = [b'x'; 1 << 16];
    (0..40).for_each(|_| log.write(&line));
    assert_eq!(trace.finish(success()).await, FinishOutcome::Completed);
    assert_eq!(
        server.events(),
        [
            append(0, 0, "1048576 bytes"),
            append(0, 1 << 20, "1048576 bytes"),
            append(0, 2 << 20, "524288 bytes"),
            update(0, JobState::Success, 5 << 19)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_final_update_waits_for_a_busy_server_and_sends_the_log_again_on_demand() {
    let server = Server::new();
    server.on_update([
        UpdateResult::Accepted,
        UpdateResult::LogMismatch,
        UpdateResult::Abort { taken: true },
    ]);
    let trace = server.start(TraceOptions::default());
    trace.writer().write(b"log");
    let end = FinalState::failed(FailureReason::ScriptFailure, Some(2));
    assert_eq!(trace.finish(end).await, FinishOutcome::Completed);
    assert_eq!(
        server.events(),
        [
            append(0, 0, "log"),
            update(0, JobState::Failed, 3),
            update(3, JobState::Failed, 3),
            append(6, 0, "log"),
            update(6, JobState::Failed, 3)
        ]
    );
    let last = server.script(|script| script.last.clone()).expect("an update");
    assert_eq!((last.failure_reason, last.exit_code), (Some(FailureReason::ScriptFailure), Some(2)));
    assert_eq!(last.output.map(|output| output.crc32), Some(crc32fast::hash(b"log")));
}

#[tokio::test(start_paused = true)]
async fn the_final_update_is_given_up_after_the_limit() {
    let server = Server::new();
    server.on_update(std::iter::repeat_n(UpdateResult::Failed(failure()), 20));
    let trace = server.start(TraceOptions { final_update_attempts: 3, ..TraceOptions::default() });
    let outcome = trace.finish(success()).await;
    assert_eq!(outcome, FinishOutcome::GaveUp { attempts: 3, error: failure() });
    let at = |seconds| update(seconds, JobState::Success, 0);
    assert_eq!(server.events(), [at(0), at(4), at(9)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_agrees_is_given_up() {
    for result in [UpdateResult::Accepted, UpdateResult::LogMismatch] {
        let server = Server::new();
        server.on_update(std::iter::repeat_n(result, 10_000));
        let trace = server.start(TraceOptions { final_update_attempts: 2, ..TraceOptions::default() });
        assert!(matches!(trace.finish(success()).await, FinishOutcome::GaveUp { attempts: 2, .. }));
    }
    let server = Server::new();
    server.on_append(std::iter::repeat_n(PatchResult::Mismatch { stored: 0 }, 10_000));
    let trace = server.start(TraceOptions { final_update_attempts: 2, ..TraceOptions::default() });
    trace.writer().write(b"x");
    assert!(matches!(trace.finish(success()).await, FinishOutcome::GaveUp { attempts: 2, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_hangs_does_not_hold_back_the_end_for_long() {
    let server = Server::new();
    server.script(|script| script.delay = Duration::from_secs(3600));
    let trace = server.start(TraceOptions::default());
    trace.writer().write(b"x");
    server.wait_events(1).await;
    server.script(|script| script.delay = Duration::ZERO);
    assert_eq!(trace.finish(success()).await, FinishOutcome::Completed);
    assert_eq!(server.events(), [append(3, 0, "x"), append(33, 0, "x"), update(33, JobState::Success, 1)]);
}

#[tokio::test(start_paused = true)]
async fn ticks_go_on_beside_a_slow_server() {
    let server = Server::new();
    server.script(|script| script.delay = Duration::from_secs(20));
    let trace = server.start(TraceOptions::default());
    let log = trace.writer();
    log.write(b"a");
    server.wait_events(1).await;
    log.write(b"b");
    server.wait_events(2).await;
    assert_eq!(server.events(), [append(3, 0, "a"), append(26, 1, "b")]);
    drop(trace);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_trace_ends_its_task() {
    let server = Server::new();
    drop(server.start(TraceOptions::default()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(server.events().is_empty());
    assert_eq!(Arc::strong_count(&server.script), 1);
}
