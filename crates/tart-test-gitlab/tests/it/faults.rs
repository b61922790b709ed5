//! Every fault does what it says, once, where it was asked for.

use std::time::Duration;

use serde_json::json;
use tart_test_gitlab::{Endpoint, Fault, JobSpec, JobState};

use crate::client::{SOON, body, header, output, server_with};

#[tokio::test]
async fn statuses_come_in_order_and_only_as_often_as_asked() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    server.faults().times(2, Endpoint::RequestJob, Fault::Status(503));
    server.faults().next(Endpoint::RequestJob, Fault::RetryAfter(429, 7));
    server.faults().next(Endpoint::RequestJob, Fault::RateLimitReset(429, Duration::from_secs(3600)));
    assert_eq!(server.faults().pending(), 4);
    assert_eq!(client.request_job().await.status(), 503);
    assert_eq!(client.request_job().await.status(), 503);
    let answer = client.request_job().await;
    assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (429, Some("7")));
    let answer = client.request_job().await;
    let reset = header(&answer, "ratelimit-resettime").expect("a date");
    let at = jiff::fmt::rfc2822::parse(&reset.replace("GMT", "+0000")).expect("an HTTP date").timestamp();
    let ahead = at.as_second() - jiff::Timestamp::now().as_second();
    assert!((3500..=3600).contains(&ahead), "{reset}");
    assert_eq!(server.faults().pending(), 0);
    assert_eq!(client.request_job().await.status(), 201);
}

#[tokio::test]
async fn a_lasting_fault_ends_when_it_is_cleared() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    server.faults().always(Endpoint::RequestJob, Fault::Status(500));
    for _ in 0..3 {
        assert_eq!(client.request_job().await.status(), 500);
    }
    server.faults().clear(Endpoint::RequestJob);
    assert_eq!(client.request_job().await.status(), 201);
}

#[tokio::test]
async fn a_dropped_connection_has_no_effect_but_a_dropped_answer_has() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    server.faults().next(Endpoint::Trace, Fault::Drop);
    client.patch(&taken, 0, b"one").send().await.expect_err("the connection is cut");
    assert_eq!(job.log(), "");
    server.faults().next(Endpoint::Trace, Fault::DropAnswer);
    client.patch(&taken, 0, b"one").send().await.expect_err("the connection is cut");
    assert_eq!(job.log(), "one");
    let statuses: Vec<_> = job.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(200), None, None]);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_reset_in_the_body_loses_half_of_the_answer() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    server.faults().next(Endpoint::RequestJob, Fault::ResetMidBody);
    let answer = client.request_job().await;
    assert_eq!(answer.status(), 201);
    assert!(answer.content_length().is_some_and(|length| length > 1000));
    answer.bytes().await.expect_err("the connection is reset");
    assert!(job.get().assigned_to().is_some());
}

#[tokio::test]
async fn a_gate_holds_a_request_until_it_is_released() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    let gate = server.faults().hold(Endpoint::Trace);
    let sender = client.clone();
    let chunk = taken.clone();
    let sending = tokio::spawn(async move { sender.append(&chunk, 0, b"late").await });
    gate.arrived(1, SOON).await;
    assert_eq!(job.log(), "");
    gate.release();
    assert_eq!(sending.await.expect("no panic").status(), 202);
    assert_eq!(job.log(), "late");
}

#[tokio::test]
async fn a_truncated_log_is_found_by_the_next_chunk() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    client.append(&taken, 0, b"hello").await;
    server.faults().next(Endpoint::Trace, Fault::TruncateTrace(2));
    let answer = client.append(&taken, 5, b"!").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "range")), (416, Some("0-2")));
    assert_eq!(client.append(&taken, 2, b"llo!").await.status(), 202);
    assert_eq!(job.log(), "hello!");
    server.assert_no_violations();
}

#[tokio::test]
async fn a_final_update_can_be_put_off_and_sent_back() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    client.append(&taken, 0, b"log").await;
    server.faults().times(2, Endpoint::FinalUpdate, Fault::Status(202));
    server.faults().next(Endpoint::FinalUpdate, Fault::Status(412));
    assert_eq!(client.update(&taken, "running", output(b"log")).await.status(), 200);
    for _ in 0..2 {
        let answer = client.update(&taken, "success", output(b"log")).await;
        assert_eq!(answer.status(), 202);
        assert_eq!(header(&answer, "x-gitlab-trace-update-interval"), Some("1"));
        assert_eq!(header(&answer, "job-status"), Some("running"));
    }
    assert_eq!(client.update(&taken, "success", output(b"log")).await.status(), 412);
    assert_eq!(client.append(&taken, 0, b"log").await.status(), 202);
    assert_eq!(client.update(&taken, "success", output(b"log")).await.status(), 200);
    assert_eq!((job.state(), job.log().as_str()), (JobState::Success, "log"));
    server.assert_no_violations();
}

#[tokio::test]
async fn faults_of_all_updates_meet_the_final_one_too() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    server.faults().times(2, Endpoint::UpdateJob, Fault::Status(500));
    assert_eq!(client.update(&taken, "running", json!({})).await.status(), 500);
    assert_eq!(client.update(&taken, "success", output(b"")).await.status(), 500);
    assert_eq!(client.update(&taken, "success", output(b"")).await.status(), 200);
}

#[tokio::test]
async fn bodies_can_be_broken_wrong_or_huge() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    for fault in [Fault::BadJson, Fault::Html, Fault::HugeBody(5_000_000)] {
        server.faults().next(Endpoint::RequestJob, fault);
    }
    let answer = client.request_job().await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (201, Some("application/json")));
    answer.json::<serde_json::Value>().await.expect_err("the JSON ends early");
    let answer = client.request_job().await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (201, Some("text/html")));
    let huge = body(client.request_job().await).await;
    assert_eq!(huge.as_str().map(str::len), Some(5_000_000));
    assert!(job.get().assigned_to().is_none());
}

#[tokio::test]
async fn a_redirection_names_its_target() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    let target = "http://127.0.0.1:1/".to_owned();
    server.faults().next(Endpoint::RequestJob, Fault::Redirect(307, target.clone()));
    let answer = client.request_job().await;
    assert_eq!((answer.status().as_u16(), header(&answer, "location")), (307, Some(&*target)));
}

#[tokio::test]
async fn shutdown_waits_for_the_answers_under_way() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    let gate = server.faults().hold(Endpoint::Trace);
    let sender = client.clone();
    let sending = tokio::spawn(async move { sender.append(&taken, 0, b"last words").await });
    gate.arrived(1, SOON).await;
    let release = async {
        // The connections run in this thread too: now each of them has seen that the end is near.
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        gate.release();
        sending.await.expect("no panic")
    };
    let ((), answer) = tokio::join!(server.shutdown(SOON), release);
    assert_eq!(answer.status(), 202);
    let demand = client.json(reqwest::Method::POST, "jobs/request", &client.demand());
    demand.send().await.expect_err("nobody listens");
}
