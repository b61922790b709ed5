//! Upload and download of artifacts.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tart_test_gitlab::{Artifacts, Endpoint, Fault, JobSpec, Options, RunnerOptions, TestGitlab};

use crate::client::{Client, header, http_client, send, server_with, text};

const ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn upload(client: &Client, job: &Value, query: &str, form: Form) -> RequestBuilder {
    client
        .call(Method::POST, &format!("jobs/{}/artifacts?{query}", job["id"]))
        .header("JOB-TOKEN", text(&job["token"]))
        .multipart(form)
}

fn file(name: &str, content: &[u8]) -> Form {
    Form::new().part("file", Part::bytes(content.to_vec()).file_name(name.to_owned()))
}

const ARCHIVE: &str = "artifact_format=zip&artifact_type=archive";

#[tokio::test]
async fn an_upload_is_kept_with_what_was_said_about_it() {
    let spec = JobSpec::script(["true"])
        .artifacts(Artifacts::paths(["out"]).expire_in("1 week"))
        .artifacts(Artifacts::report("dotenv", "gzip", ".env", "env"));
    let (server, client, job) = server_with(spec).await;
    let taken = client.take_job().await;
    let query = format!("{ARCHIVE}&expire_in=1+week");
    let answer = send(upload(&client, &taken, &query, file("artifacts.zip", ZIP))).await;
    assert_eq!(answer.status(), 201);
    // The same upload again, as after a lost answer.
    assert_eq!(send(upload(&client, &taken, &query, file("artifacts.zip", ZIP))).await.status(), 201);
    let other = [ZIP, b"x"].concat();
    assert_eq!(send(upload(&client, &taken, &query, file("artifacts.zip", &other))).await.status(), 400);
    let query = "artifact_format=gzip&artifact_type=dotenv";
    assert_eq!(send(upload(&client, &taken, query, file(".env.gz", b"\x1f\x8b"))).await.status(), 201);
    let artifacts = job.artifacts();
    assert_eq!(artifacts.len(), 2);
    assert_eq!((artifacts[0].kind.as_str(), &*artifacts[0].content), ("archive", ZIP));
    assert_eq!(artifacts[0].expire_in.as_deref(), Some("1 week"));
    server.assert_no_violations();
}

#[tokio::test]
async fn too_much_is_answered_413_and_an_ended_job_403() {
    let server = TestGitlab::start_with(Options::default().max_artifact_bytes(100_000)).await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    let job = server.enqueue(JobSpec::script(["true"]).artifacts(Artifacts::paths(["out"]))).await;
    let taken = client.take_job().await;
    let big = [ZIP, &vec![0; 3_000_000]].concat();
    assert_eq!(send(upload(&client, &taken, ARCHIVE, file("a.zip", &big))).await.status(), 413);
    job.abort();
    let answer = send(upload(&client, &taken, ARCHIVE, file("a.zip", ZIP))).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "job-status")), (403, Some("canceled")));
    server.assert_no_violations();
}

#[tokio::test]
async fn a_fault_of_a_big_upload_is_seen_by_its_client() {
    let spec = JobSpec::script(["true"]).artifacts(Artifacts::paths(["out"]));
    let (server, client, job) = server_with(spec).await;
    let taken = client.take_job().await;
    let big = [ZIP, &vec![0; 20_000_000]].concat();
    server.faults().next(Endpoint::UploadArtifacts, Fault::Status(503));
    assert_eq!(send(upload(&client, &taken, ARCHIVE, file("a.zip", &big))).await.status(), 503);
    assert_eq!(send(upload(&client, &taken, ARCHIVE, file("a.zip", &big))).await.status(), 201);
    assert_eq!(job.artifacts()[0].content.len(), big.len());
    server.assert_no_violations();
}

#[tokio::test]
async fn uploads_that_break_the_rules_are_violations() {
    let spec = JobSpec::script(["true"]).artifacts(Artifacts::paths(["out"]));
    let (server, client, job) = server_with(spec).await;
    let taken = client.take_job().await;
    let report = "artifact_format=gzip&artifact_type=junit";
    let cases = [
        (
            upload(&client, &taken, "", Form::new().text("artifact_type", "archive")),
            "there is no part `file`",
        ),
        (upload(&client, &taken, ARCHIVE, Form::new().text("file", "x")), "has no filename"),
        (upload(&client, &taken, ARCHIVE, file("a.zip", ZIP).text("surprise", "x")), "unknown part"),
        (upload(&client, &taken, ARCHIVE, file("a.tar", ZIP)), "does not end in .zip"),
        (upload(&client, &taken, ARCHIVE, file("a.zip", b"text")), "not of the format zip"),
        (upload(&client, &taken, report, file("j.gz", b"\x1f\x8b")), "no artifacts of the type"),
        (upload(&client, &taken, "artifact_format=raw", file("a.zip", ZIP)), "format raw instead of zip"),
        (upload(&client, &taken, "expire_in=1+day", file("a.zip", ZIP)), "expire_in is"),
        (upload(&client, &taken, "name=x", file("a.zip", ZIP)), "query parameter \"name\""),
    ];
    for (index, (request, expected)) in cases.into_iter().enumerate() {
        assert_eq!(send(request).await.status(), 400, "{expected}");
        let violations = server.violations();
        assert_eq!(violations.len(), index + 1, "{expected}: {violations:?}");
        assert!(violations[index].contains(expected), "{expected}: {violations:?}");
    }
    assert!(job.artifacts().is_empty());
}

fn download(client: &Client, job: &Value, query: &str) -> RequestBuilder {
    let dependency = &job["dependencies"][0];
    client
        .call(Method::GET, &format!("jobs/{}/artifacts{query}", dependency["id"]))
        .header("JOB-TOKEN", text(&dependency["token"]))
}

#[tokio::test]
async fn a_dependency_is_downloaded_by_the_running_job() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    let build = server.add_finished_job(JobSpec::default().name("build"), "artifacts.zip", ZIP).await;
    let job = server.enqueue(JobSpec::script(["true"]).dependency(&build)).await;
    let taken = client.take_job().await;
    let expected = serde_json::json!({ "filename": "artifacts.zip", "size": ZIP.len() });
    assert_eq!(taken["dependencies"][0]["artifacts_file"], expected);
    let answer = send(download(&client, &taken, "?direct_download=true")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().await.expect("a body"), ZIP);
    server.assert_no_violations();

    assert_eq!(send(download(&client, &taken, "?direct_download=false")).await.status(), 400);
    assert_eq!(server.violations().len(), 1);
    job.abort();
    assert_eq!(send(download(&client, &taken, "")).await.status(), 403);
}

#[tokio::test]
async fn a_direct_download_goes_to_another_origin_without_the_token() {
    let server = TestGitlab::start_with(Options::default().direct_download()).await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    let build = server.add_finished_job(JobSpec::default().name("build"), "artifacts.zip", ZIP).await;
    server.enqueue(JobSpec::script(["true"]).dependency(&build)).await;
    let taken = client.take_job().await;
    let answer = send(download(&client, &taken, "?direct_download=true")).await;
    assert_eq!(answer.status(), 302);
    let location = header(&answer, "location").expect("a location").to_owned();
    assert!(location.starts_with(server.storage_url()));
    let answer = http_client().get(&location).send().await.expect("an answer");
    assert_eq!(answer.bytes().await.expect("a body"), ZIP);
    assert_eq!(send(download(&client, &taken, "")).await.status(), 200);
    server.assert_no_violations();

    let leak = http_client().get(&location).header("JOB-TOKEN", "x").send().await.expect("an answer");
    assert_eq!(leak.status(), 400);
    assert!(server.violations()[0].contains("another origin"));
    let unknown = format!("{}/-/storage/unknown", server.storage_url());
    assert_eq!(http_client().get(&unknown).send().await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn artifacts_that_are_not_there_are_not_found() {
    let (server, client, _job) = server_with(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    let own = client
        .call(Method::GET, &format!("jobs/{}/artifacts", taken["id"]))
        .header("JOB-TOKEN", text(&taken["token"]));
    assert_eq!(send(own).await.status(), 404);
    server.assert_no_violations();
}
