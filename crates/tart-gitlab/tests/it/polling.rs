use std::time::Duration;

use tart_gitlab::{ApiError, Poll, RequestOutcome, Token};
use tart_test_gitlab::{Endpoint, Fault, JobSpec, Options, RunnerOptions, TestGitlab};

use crate::support::{LIMIT, client, poll, take_job};

#[tokio::test]
async fn a_job_is_taken_with_what_it_needs_later() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    let queued = server.enqueue(JobSpec::script(["true"])).await;
    let job = take_job(&client, &runner.token()).await;
    assert_eq!(u64::try_from(job.payload.id), Ok(queued.id()));
    assert_eq!(job.payload.token, queued.token());
    assert_eq!(job.correlation_id.len(), 32);
    assert_eq!(job.tls_certificates, None, "there is no TLS");
    server.assert_no_violations();
}

#[tokio::test]
async fn the_state_of_the_queue_is_given_back_so_that_the_server_can_hold_the_poll() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    assert!(matches!(poll(&client, &runner.token()).await.outcome, RequestOutcome::NoJob));
    let held = tokio::spawn({
        let (client, token) = (client.clone(), runner.token());
        async move { poll(&client, &token).await }
    });
    let polls = |state: &tart_test_gitlab::State| state.requests().len() == 2;
    server.wait_for("the second poll", LIMIT, polls).await;
    assert!(server.requests()[1].json().expect("JSON")["last_update"].is_string());
    server.enqueue(JobSpec::script(["true"])).await;
    assert!(matches!(held.await.expect("no panic").outcome, RequestOutcome::NoJob));
    take_job(&client, &runner.token()).await;
    server.assert_no_violations();
}

#[tokio::test]
async fn every_answer_has_its_meaning_for_health_and_concurrency() {
    let server = TestGitlab::start_with(Options::default().long_poll(Duration::ZERO)).await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    for (fault, healthy, next) in [
        (Fault::Status(204), true, Poll::Nothing),
        (Fault::Status(403), false, Poll::Nothing),
        (Fault::Status(409), true, Poll::Nothing),
        (Fault::Status(413), true, Poll::Nothing),
        (Fault::Status(422), true, Poll::Nothing),
        (Fault::Status(429), true, Poll::Overload),
        (Fault::Status(503), true, Poll::Overload),
        (Fault::Drop, true, Poll::Nothing),
        (Fault::DropAnswer, true, Poll::Nothing),
        (Fault::ResetMidBody, true, Poll::Nothing),
        (Fault::Html, true, Poll::Nothing),
        (Fault::BadJson, true, Poll::Nothing),
        (Fault::HugeBody(65 << 20), true, Poll::Nothing),
    ] {
        server.faults().always(Endpoint::RequestJob, fault.clone());
        let answer = poll(&client, &runner.token()).await;
        assert_eq!((answer.is_healthy(), answer.poll()), (healthy, next), "{fault:?}: {answer:?}");
        assert!(!matches!(answer.outcome, RequestOutcome::Job(_)), "{fault:?}");
    }
    server.assert_no_violations();
}

#[tokio::test]
async fn five_attempts_wait_as_long_as_the_server_says() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, clock) = client(server.url());
    let faults = server.faults();
    faults.next(Endpoint::RequestJob, Fault::RetryAfter(429, 7));
    faults.next(Endpoint::RequestJob, Fault::RateLimitReset(429, Duration::from_secs(100)));
    faults.times(5, Endpoint::RequestJob, Fault::Status(502));
    let answer = poll(&client, &runner.token()).await;
    assert!(matches!(answer.outcome, RequestOutcome::Failed(ApiError::Status { status: 502, .. })));
    let waits = clock.waits();
    assert_eq!(waits[0], Duration::from_secs(7));
    assert!((90..=100).contains(&waits[1].as_secs()), "{waits:?}");
    assert_eq!(waits[2..], [Duration::from_millis(400), Duration::from_millis(800)]);
    assert_eq!(server.requests().len(), 5);

    server.enqueue(JobSpec::script(["true"])).await;
    let answer = poll(&client, &runner.token()).await;
    assert!(
        matches!(answer.outcome, RequestOutcome::Job(_)) && answer.poll() == Poll::Overload,
        "{answer:?}"
    );
    server.assert_no_violations();
}

#[tokio::test]
async fn a_poll_is_cancelled_by_dropping_it() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    let gate = server.faults().hold(Endpoint::RequestJob);
    let (token, held) = (runner.token(), gate.arrived(1, LIMIT));
    tokio::select! {
        answer = poll(&client, &token) => panic!("{answer:?}"),
        () = held => {}
    }
    gate.release();
    assert!(matches!(poll(&client, &token).await.outcome, RequestOutcome::NoJob));
}

#[tokio::test]
async fn no_token_shows_in_debug_output() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    server.enqueue(JobSpec::script(["true"])).await;
    let job = take_job(&client, &runner.token()).await;
    let handle = crate::support::handle(&client, &job);
    let text = format!("{client:?} {:?} {job:?} {handle:?}", Token::new(runner.token()));
    assert!(!text.contains(&runner.token()) && !text.contains(&job.payload.token), "{text}");
}
