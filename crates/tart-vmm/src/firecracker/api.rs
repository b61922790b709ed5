//! The client of Firecracker's API: HTTP/1.1 over a unix socket, one request after the other.

use std::{io, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    place::{Place, Socket, Unconnected},
    requests::Request,
};

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// Longest text of a fault that is shown, in bytes.
const MAX_FAULT: usize = 500;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Firecracker refuses it.
    #[error("refuses {path}: {fault}")]
    Fault { path: String, fault: String },
    /// It says something that its API does not.
    #[error("answers {path} with {what}")]
    Answer { path: String, what: String },
    #[error("does not answer {path} within {} seconds", .limit.as_secs())]
    Timeout { path: String, limit: Duration },
    /// The connection broke.
    #[error("broke the connection of its API: {0}")]
    Broken(String),
    /// It runs, but not where it was put.
    #[error("{0}")]
    Astray(String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Api {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Api {
    /// Connects to Firecracker, as soon as that is where it was put.
    pub(super) async fn connect(place: &Place) -> Result<Self, Unconnected> {
        let stream = place.connect(Socket::Api).await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|e| Unconnected::Absent(io::Error::other(e)))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Requests see how it ends.
            let _ended = connection.await;
        });
        Ok(Self { sender, _driver: driver })
    }

    /// Sends a request and reads its answer, all within `limit`.
    pub(super) async fn call(&mut self, request: &Request, limit: Duration) -> Result<Value, ApiError> {
        let limit = tart_proto::time::scaled(limit);
        let timeout = || ApiError::Timeout { path: request.path.clone(), limit };
        tokio::time::timeout(limit, self.exchange(request)).await.map_err(|_| timeout())?
    }

    async fn exchange(&mut self, request: &Request) -> Result<Value, ApiError> {
        let broken = |e: hyper::Error| ApiError::Broken(e.to_string());
        let answer = |what: String| ApiError::Answer { path: request.path.clone(), what };
        let body = if request.body.is_null() { Vec::new() } else { request.body.to_string().into_bytes() };
        let http = hyper::Request::builder()
            .method(request.method)
            .uri(&request.path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| answer(format!("no request: {e}")))?;
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(http).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| answer(format!("a body that cannot be read: {e}")))?.to_bytes();
        let json =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap_or_default() };
        match status {
            StatusCode::NO_CONTENT => Ok(Value::Null),
            StatusCode::OK if json.is_object() => Ok(json),
            StatusCode::OK => Err(answer("200 and no JSON object".to_owned())),
            // 413 is the answer to more metadata than there may be.
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                let fault = json.get("fault_message").and_then(Value::as_str).unwrap_or("no reason given");
                Err(ApiError::Fault { path: request.path.clone(), fault: plain(fault) })
            }
            status => Err(answer(format!("status {}", status.as_u16()))),
        }
    }
}

/// Text fit for one line of a log.
fn plain(text: &str) -> String {
    let mut plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=MAX_FAULT.min(plain.len())).rev().find(|at| plain.is_char_boundary(*at)).unwrap_or(0);
    plain.truncate(end);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_short_line() {
        assert_eq!(plain("a\nb\x1b[1m"), "a b [1m");
        assert_eq!(plain(&"ä".repeat(1000)).len(), MAX_FAULT);
    }
}
