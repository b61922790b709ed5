//! Objects in memory, behind the signatures of a cloud.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, RANGE};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use s3s::Body;

use crate::azure::Azure;
use crate::gate::{Gate, Seen, Store, refuse};
use crate::google::Google;
use crate::tls;

/// Why a request is refused: the status and the store's word for it.
pub(crate) type Refusal = (StatusCode, &'static str);

/// An object that a request may read or write.
pub(crate) struct Target {
    pub(crate) container: String,
    pub(crate) name: String,
}

/// The rules of a cloud.
pub(crate) trait Cloud: Send + Sync + 'static {
    /// The codes of a container and of an object that are missing.
    const MISSING: (&'static str, &'static str);
    /// The status of an upload.
    const CREATED: StatusCode;

    /// The object that a request may do to what it says.
    fn check(&self, request: &Parts, tls: bool) -> Result<Target, Refusal>;
}

/// A running store. It ends when it is dropped.
#[derive(Debug)]
pub struct CloudServer {
    gate: Gate,
    objects: Arc<Mutex<Objects>>,
    account: String,
    key: String,
    authority: String,
}

#[derive(Debug, Default)]
struct Objects {
    of: BTreeMap<String, Object>,
    written: u64,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    tag: String,
}

impl CloudServer {
    /// Starts a store that speaks as Google Cloud Storage does, with one bucket. Its host is
    /// `storage.googleapis.com`.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn google(bucket: &str) -> anyhow::Result<Self> {
        let (google, key) = Google::new()?;
        let account = google.access_id.clone();
        Self::start(google, bucket, "storage.googleapis.com", account, key).await
    }

    /// Starts a store that speaks as Azure Blob Storage does, with one container. Its host is
    /// `<account>.blob.core.windows.net`.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn azure(container: &str) -> anyhow::Result<Self> {
        let (azure, key) = Azure::new()?;
        let account = azure.account.clone();
        let host = format!("{account}.blob.core.windows.net");
        Self::start(azure, container, &host, account, key).await
    }

    async fn start<C: Cloud>(
        cloud: C,
        container: &str,
        host: &str,
        account: String,
        key: String,
    ) -> anyhow::Result<Self> {
        let objects = Arc::<Mutex<Objects>>::default();
        let (acceptor, authority) = tls::acceptor(host)?;
        let memory = Memory { cloud, container: container.to_owned(), objects: Arc::clone(&objects) };
        let gate = Gate::start(Arc::new(memory), Some(acceptor)).await?;
        Ok(Self { gate, objects, account, key, authority })
    }

    /// `http://host:port`: the store itself, and a proxy to its host.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.gate.address())
    }

    /// The authority of the host's certificate, as PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The only account that it knows.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The account's key, as the cloud gives it: PEM or base64.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A credentials file of Google's with both.
    #[must_use]
    pub fn credentials_file(&self) -> String {
        let file = serde_json::json!({
            "type": "service_account", "client_email": self.account, "private_key": self.key,
        });
        file.to_string()
    }

    /// The next requests of a method get a status instead of an answer.
    pub fn fail(&self, method: &str, status: u16, times: usize) {
        self.gate.fail(method, status, times);
    }

    /// All requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.gate.seen()
    }

    /// Names of all objects, sorted.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        lock(&self.objects).of.keys().cloned().collect()
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// If there is none.
    pub fn object(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let objects = lock(&self.objects);
        let object = objects.of.get(name).with_context(|| format!("no {name} in {:?}", objects.of.keys()))?;
        Ok(object.bytes.to_vec())
    }
}

struct Memory<C> {
    cloud: C,
    container: String,
    objects: Arc<Mutex<Objects>>,
}

impl<C: Cloud> Store for Memory<C> {
    fn answer(self: Arc<Self>, request: Request<Incoming>, tls: bool) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            self.respond(request, tls).await.unwrap_or_else(|(status, code)| refuse(status, code))
        })
    }
}

impl<C: Cloud> Memory<C> {
    async fn respond(&self, request: Request<Incoming>, tls: bool) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        let target = self.cloud.check(&parts, tls)?;
        if target.container != self.container {
            return Err((StatusCode::NOT_FOUND, C::MISSING.0));
        }
        if parts.method == Method::PUT {
            return self.write(target.name, &parts.headers, body).await;
        }
        let object = lock(&self.objects).of.get(&target.name).cloned();
        read(&object.ok_or((StatusCode::NOT_FOUND, C::MISSING.1))?, &parts.headers)
    }

    async fn write(
        &self,
        name: String,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let length = text(headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let length: usize = length.ok_or((StatusCode::LENGTH_REQUIRED, "MissingContentLength"))?;
        let body = body.collect().await.map_err(|_| (StatusCode::BAD_REQUEST, "IncompleteBody"))?;
        let bytes = body.to_bytes();
        if bytes.len() != length {
            return Err((StatusCode::BAD_REQUEST, "IncompleteBody"));
        }
        let mut objects = lock(&self.objects);
        objects.written += 1;
        let tag = format!("\"{:x}\"", objects.written);
        objects.of.insert(name, Object { bytes, tag });
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = C::CREATED;
        Ok(answer)
    }
}

/// The whole object or a range of it.
fn read(object: &Object, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    if text(headers, IF_MATCH.as_str()).is_some_and(|tag| tag != object.tag) {
        return Err((StatusCode::PRECONDITION_FAILED, "ConditionNotMet"));
    }
    let mut answer = Response::builder().header(ETAG, &object.tag);
    let mut bytes = object.bytes.clone();
    if let Some(range) = text(headers, RANGE.as_str()) {
        let range = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let range = range.and_then(|(start, end)| Some((start.parse().ok()?, end.parse::<usize>().ok()?)));
        let (start, end) = range.ok_or((StatusCode::BAD_REQUEST, "InvalidHeaderValue"))?;
        if start >= bytes.len() {
            return Err((StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"));
        }
        let end = end.min(bytes.len() - 1);
        let total = bytes.len();
        bytes = bytes.slice(start..=end);
        answer = answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, format!("bytes {start}-{end}/{total}"));
    }
    answer.body(Body::from(bytes)).map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
}

/// The only value of a header.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok();
    value.filter(|_| values.next().is_none())
}

fn lock(objects: &Mutex<Objects>) -> std::sync::MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}
