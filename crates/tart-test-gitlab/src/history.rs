//! The requests a server saw.

use std::time::SystemTime;

use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use serde_json::Value;

use crate::faults::Endpoint;

/// One request, recorded when it arrives and completed when it is answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// When the request had arrived.
    pub at: SystemTime,
    /// The endpoint, if the path belongs to one.
    pub endpoint: Option<Endpoint>,
    /// The id in a path of `jobs/:id`.
    pub job_id: Option<u64>,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// The headers, tokens included.
    pub headers: HeaderMap,
    /// The body; empty for uploads and git, which are streamed.
    pub body: Bytes,
    /// When the head of the answer was ready; `None` as long as [`Self::status`] is.
    pub answered_at: Option<SystemTime>,
    /// The status of the answer; `None` while there is none, and for ever if the connection was cut.
    pub status: Option<u16>,
}

impl Request {
    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
