//! Answers: good, refusing and faulty ones.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::faults::{Endpoint, Fault};
use crate::job::JobState;
use crate::state::{Shared, State};

/// An answer that ends the handling of a request early.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Response>);

impl<T: IntoResponse> From<T> for Refusal {
    fn from(answer: T) -> Self {
        Self(Box::new(answer.into_response()))
    }
}

impl Refusal {
    pub(crate) fn into_response(self) -> Response {
        *self.0
    }
}

/// What a handler returns inside; both sides are answers.
pub(crate) type Outcome = Result<Response, Refusal>;

pub(crate) fn finish(outcome: Outcome) -> Response {
    outcome.unwrap_or_else(Refusal::into_response)
}

/// A JSON answer whose Content-Type has no parameters.
pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// `{"message": "..."}`, as a server explains itself.
pub(crate) fn message(status: StatusCode, text: &str) -> Response {
    json_answer(status, &json!({ "message": text }))
}

pub(crate) fn forbidden() -> Response {
    message(StatusCode::FORBIDDEN, "403 Forbidden")
}

/// Records a breach of the protocol.
pub(crate) fn record(state: &mut State, what: &str, problem: &str) {
    tracing::warn!("{what}: {problem}");
    state.violations.push(format!("{what}: {problem}"));
}

/// Records a breach of the protocol and makes the answer to it.
pub(crate) fn violation(state: &mut State, what: &str, problem: &str) -> Response {
    record(state, what, problem);
    message(StatusCode::BAD_REQUEST, &format!("400 Bad request - {problem}"))
}

/// The headers every answer about a job carries.
pub(crate) fn job_headers(response: &mut Response, job_state: JobState, interval: u64) {
    let headers = response.headers_mut();
    headers.insert("job-status", HeaderValue::from_static(job_state.as_str()));
    if interval > 0 {
        headers.insert("x-gitlab-trace-update-interval", HeaderValue::from(interval));
    }
}

/// Names the request in its answer, as the correlation for logs.
pub(crate) fn with_request_id(mut response: Response, id: Option<HeaderValue>) -> Response {
    if let Some(id) = id {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// The answer of a fault that needs no handling of the request.
pub(crate) fn faulty(
    shared: &Arc<Shared>,
    fault: &Fault,
    endpoint: Option<Endpoint>,
    job_id: Option<u64>,
) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    let good = match endpoint {
        Some(
            Endpoint::RequestJob | Endpoint::Register | Endpoint::ResetToken | Endpoint::UploadArtifacts,
        ) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    match fault {
        Fault::Status(code) => {
            let mut response = status_message(*code);
            // 202 is a word of the protocol for these two, so it comes with the protocol's headers.
            let update = matches!(endpoint, Some(Endpoint::UpdateJob | Endpoint::FinalUpdate));
            if update && matches!(code, 202 | 412) {
                shared.read(|state| {
                    if let Some(job) = job_id.and_then(|id| state.jobs.get(&id)) {
                        job_headers(&mut response, job.state, state.update_interval);
                    }
                });
            }
            response
        }
        Fault::RetryAfter(code, seconds) => {
            let mut response = status_message(*code);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            response
        }
        Fault::RateLimitReset(code, time) => {
            let mut response = status_message(*code);
            let text = http_date(SystemTime::now() + *time);
            let value = HeaderValue::from_str(&text).expect("a date is plain ASCII");
            response.headers_mut().insert("ratelimit-resettime", value);
            response
        }
        Fault::Redirect(code, location) => {
            let mut response = status_message(*code);
            let value = HeaderValue::from_str(location).expect("the test gave a good location");
            response.headers_mut().insert(header::LOCATION, value);
            response
        }
        Fault::BadJson => (good, json, "{\"id\": 1, \"token\": \"glcbt-").into_response(),
        Fault::Html => (good, [(header::CONTENT_TYPE, "text/html")], "<html>Log in!</html>").into_response(),
        Fault::HugeBody(size) => {
            const CHUNK: Bytes = Bytes::from_static(&[b'x'; 16384]);
            let quote = || futures::stream::iter([Bytes::from_static(b"\"")]);
            let chunks = futures::stream::repeat(CHUNK).take(size / CHUNK.len());
            let rest = futures::stream::iter([CHUNK.slice(..size % CHUNK.len())]);
            let body =
                quote().chain(chunks).chain(rest).chain(quote()).map(Ok::<_, std::convert::Infallible>);
            (good, json, Body::from_stream(body)).into_response()
        }
        Fault::Drop | Fault::DropAnswer | Fault::ResetMidBody | Fault::Hold(_) | Fault::TruncateTrace(_) => {
            unreachable!("these faults are handled before")
        }
    }
}

fn status_message(code: u16) -> Response {
    let status = StatusCode::from_u16(code).expect("the test gave a good status");
    if matches!(code, 204 | 304) {
        return status.into_response();
    }
    message(status, &format!("{code} injected fault"))
}

/// Reads what nobody wants: a connection closed on unread data is reset, and the client may not see the
/// answer.
pub(crate) async fn drain(body: Body) {
    let mut chunks = body.into_data_stream();
    while let Some(Ok(_)) = chunks.next().await {}
}

/// The date form of HTTP headers.
fn http_date(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).expect("the clock is near the present");
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Sends the head and half of the body, then resets the connection.
pub(crate) async fn reset_mid_body(response: Response, connection: Option<Connection>) -> Response {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let length = body.len();
    let half = body.slice(..length / 2);
    let reset = async move {
        // Two turns of the scheduler let the first half reach the socket.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        if let Some(connection) = connection {
            connection.reset();
        }
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    };
    let stream = futures::stream::iter([Ok(half)]).chain(futures::stream::once(reset));
    let mut response = Response::from_parts(parts, Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}
