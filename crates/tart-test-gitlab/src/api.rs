//! The wire: routes, the record of requests and the faults in front of every handler.

pub(crate) mod answer;
mod artifacts;
mod call;
mod job_request;
mod runners;
mod trace;
mod update;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{any, delete, post, put};
use bytes::Bytes;
use serde_json::Value;

use self::answer::message;
use crate::connection::Connection;
use crate::faults::{Endpoint, Fault};
use crate::state::Shared;
use crate::{git, history};

/// The longest body that is read as a whole; more than any JSON or log chunk of the protocol.
const MAX_BUFFERED_BYTES: usize = 8 << 20;

/// Every route of the server.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/runners", post(runners::register).delete(runners::delete))
        .route("/runners/verify", post(runners::verify))
        .route("/runners/managers", delete(runners::delete_manager))
        .route("/runners/reset_authentication_token", post(runners::reset_own_token))
        .route("/runners/{id}/reset_authentication_token", post(runners::reset_token))
        .route("/jobs/request", post(job_request::request))
        .route("/jobs/{id}", put(update::update))
        .route("/jobs/{id}/trace", axum::routing::patch(trace::append))
        .route("/jobs/{id}/artifacts", post(artifacts::upload).get(artifacts::download));
    Router::new()
        .nest("/api/v4", api)
        .route("/-/storage/{name}", axum::routing::get(artifacts::stored))
        .route("/{*path}", any(git::http::serve))
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), observe))
        .with_state(shared)
}

/// The endpoint of a request and the job it names.
fn classify(method: &Method, path: &str) -> (Option<Endpoint>, Option<u64>) {
    let Some(api) = path.strip_prefix("/api/v4/") else {
        let endpoint = if path.starts_with("/-/storage/") {
            Some(Endpoint::Storage)
        } else if path.contains(".git/info/lfs/") || path.contains(".git/gitlab-lfs/") {
            Some(Endpoint::Lfs)
        } else {
            path.contains(".git/").then_some(Endpoint::Git)
        };
        return (endpoint, None);
    };
    let words: Vec<&str> = api.split('/').collect();
    let endpoint = match (method.as_str(), words.as_slice()) {
        ("POST", ["runners"]) => Endpoint::Register,
        ("POST", ["runners", "verify"]) => Endpoint::Verify,
        ("DELETE", ["runners"]) => Endpoint::DeleteRunner,
        ("DELETE", ["runners", "managers"]) => Endpoint::DeleteManager,
        ("POST", ["runners", .., "reset_authentication_token"]) => Endpoint::ResetToken,
        ("POST", ["jobs", "request"]) => Endpoint::RequestJob,
        ("PUT", ["jobs", _]) => Endpoint::UpdateJob,
        ("PATCH", ["jobs", _, "trace"]) => Endpoint::Trace,
        ("POST", ["jobs", _, "artifacts"]) => Endpoint::UploadArtifacts,
        ("GET", ["jobs", _, "artifacts"]) => Endpoint::DownloadArtifacts,
        _ => return (None, None),
    };
    let job_id = match words.as_slice() {
        ["jobs", id, ..] => id.parse().ok(),
        _ => None,
    };
    (Some(endpoint), job_id)
}

/// Whether an update is the last one of its job.
fn is_final(body: &[u8]) -> bool {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    body.is_some_and(|body| body["state"] == "success" || body["state"] == "failed")
}

/// Records the request, lets a fault happen if one is due, and records the status.
async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let (mut endpoint, job_id) = classify(&parts.method, parts.uri.path());
    let streamed = matches!(endpoint, Some(Endpoint::UploadArtifacts | Endpoint::Git | Endpoint::Lfs));
    let (body, recorded) = if streamed {
        (body, Bytes::new())
    } else {
        let Ok(bytes) = to_bytes(body, MAX_BUFFERED_BYTES).await else {
            return message(StatusCode::PAYLOAD_TOO_LARGE, "413 the body is too large or was cut");
        };
        (Body::from(bytes.clone()), bytes)
    };
    if endpoint == Some(Endpoint::UpdateJob) && is_final(&recorded) {
        endpoint = Some(Endpoint::FinalUpdate);
    }
    let index = shared.update(|state| {
        state.requests.push(history::Request {
            at: std::time::SystemTime::now(),
            endpoint,
            job_id,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            body: recorded,
            answered_at: None,
            status: None,
        });
        state.requests.len() - 1
    });
    let connection = parts.extensions.remove::<Connection>();
    let fault = endpoint.and_then(|endpoint| shared.faults.take(endpoint));
    let mut request = Request::from_parts(parts, body);
    let handle = |request| next.run(request);
    let response = match fault {
        None => handle(request).await,
        Some(Fault::Hold(gate)) => {
            gate.pass().await;
            handle(request).await
        }
        Some(Fault::TruncateTrace(length)) => {
            shared.update(|state| {
                if let Some(job) = job_id.and_then(|id| state.jobs.get_mut(&id)) {
                    job.log.truncate(length);
                }
            });
            handle(request).await
        }
        Some(Fault::Drop) => return cut(connection.as_ref()).await,
        Some(Fault::DropAnswer) => {
            let response = handle(request).await;
            // The handler may leave work to the body, as git does; it is not wanted any more.
            drop(response);
            return cut(connection.as_ref()).await;
        }
        Some(Fault::ResetMidBody) => answer::reset_mid_body(handle(request).await, connection).await,
        Some(fault) => {
            answer::drain(std::mem::take(request.body_mut())).await;
            if matches!((&fault, endpoint), (Fault::Status(412), Some(Endpoint::FinalUpdate))) {
                shared.update(|state| {
                    if let Some(job) = job_id.and_then(|id| state.jobs.get_mut(&id)) {
                        job.resend_allowed = true;
                    }
                });
            }
            answer::faulty(&shared, &fault, endpoint, job_id)
        }
    };
    let response = answer::with_request_id(response, request_id(&shared, index));
    let status = response.status().as_u16();
    shared.update(|state| {
        if let Some(request) = state.requests.get_mut(index) {
            request.answered_at = Some(std::time::SystemTime::now());
            request.status = Some(status);
        }
    });
    response
}

fn request_id(shared: &Shared, index: usize) -> Option<axum::http::HeaderValue> {
    shared.read(|state| state.requests.get(index)?.headers.get("x-request-id").cloned())
}

/// Closes the connection; the answer never comes.
async fn cut(connection: Option<&Connection>) -> Response {
    if let Some(connection) = connection {
        connection.cut();
    }
    std::future::pending().await
}
