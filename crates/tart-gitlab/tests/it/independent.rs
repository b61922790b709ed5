//! One flow against a mock that others wrote. Its Range header is missing on 416, and it asserts the metadata.

use std::sync::Arc;
use std::time::Duration;

use gitlab_runner_mock::{GitlabRunnerMock, MockJobState};
use tart_gitlab::{
    Acknowledgement, FinalState, FinishOutcome, JobTrace, RemoteSignal, RequestOutcome, TraceOptions,
};
use tart_spec::FailureReason;

use crate::support::{LIMIT, client, handle, info, poll, take_job};

fn options() -> TraceOptions {
    TraceOptions { first_interval: Duration::from_millis(10), ..TraceOptions::default() }
}

#[tokio::test]
async fn jobs_run_to_their_end() {
    let mock = GitlabRunnerMock::start().await;
    mock.set_expected_metadata_version(info().version);
    mock.set_expected_metadata_revision(info().revision);
    mock.set_expected_metadata_platform(info().platform);
    mock.set_expected_metadata_architecture(info().architecture);
    let (client, _) = client(mock.uri().as_str());
    for (end, state) in [
        (FinalState::success(), MockJobState::Success),
        (FinalState::failed(FailureReason::ScriptFailure, Some(1)), MockJobState::Failed),
    ] {
        let expected = mock.add_dummy_job("test".into());
        let job = take_job(&client, mock.runner_token()).await;
        assert_eq!(u64::try_from(job.payload.id), Ok(expected.id()));
        let handle = handle(&client, &job);
        assert_eq!(handle.acknowledge().await, Acknowledgement::Run);
        let trace = JobTrace::start(Arc::new(handle), options()).expect("a temporary file");
        trace.writer().write(b"hello\n");
        let outcome = tokio::time::timeout(LIMIT, trace.finish(end)).await.expect("in time");
        assert_eq!(outcome, FinishOutcome::Completed);
        assert_eq!(expected.state(), state);
        assert_eq!(expected.log(), b"hello\n");
    }
    assert!(matches!(poll(&client, mock.runner_token()).await.outcome, RequestOutcome::NoJob));
    assert!(matches!(poll(&client, "wrong").await.outcome, RequestOutcome::Unhealthy(_)));
}

#[tokio::test]
async fn a_cancelled_job_is_aborted() {
    let mock = GitlabRunnerMock::start().await;
    let (client, _) = client(mock.uri().as_str());
    let expected = mock.add_dummy_job("test".into());
    let job = take_job(&client, mock.runner_token()).await;
    let trace = JobTrace::start(Arc::new(handle(&client, &job)), options()).expect("a temporary file");
    expected.cancel();
    let mut signals = trace.signals();
    let aborted = signals.wait_for(|signal| *signal == RemoteSignal::Abort);
    tokio::time::timeout(LIMIT, aborted).await.expect("in time").expect("the trace lives");
    let end = FinalState::failed(FailureReason::JobCanceled, None);
    let outcome = tokio::time::timeout(LIMIT, trace.finish(end)).await.expect("in time");
    assert_eq!(outcome, FinishOutcome::Refused);
}
