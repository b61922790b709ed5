//! HTTPS.

use reqwest::{Certificate, Client, Identity};
use tart_test_gitlab::{Endpoint, Fault, JobSpec, JobState, Options, RunnerOptions, TestGitlab};

use crate::client::output;

async fn get(client: reqwest::ClientBuilder, server: &TestGitlab) -> reqwest::Result<u16> {
    let client: Client = client.build().expect("a client");
    let answer = client.get(format!("{}/nothing", server.url())).send().await?;
    Ok(answer.status().as_u16())
}

fn trusting(server: &TestGitlab) -> reqwest::ClientBuilder {
    let ca = server.ca_pem().expect("the server has TLS");
    let ca = Certificate::from_pem(ca.as_bytes()).expect("a certificate");
    Client::builder().tls_certs_only([ca])
}

#[tokio::test]
async fn only_a_client_that_knows_the_authority_connects() {
    let server = TestGitlab::start_with(Options::default().tls()).await;
    assert!(server.url().starts_with("https://127.0.0.1:"));
    assert_eq!(get(trusting(&server), &server).await.expect("it is trusted"), 404);
    get(Client::builder(), &server).await.expect_err("the authority is unknown");
}

#[tokio::test]
async fn a_job_runs_over_http_2() {
    let server = TestGitlab::start_with(Options::default().tls()).await;
    let runner = server.add_runner(RunnerOptions::default());
    let http = trusting(&server).build().expect("a client");
    let client = crate::client::Client::new(&server, &runner).with_http(http);
    let job = server.enqueue(JobSpec::script(["true"])).await;
    let taken = client.take_job().await;
    let answer = client.append(&taken, 0, b"log").await;
    assert_eq!((answer.status().as_u16(), answer.version()), (202, reqwest::Version::HTTP_2));
    assert_eq!(client.update(&taken, "success", output(b"log")).await.status(), 200);
    assert_eq!(job.state(), JobState::Success);
    server.faults().next(Endpoint::RequestJob, Fault::Drop);
    let demand = client.json(reqwest::Method::POST, "jobs/request", &client.demand());
    demand.send().await.expect_err("the connection is cut");
    server.assert_no_violations();
}

#[tokio::test]
async fn a_client_certificate_can_be_required() {
    let server = TestGitlab::start_with(Options::default().require_client_certificate()).await;
    get(trusting(&server), &server).await.expect_err("there is no client certificate");
    let identity = server.client_identity().expect("the server has TLS");
    let pem = format!("{}{}", identity.key_pem, identity.certificate_pem);
    let identity = Identity::from_pem(pem.as_bytes()).expect("an identity");
    let client = trusting(&server).identity(identity);
    assert_eq!(get(client, &server).await.expect("it is known"), 404);
}
