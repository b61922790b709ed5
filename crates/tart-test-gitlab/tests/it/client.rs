//! A client that does everything right, unless a test changes what it sends.

use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Map, Value, json};
use tart_test_gitlab::{FEATURES, JobHandle, JobSpec, RunnerHandle, RunnerOptions, TestGitlab};

/// The deadline of every wait in these tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const SYSTEM_ID: &str = "s_0123456789ab";

/// A runner with its token.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    pub(crate) token: String,
}

/// `info` with every feature.
pub(crate) fn info() -> Value {
    let features: Map<String, Value> = FEATURES.iter().map(|name| ((*name).into(), json!(true))).collect();
    json!({
        "name": "tart",
        "version": "0.1.0",
        "revision": "abcdef01",
        "platform": "linux",
        "architecture": "amd64",
        "executor": "microvm",
        "shell": "bash",
        "features": features,
        "config": { "gpus": "" },
    })
}

/// `info` without one feature.
pub(crate) fn info_without(feature: &str) -> Value {
    let mut info = info();
    info["features"][feature] = json!(false);
    info
}

/// The `output` of an update about this log.
pub(crate) fn output(log: &[u8]) -> Value {
    json!({ "checksum": format!("crc32:{:08x}", crc32fast::hash(log)), "bytesize": log.len() })
}

impl Client {
    pub(crate) fn new(server: &TestGitlab, runner: &RunnerHandle) -> Self {
        Self::at(server.url(), &runner.token())
    }

    pub(crate) fn at(url: &str, token: &str) -> Self {
        Self { http: http_client(), url: url.into(), token: token.into() }
    }

    pub(crate) fn with_http(self, http: reqwest::Client) -> Self {
        Self { http, ..self }
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/api/v4/{path}", self.url))
            .header("X-Request-Id", "0123456789ab4def8123456789abcdef")
            .header("User-Agent", "tart 0.1.0 (main; rust1.95; linux/amd64)")
    }

    pub(crate) fn json(&self, method: Method, path: &str, body: &Value) -> RequestBuilder {
        self.call(method, path)
            .header("RUNNER-TOKEN", body["token"].as_str().unwrap_or_default())
            .header("Accept", "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
    }

    pub(crate) fn demand(&self) -> Value {
        json!({ "token": self.token, "system_id": SYSTEM_ID, "info": info() })
    }

    pub(crate) async fn request_job(&self) -> Response {
        self.request_job_with(self.demand()).await
    }

    pub(crate) async fn request_job_with(&self, body: Value) -> Response {
        send(self.json(Method::POST, "jobs/request", &body)).await
    }

    /// Takes the next job and acknowledges it.
    pub(crate) async fn take_job(&self) -> Value {
        let response = self.request_job().await;
        assert_eq!(response.status(), 201);
        let job: Value = body(response).await;
        assert_eq!(self.update(&job, "running", json!({})).await.status(), 200);
        job
    }

    pub(crate) fn put(&self, job: &Value, body: &Value) -> RequestBuilder {
        self.call(Method::PUT, &format!("jobs/{}", job["id"]))
            .header("JOB-TOKEN", text(&job["token"]))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
    }

    /// Updates the job; a failure gets a reason.
    pub(crate) async fn update(&self, job: &Value, state: &str, output: Value) -> Response {
        let mut body = json!({ "token": job["token"], "info": info(), "state": state, "output": output });
        if state == "failed" {
            body["failure_reason"] = json!("script_failure");
        }
        send(self.put(job, &body)).await
    }

    pub(crate) fn patch(&self, job: &Value, start: usize, chunk: &[u8]) -> RequestBuilder {
        let end = (start + chunk.len()).saturating_sub(1);
        self.call(Method::PATCH, &format!("jobs/{}/trace?debug_trace=false", job["id"]))
            .header("JOB-TOKEN", text(&job["token"]))
            .header(CONTENT_TYPE, "text/plain")
            .header(CONTENT_RANGE, format!("{start}-{end}"))
            .body(chunk.to_vec())
    }

    pub(crate) async fn append(&self, job: &Value, start: usize, chunk: &[u8]) -> Response {
        send(self.patch(job, start, chunk)).await
    }
}

/// A client that keeps no connections: what one test cuts must not surprise the next call.
pub(crate) fn http_client() -> reqwest::Client {
    let redirect = reqwest::redirect::Policy::none();
    reqwest::Client::builder().pool_max_idle_per_host(0).redirect(redirect).build().expect("a client")
}

pub(crate) async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

pub(crate) async fn body(response: Response) -> Value {
    response.json().await.expect("JSON")
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

pub(crate) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

/// A server with one runner and one job that is not taken yet.
pub(crate) async fn server_with(spec: JobSpec) -> (TestGitlab, Client, JobHandle) {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    let job = server.enqueue(spec).await;
    (server, client, job)
}
