//! The log.

use reqwest::Method;
use tart_test_gitlab::{JobSpec, JobState};

use crate::client::{header, output, send, server_with, text};

#[tokio::test]
async fn chunks_are_appended_and_their_end_is_told() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    server.set_update_interval(60);
    let taken = client.take_job().await;
    let answer = client.append(&taken, 0, b"hello ").await;
    assert_eq!(answer.status(), 202);
    assert_eq!(header(&answer, "range"), Some("0-6"));
    assert_eq!(header(&answer, "x-gitlab-trace-update-interval"), Some("60"));
    assert_eq!(header(&client.append(&taken, 6, b"world").await, "range"), Some("0-11"));
    assert_eq!(job.log_bytes(), b"hello world");
    server.assert_no_violations();
}

#[tokio::test]
async fn a_chunk_at_another_place_is_answered_416_with_the_right_one() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    client.append(&taken, 0, b"hello").await;
    for start in [0, 9] {
        let answer = client.append(&taken, start, b"x").await;
        assert_eq!((answer.status().as_u16(), header(&answer, "range")), (416, Some("0-5")));
    }
    assert_eq!(job.log(), "hello");
    server.assert_no_violations();
}

#[tokio::test]
async fn a_log_above_the_limit_fails_the_job() {
    let (server, client, job) = server_with(JobSpec::script(["true"]).log_limit(5)).await;
    let taken = client.take_job().await;
    assert_eq!(client.append(&taken, 0, b"12345").await.status(), 202);
    let answer = client.append(&taken, 5, b"6").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (403, Some("failed")));
    assert_eq!(job.failure_reason().as_deref(), Some("trace_size_exceeded"));
    server.assert_no_violations();
}

#[tokio::test]
async fn a_mismatch_can_be_answered_412_and_the_log_sent_again() {
    let (server, client, job) = server_with(JobSpec::script(["true"]).resend_on_mismatch()).await;
    let taken = client.take_job().await;
    client.append(&taken, 0, b"wrung").await;
    assert_eq!(client.update(&taken, "success", output(b"wrong")).await.status(), 412);
    assert_eq!(client.append(&taken, 0, b"wrong").await.status(), 202);
    assert_eq!(client.update(&taken, "success", output(b"wrong")).await.status(), 200);
    assert_eq!((job.state(), job.log().as_str()), (JobState::Success, "wrong"));
    server.assert_no_violations();
}

#[tokio::test]
async fn chunks_that_break_the_rules_are_violations() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    let path = format!("jobs/{}/trace", taken["id"]);
    let raw = |query: &str, range: &str, kind: Option<&str>| {
        let call = client.call(Method::PATCH, &format!("{path}{query}"));
        let call = call.header("JOB-TOKEN", text(&taken["token"])).header("Content-Range", range).body("log");
        match kind {
            Some(kind) => call.header("Content-Type", kind),
            None => call,
        }
    };
    let big = vec![b'x'; (1 << 20) + 1];
    let good = Some("text/plain");
    let cases = [
        (raw("?debug_trace=false", "bytes 0-2", good), "is not `<start>-<end>`"),
        (raw("?debug_trace=false", "0-3", good), "does not fit a chunk of 3 bytes"),
        (raw("?debug_trace=false", "0-2", None), "content-type is missing"),
        (raw("", "0-2", good), "debug_trace is None"),
        (raw("?debug_trace=false&x=1", "0-2", good), "query parameter \"x\""),
        (client.patch(&taken, 0, b""), "the chunk is empty"),
        (client.patch(&taken, 0, &big), "above 1 MiB"),
    ];
    for (index, (request, expected)) in cases.into_iter().enumerate() {
        assert_eq!(send(request).await.status(), 400, "{expected}");
        let violations = server.violations();
        assert_eq!(violations.len(), index + 1, "{expected}: {violations:?}");
        assert!(violations[index].contains(expected), "{expected}: {violations:?}");
    }
    assert_eq!(job.log(), "");
}

#[tokio::test]
async fn a_log_before_the_acknowledgement_is_a_violation() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    let taken = crate::client::body(client.request_job().await).await;
    assert_eq!(client.append(&taken, 0, b"x").await.status(), 400);
    assert!(server.violations()[0].contains("acknowledged"));
}
