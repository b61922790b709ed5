//! The queue and the state machine of a job.

use std::time::Duration;

use serde_json::{Value, json};
use tart_test_gitlab::{Artifacts, JobSpec, JobState, Options, RunnerOptions, TestGitlab, Variable};

use crate::client::{
    Client, SOON, SYSTEM_ID, body, header, info, info_without, output, send, server_with, text,
};

const LAST_UPDATE: &str = "x-gitlab-last-update";

#[tokio::test]
async fn a_job_runs_from_the_queue_to_success() {
    let (server, client, job) = server_with(JobSpec::script(["echo hi"])).await;
    assert_eq!(job.state(), JobState::Pending);
    let taken = client.take_job().await;
    assert_eq!(job.state(), JobState::Running);
    assert_eq!(job.get().assigned_to().map(|(_, manager)| manager.to_owned()).as_deref(), Some(SYSTEM_ID));
    assert_eq!(client.append(&taken, 0, b"hi\n").await.status(), 202);
    job.wait_log_contains("hi", SOON).await;
    let answer = client.update(&taken, "success", output(b"hi\n")).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (200, Some("success")));
    assert_eq!(job.wait_finished(SOON).await, JobState::Success);
    assert_eq!(job.log(), "hi\n");
    let states: Vec<String> = job.updates().into_iter().map(|update| update.state).collect();
    assert_eq!(states, ["running", "success"]);
    assert_eq!(job.requests().len(), 3);
    server.assert_no_violations();
}

#[tokio::test]
async fn the_payload_has_what_a_real_server_sends() {
    let spec = JobSpec::script(["make"])
        .after_script(["make clean"])
        .variable(Variable::masked("SECRET", "s3cr3t-value"))
        .variable(Variable::new("CONFIG", "a\nb").file().raw())
        .artifacts(Artifacts::paths(["out/"]).expire_in("1 week"))
        .image("alpine:3")
        .hook("pre_get_sources_script", ["true"])
        .field("features", json!({ "trace_sections": false }));
    let (server, client, job) = server_with(spec).await;
    let taken = client.take_job().await;
    assert_eq!(taken["id"], job.id());
    assert_eq!(taken["steps"][0]["script"], json!(["make"]));
    assert_eq!(taken["steps"][1]["name"], "after_script");
    assert_eq!(taken["image"]["name"], "alpine:3");
    assert_eq!(taken["artifacts"][0]["expire_in"], "1 week");
    assert_eq!(taken["hooks"][0]["name"], "pre_get_sources_script");
    assert_eq!(taken["features"]["trace_sections"], false);
    assert!(taken["features"]["failure_reasons"].is_array());
    assert_eq!(taken["job_info"]["project_full_path"], "group/project");
    assert_eq!(taken["git_info"]["sha"], job.sha());
    let pipeline = format!("refs/pipelines/{}", job.pipeline_id());
    let expected = [format!("+{pipeline}:{pipeline}"), "+refs/heads/main:refs/remotes/origin/main".into()];
    assert_eq!(taken["git_info"]["refspecs"], json!(expected));

    let find = |key: &str| -> Value {
        let list = taken["variables"].as_array().expect("a list");
        list.iter().rfind(|variable| variable["key"] == key).cloned().unwrap_or_else(|| panic!("no {key}"))
    };
    assert_eq!(find("CI")["value"], "true");
    assert_eq!(find("CI_SERVER_URL")["value"], server.url());
    assert_eq!(find("CI_JOB_TOKEN")["masked"], true);
    assert_eq!(find("CI_COMMIT_BRANCH")["value"], "main");
    assert_eq!(find("CI_COMMIT_SHA")["value"], job.sha());
    let config = json!({
        "key": "CONFIG", "value": "a\nb", "public": true, "masked": false, "file": true, "raw": true,
    });
    assert_eq!(find("CONFIG"), config);
    assert_eq!(find("SECRET")["public"], false);
}

#[tokio::test]
async fn a_current_last_update_holds_the_poll_until_a_job_comes() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    let answer = client.request_job().await;
    assert_eq!(answer.status(), 204);
    let mut demand = client.demand();
    demand["last_update"] = json!(header(&answer, LAST_UPDATE).expect("a value"));

    let poller = client.clone();
    let held = demand.clone();
    let poll = tokio::spawn(async move { poller.request_job_with(held).await });
    let arrived = |state: &tart_test_gitlab::State| state.requests().len() == 2;
    server.wait_for("the poll", SOON, arrived).await;
    assert!(!poll.is_finished());
    server.enqueue(JobSpec::script(["true"])).await;
    let answer = poll.await.expect("no panic");
    assert_eq!(answer.status(), 204);
    assert_eq!(header(&answer, LAST_UPDATE), None);
    assert_eq!(client.request_job_with(demand).await.status(), 201);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_server_without_long_polling_answers_a_current_last_update_at_once() {
    let server = TestGitlab::start_with(Options::default().long_poll(Duration::ZERO)).await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    let mut demand = client.demand();
    demand["last_update"] = json!(header(&client.request_job().await, LAST_UPDATE).expect("a value"));
    let answer = client.request_job_with(demand.clone()).await;
    assert_eq!(answer.status(), 204);
    assert_eq!(header(&answer, LAST_UPDATE), demand["last_update"].as_str());
}

#[tokio::test]
async fn wrong_paused_orphaned_and_chatty_runners_get_no_job() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let runner = server.runner_by_token(&client.token).expect("it is there");
    let mut wrong = client.demand();
    wrong["token"] = json!("glrt-wrong");
    assert_eq!(client.request_job_with(wrong).await.status(), 403);
    runner.pause();
    let answer = client.request_job().await;
    assert_eq!(answer.status(), 204);
    assert!(header(&answer, LAST_UPDATE).is_some());
    runner.resume();
    let mut chatty = client.demand();
    chatty["session"] =
        json!({ "url": "https://[::1]/", "authorization": "x", "certificate": "y".repeat(32768) });
    assert_eq!(client.request_job_with(chatty).await.status(), 413);
    runner.orphan();
    assert_eq!(client.request_job().await.status(), 422);
    assert_eq!(job.state(), JobState::Pending);
    server.assert_no_violations();
}

#[tokio::test]
async fn jobs_go_to_runners_with_their_tags_and_after_their_dependencies() {
    let server = TestGitlab::start().await;
    let plain = Client::new(&server, &server.add_runner(RunnerOptions::default()));
    let tagged = RunnerOptions::default().tags(["kvm", "big"]).run_untagged(false);
    let tagged = Client::new(&server, &server.add_runner(tagged));
    let first = server.enqueue(JobSpec::script(["true"]).name("first").tags(["kvm"])).await;
    let second = server.enqueue(JobSpec::script(["true"]).name("second").dependency(&first)).await;
    assert_eq!(plain.request_job().await.status(), 204);
    let taken = tagged.take_job().await;
    assert_eq!(taken["id"], first.id());
    assert_eq!(plain.request_job().await.status(), 204);
    assert_eq!(tagged.update(&taken, "success", output(b"")).await.status(), 200);
    assert_eq!(tagged.request_job().await.status(), 204);
    let taken = plain.take_job().await;
    assert_eq!(taken["id"], second.id());
    assert_eq!(taken["dependencies"][0]["artifacts_file"], Value::Null);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_job_that_needs_a_missing_feature_is_failed_instead_of_given() {
    let spec = JobSpec::script(["true"]).artifacts(Artifacts::report("junit", "gzip", "junit.xml", "j.xml"));
    let (_server, client, job) = server_with(spec).await;
    let mut demand = client.demand();
    demand["info"] = info_without("upload_multiple_artifacts");
    assert_eq!(client.request_job_with(demand).await.status(), 204);
    assert_eq!(job.state(), JobState::Failed);
    assert_eq!(job.failure_reason().as_deref(), Some("runner_unsupported"));
}

#[tokio::test]
async fn a_job_waits_for_its_acknowledgement_and_goes_back_without() {
    let server = TestGitlab::start_with(Options::default().ack_window(Duration::ZERO)).await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    let job = server.enqueue(JobSpec::script(["true"])).await;
    let first = client.request_job().await;
    assert_eq!(first.status(), 201);
    assert_eq!(job.state(), JobState::Pending);
    let again = client.request_job().await;
    assert_eq!(again.status(), 201);
    let taken = body(again).await;
    assert_eq!(client.update(&taken, "pending", json!({})).await.status(), 200);
    assert_eq!(client.update(&taken, "running", json!({})).await.status(), 200);
    assert_eq!(client.update(&taken, "pending", json!({})).await.status(), 409);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_runner_without_two_phases_has_a_running_job_at_once() {
    let (_server, client, job) = server_with(JobSpec::script(["true"])).await;
    let mut demand = client.demand();
    demand["info"] = info_without("two_phase_job_commit");
    assert_eq!(client.request_job_with(demand).await.status(), 201);
    job.wait_state(JobState::Running, SOON).await;
}

#[tokio::test]
async fn a_graceful_cancel_lets_the_runner_finish() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    job.cancel();
    assert_eq!(job.state(), JobState::Canceling);
    let answer = client.append(&taken, 0, b"x").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (202, Some("canceling")));
    let answer = client.update(&taken, "running", output(b"x")).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (200, Some("canceling")));
    let answer = client.update(&taken, "failed", output(b"x")).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (200, Some("canceled")));
    assert_eq!(job.wait_finished(SOON).await, JobState::Canceled);
    server.assert_no_violations();
}

#[tokio::test]
async fn an_abort_and_a_cancel_without_grace_end_the_job_at_once() {
    for graceless in [false, true] {
        let (server, client, job) = server_with(JobSpec::script(["true"])).await;
        let mut demand = client.demand();
        if graceless {
            demand["info"] = info_without("cancel_gracefully");
        }
        let taken = body(client.request_job_with(demand).await).await;
        assert_eq!(client.update(&taken, "running", json!({})).await.status(), 200);
        if graceless {
            job.cancel();
        } else {
            job.abort();
        }
        assert_eq!(job.state(), JobState::Canceled);
        for answer in [
            client.append(&taken, 0, b"x").await,
            client.update(&taken, "running", json!({})).await,
            client.update(&taken, "failed", output(b"")).await,
        ] {
            assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (403, Some("canceled")));
        }
        server.assert_no_violations();
    }
}

#[tokio::test]
async fn a_failed_job_keeps_its_reason_and_exit_code() {
    let (server, client, job) = server_with(JobSpec::script(["exit 3"])).await;
    let taken = client.take_job().await;
    let end = json!({
        "token": taken["token"], "info": info(), "state": "failed", "output": output(b""),
        "failure_reason": "script_failure", "exit_code": 3,
    });
    let answer = send(client.put(&taken, &end)).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (200, Some("failed")));
    assert_eq!(job.exit_code(), Some(3));
    assert_eq!(job.failure_reason().as_deref(), Some("script_failure"));
    // A repeated update finds a job that has ended.
    let answer = send(client.put(&taken, &end)).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (403, Some("failed")));
    server.assert_no_violations();
}

#[tokio::test]
async fn wrong_job_tokens_are_forbidden_and_unknown_jobs_too() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    let mut taken = client.take_job().await;
    let token = taken["token"].clone();
    taken["token"] = json!("glcbt-64_wrong");
    let answer = client.update(&taken, "running", json!({})).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (403, None));
    taken["token"] = token;
    taken["id"] = json!(9999);
    assert_eq!(client.update(&taken, "running", json!({})).await.status(), 403);
    server.assert_no_violations();
}

#[tokio::test]
async fn updates_that_break_the_rules_are_violations() {
    let (server, client, job) =
        server_with(JobSpec::script(["true"]).failure_reasons(["script_failure"])).await;
    let taken = client.take_job().await;
    assert_eq!(client.append(&taken, 0, b"log").await.status(), 202);
    let update = |changes: Value| {
        let mut body = json!({
            "token": taken["token"], "info": info(), "state": "failed",
            "failure_reason": "script_failure", "output": output(b"log"),
        });
        let body_fields = body.as_object_mut().expect("an object");
        body_fields.extend(changes.as_object().expect("an object").clone());
        body_fields.retain(|_, value| !value.is_null());
        client.put(&taken, &body)
    };
    let cases = [
        (update(json!({ "state": "canceled" })), "state \"canceled\" is not known"),
        (update(json!({ "failure_reason": null })), "failure_reason belongs to the state failed"),
        (update(json!({ "state": "success" })), "failure_reason belongs to the state failed"),
        (update(json!({ "failure_reason": "job_canceled" })), "was not offered"),
        (update(json!({ "exit_code": 1_i64 << 40 })), "more than 32 bits"),
        (update(json!({ "exit_code": 0 })), "exit_code 0 is not sent"),
        (update(json!({ "output": null })), "body.output is missing"),
        (update(json!({ "output": output(b"other") })), "but the stored log has"),
        (update(json!({ "output": {} })), "but the stored log has"),
        (update(json!({ "output": { "checksum": "crc32:ABCDEF01", "bytesize": 3 } })), "lower-case"),
        (update(json!({ "output": { "bytesize": 3 } })), "only one of"),
        (update(json!({ "checksum": "crc32:00000000" })), "not the copy"),
        (update(json!({ "token": "other" })), "JOB-TOKEN is not the token of the body"),
        (
            update(json!({ "state": "running", "failure_reason": null, "output": output(b"lo") })),
            "3 bytes were sent already",
        ),
    ];
    for (index, (request, expected)) in cases.into_iter().enumerate() {
        assert_eq!(send(request).await.status(), 400, "{expected}");
        let violations = server.violations();
        assert_eq!(violations.len(), index + 1, "{expected}: {violations:?}");
        assert!(violations[index].contains(expected), "{expected}: {violations:?}");
    }
    assert_eq!(job.state(), JobState::Running);
}

#[tokio::test]
async fn a_log_that_shows_a_secret_or_is_not_text_is_a_violation() {
    let secret = Variable::masked("PASSWORD", "hunter2hunter2");
    let (server, client, job) = server_with(JobSpec::script(["true"]).variable(secret)).await;
    let taken = client.take_job().await;
    let log = b"it is hunter2hunter2\xff\n";
    assert_eq!(client.append(&taken, 0, log).await.status(), 202);
    assert_eq!(client.update(&taken, "success", output(log)).await.status(), 200);
    assert_eq!(job.state(), JobState::Success);
    let violations = server.violations().join("\n");
    assert!(violations.contains("masked variable PASSWORD"), "{violations}");
    assert!(violations.contains("not UTF-8"), "{violations}");
}

#[tokio::test]
#[should_panic(expected = "--- log\nall there was\n--- end of log")]
async fn a_wait_that_fails_shows_the_log() {
    let (_server, client, job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    client.append(&taken, 0, b"all there was").await;
    job.wait_finished(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn the_interactive_session_is_kept() {
    let (server, client, job) = server_with(JobSpec::script(["true"])).await;
    let mut demand = client.demand();
    demand["session"] = json!({ "url": "https://[::1]:1/s", "certificate": "PEM", "authorization": "key" });
    assert_eq!(client.request_job_with(demand).await.status(), 201);
    let session = job.session().expect("a session");
    assert_eq!((session.url.as_str(), session.authorization.as_str()), ("https://[::1]:1/s", "key"));
    server.assert_no_violations();
}

#[tokio::test]
async fn a_job_with_run_has_no_steps() {
    let spec = JobSpec::script(["true"]).field("run", json!("[]"));
    let (_server, client, _job) = server_with(spec).await;
    let taken = client.take_job().await;
    assert_eq!((&taken["run"], taken.get("steps")), (&json!("[]"), None));
}

#[tokio::test]
async fn jobs_see_the_external_host_and_clients_here_the_local_one() {
    let server = TestGitlab::start_with(Options::default().external_host("10.0.2.2")).await;
    let runner = server.add_runner(RunnerOptions::default());
    server.enqueue(JobSpec::script(["true"])).await;
    let taken = Client::at(server.local_url(), &runner.token()).take_job().await;
    assert!(server.url().starts_with("http://10.0.2.2:"));
    assert!(text(&taken["git_info"]["repo_url"]).contains("@10.0.2.2:"));
}

#[tokio::test]
async fn a_job_from_json_replaces_fields_and_adds_variables() {
    let spec = JobSpec::from_json(json!({
        "name": "custom",
        "steps": [{ "name": "script", "script": ["id"] }],
        "runner_info": { "timeout": 60 },
        "variables": [{ "key": "A", "value": "1", "masked": true }],
    }));
    let (_server, client, job) = server_with(spec.expect("a good job")).await;
    assert_eq!(job.get().name(), "custom");
    let taken = client.take_job().await;
    assert_eq!(taken["steps"], json!([{ "name": "script", "script": ["id"] }]));
    assert_eq!(taken["runner_info"]["timeout"], 60);
    let last = taken["variables"].as_array().and_then(|list| list.last()).expect("variables");
    assert_eq!(text(&last["key"]), "A");
    JobSpec::from_json(json!([])).expect_err("not an object");
    JobSpec::from_json(json!({ "variables": [{}] })).expect_err("no key");
    let error = JobSpec::from_json(json!({ "step": [] })).expect_err("a typing error");
    assert!(error.starts_with("`step` is not `name`"), "{error}");
}
