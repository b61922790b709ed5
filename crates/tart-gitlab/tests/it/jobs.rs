use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tart_gitlab::{
    Acknowledgement, ApiError, FinalState, FinishOutcome, JobApi, JobHandle, JobTrace, JobUpdate,
    PatchAnswer, PatchResult, RemoteSignal, TraceOptions, UpdateAnswer, UpdateResult,
};
use tart_spec::FailureReason;
use tart_test_gitlab::{Endpoint, Fault, JobSpec, JobState, RunnerOptions, TestGitlab};

use crate::support::{LIMIT, client, handle, take_job};

struct Running {
    server: TestGitlab,
    queued: tart_test_gitlab::JobHandle,
    handle: JobHandle,
    options: TraceOptions,
}

async fn running(spec: JobSpec) -> Running {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    let queued = server.enqueue(spec).await;
    let job = take_job(&client, &runner.token()).await;
    let handle = handle(&client, &job);
    assert_eq!(handle.acknowledge().await, Acknowledgement::Run);
    let options = TraceOptions {
        failure_reasons: job.payload.features.failure_reasons.clone(),
        first_interval: Duration::from_millis(10),
        ..TraceOptions::default()
    };
    Running { server, queued, handle, options }
}

impl Running {
    fn trace(&self) -> JobTrace {
        JobTrace::start(Arc::new(self.handle.clone()), self.options.clone()).expect("a temporary file")
    }
}

async fn finish(trace: JobTrace, end: FinalState) -> FinishOutcome {
    tokio::time::timeout(LIMIT, trace.finish(end)).await.expect("an end in time")
}

#[tokio::test]
async fn a_job_ends_well_with_its_whole_log() {
    let job = running(JobSpec::script(["true"])).await;
    let trace = job.trace();
    let log = trace.writer();
    log.write(b"first\n");
    job.queued.wait_log_contains("first", LIMIT).await;
    log.write(b"last \xf0\x9f\x90");
    log.write(b"\x89\xff\n");
    log.write(b"half \xf0\x9f");
    assert_eq!(finish(trace, FinalState::success()).await, FinishOutcome::Completed);
    assert_eq!(job.queued.state(), JobState::Success);
    assert_eq!(job.queued.log(), "first\nlast \u{1f409}\u{fffd}\nhalf \u{fffd}");
    job.server.assert_no_violations();
}

#[tokio::test]
async fn a_failed_job_has_a_reason_the_server_knows_and_an_exit_code() {
    for (reason, code, sent) in [
        (FailureReason::ScriptFailure, Some(3), "script_failure"),
        (FailureReason::JobCanceled, None, "unknown_failure"),
        (FailureReason::RunnerSystemFailure, None, "runner_system_failure"),
    ] {
        let job = running(JobSpec::script(["false"])).await;
        let end = FinalState::failed(reason, code);
        assert_eq!(finish(job.trace(), end).await, FinishOutcome::Completed);
        assert_eq!(job.queued.state(), JobState::Failed);
        assert_eq!(job.queued.failure_reason().as_deref(), Some(sent));
        assert_eq!(job.queued.exit_code(), code.map(i64::from));
        job.server.assert_no_violations();
    }
}

#[tokio::test]
async fn cancellation_reaches_a_silent_job_and_ends_it_as_cancelled() {
    let job = running(JobSpec::script(["true"])).await;
    let trace = job.trace();
    job.queued.cancel();
    let mut signals = trace.signals();
    let cancelled = signals.wait_for(|signal| *signal == RemoteSignal::Cancel);
    tokio::time::timeout(LIMIT, cancelled).await.expect("in time").expect("the trace lives");
    trace.writer().write(b"after_script\n");
    let end = FinalState::failed(FailureReason::JobCanceled, None);
    assert_eq!(finish(trace, end).await, FinishOutcome::Completed);
    assert_eq!(job.queued.state(), JobState::Canceled);
    assert_eq!(job.queued.log(), "after_script\n");
    job.server.assert_no_violations();
}

#[tokio::test]
async fn a_job_the_server_ended_is_aborted() {
    let job = running(JobSpec::script(["true"])).await;
    let trace = job.trace();
    job.queued.abort();
    let mut signals = trace.signals();
    let aborted = signals.wait_for(|signal| *signal == RemoteSignal::Abort);
    tokio::time::timeout(LIMIT, aborted).await.expect("in time").expect("the trace lives");
    let end = FinalState::failed(FailureReason::JobCanceled, None);
    assert_eq!(finish(trace, end).await, FinishOutcome::Refused);
    assert_eq!(job.queued.state(), JobState::Canceled);
    job.server.assert_no_violations();
}

#[tokio::test]
async fn a_job_cancelled_before_its_acknowledgement_is_abandoned() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    let queued = server.enqueue(JobSpec::script(["true"])).await;
    let job = take_job(&client, &runner.token()).await;
    queued.abort();
    assert_eq!(handle(&client, &job).acknowledge().await, Acknowledgement::Abandon);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_server_that_lost_part_of_the_log_gets_it_again() {
    let job = running(JobSpec::script(["true"])).await;
    let trace = job.trace();
    trace.writer().write(b"0123456789");
    job.queued.wait_log_contains("0123456789", LIMIT).await;
    job.server.faults().next(Endpoint::Trace, Fault::TruncateTrace(4));
    trace.writer().write(b"abcdef");
    assert_eq!(finish(trace, FinalState::success()).await, FinishOutcome::Completed);
    assert_eq!(job.queued.log(), "0123456789abcdef");
    job.server.assert_no_violations();
}

#[tokio::test]
async fn a_chunk_whose_answer_was_lost_is_not_stored_twice() {
    let job = running(JobSpec::script(["true"])).await;
    job.server.faults().next(Endpoint::Trace, Fault::DropAnswer);
    let trace = job.trace();
    trace.writer().write(b"only once\n");
    assert_eq!(finish(trace, FinalState::success()).await, FinishOutcome::Completed);
    assert_eq!(job.queued.log(), "only once\n");
    job.server.assert_no_violations();
}

#[tokio::test]
async fn the_end_survives_every_hiccup_of_the_server() {
    let job = running(JobSpec::script(["true"])).await;
    let faults = job.server.faults();
    faults.next(Endpoint::FinalUpdate, Fault::Status(202));
    faults.next(Endpoint::FinalUpdate, Fault::Status(412));
    faults.next(Endpoint::FinalUpdate, Fault::RetryAfter(503, 60));
    faults.next(Endpoint::FinalUpdate, Fault::Drop);
    let trace = job.trace();
    trace.writer().write(b"log\n");
    assert_eq!(finish(trace, FinalState::success()).await, FinishOutcome::Completed);
    assert_eq!(job.queued.state(), JobState::Success);
    assert_eq!(job.queued.log(), "log\n");
    assert_eq!(job.server.faults().pending(), 0);
    job.server.assert_no_violations();
}

#[tokio::test]
async fn a_lost_answer_to_the_final_update_ends_the_job_all_the_same() {
    let job = running(JobSpec::script(["true"])).await;
    job.server.faults().next(Endpoint::FinalUpdate, Fault::DropAnswer);
    let outcome = finish(job.trace(), FinalState::success()).await;
    assert_eq!(outcome, FinishOutcome::Refused, "the second update comes too late");
    assert_eq!(job.queued.state(), JobState::Success);
}

#[tokio::test]
async fn a_dead_server_is_given_up() {
    let mut job = running(JobSpec::script(["true"])).await;
    job.options.final_update_attempts = 2;
    job.server.faults().always(Endpoint::FinalUpdate, Fault::Drop);
    let outcome = finish(job.trace(), FinalState::success()).await;
    assert!(
        matches!(outcome, FinishOutcome::GaveUp { attempts: 2, error: ApiError::Transport(_) }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn debugging_output_is_marked_in_the_first_chunk() {
    let job = running(JobSpec::script(["true"])).await;
    let trace = job.trace();
    trace.set_debug_trace(true);
    trace.writer().write(b"+ secret\n");
    finish(trace, FinalState::success()).await;
    assert!(job.queued.debug_trace());
    job.server.assert_no_violations();
}

#[tokio::test]
async fn the_log_limit_of_the_server_aborts_the_job() {
    let job = running(JobSpec::script(["true"]).log_limit(4)).await;
    let trace = job.trace();
    trace.writer().write(b"too long");
    let mut signals = trace.signals();
    let aborted = signals.wait_for(|signal| *signal == RemoteSignal::Abort);
    tokio::time::timeout(LIMIT, aborted).await.expect("in time").expect("the trace lives");
    assert_eq!(job.queued.failure_reason().as_deref(), Some("trace_size_exceeded"));
    job.server.assert_no_violations();
}

/// Bytes this process has resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a known line");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
}

/// Takes everything and keeps nothing.
#[derive(Debug, Default)]
struct Sink {
    received: AtomicU64,
}

#[async_trait]
impl JobApi for Sink {
    async fn update(&self, _: &JobUpdate) -> UpdateAnswer {
        UpdateAnswer { result: UpdateResult::Succeeded, canceling: false, interval: None }
    }

    async fn append(&self, start: u64, chunk: Bytes, _: bool) -> PatchAnswer {
        let length = u64::try_from(chunk.len()).expect("small");
        assert_eq!(self.received.fetch_add(length, Ordering::SeqCst), start);
        PatchAnswer { result: PatchResult::Stored, canceling: false, interval: None }
    }
}

#[tokio::test]
async fn two_hundred_megabytes_of_log_need_little_memory() {
    let sink = Arc::new(Sink::default());
    let directory = tempfile::tempdir().expect("a directory");
    let options = TraceOptions {
        output_limit: u64::MAX,
        directory: directory.path().into(),
        ..TraceOptions::default()
    };
    let trace = JobTrace::start(sink.clone(), options).expect("a temporary file");
    let log = trace.writer();
    let before = resident();
    let line = [b'x'; 1 << 16];
    for _ in 0..(200 << 4) {
        log.write(&line);
    }
    assert_eq!(finish(trace, FinalState::success()).await, FinishOutcome::Completed);
    assert_eq!(sink.received.load(Ordering::SeqCst), 200 << 20);
    let growth = resident().saturating_sub(before);
    assert!(growth < 16 << 20, "{growth} bytes more");
}
