//! One call: headers, redirections, retries and bounded bodies.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::tls::TlsInfo;
use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::address::{may_share_tokens, origin};
use crate::error::{ApiError, presentable, transport};
use crate::headers::last_update;
use crate::token::Token;
use crate::transport::Connections;
use crate::{client::Client, retry};

/// A server may think this long before the head of its answer, which covers long polling.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The body of an answer whose head says it all is read for this long, for the sake of the connection.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const MAX_REDIRECTS: usize = 10;
/// The longest explanation of an error that is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const RUNNER_TOKEN: HeaderName = HeaderName::from_static("runner-token");
pub(crate) const JOB_TOKEN: HeaderName = HeaderName::from_static("job-token");
pub(crate) const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");

/// What is sent, as often as it takes.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    /// Below the root of the API, with the query.
    path: String,
    headers: HeaderMap,
    body: Bytes,
    /// How much of a good answer's body is read; without a limit it is not needed.
    body_limit: Option<usize>,
}

impl Call {
    /// A call with a JSON body.
    pub(crate) fn json(
        method: Method,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ApiError::BadBody(format!("the request cannot be written as JSON: {error}")))?;
        Ok(Self::with_body(method, path, "application/json", body.into()))
    }

    /// A call that appends to a log.
    pub(crate) fn chunk(path: impl Into<String>, start: u64, chunk: Bytes) -> Result<Self, ApiError> {
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let end = start.saturating_add(length).saturating_sub(1);
        let mut call = Self::with_body(Method::PATCH, path, "text/plain", chunk);
        call.headers.insert(CONTENT_RANGE, plain(&format!("{start}-{end}"))?);
        Ok(call)
    }

    fn with_body(method: Method, path: impl Into<String>, kind: &'static str, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Self { method, path: path.into(), headers, body, body_limit: None }
    }

    /// Adds a token.
    pub(crate) fn token(mut self, name: HeaderName, token: &Token) -> Result<Self, ApiError> {
        let mut value = HeaderValue::from_str(token.expose())
            .map_err(|_| ApiError::Client("the token has characters that no token has".into()))?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Wants a JSON body of at most this many bytes in the answer.
    pub(crate) fn wants_json(mut self, limit: usize) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.body_limit = Some(limit);
        self
    }
}

fn plain(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|_| ApiError::Client("a header has impossible characters".into()))
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What the call is named in the server's logs.
    pub(crate) correlation_id: String,
    /// The certificates that let another program trust the same server.
    pub(crate) certificates: Option<String>,
}

impl Answer {
    /// The error this answer is, if nobody wanted its status.
    pub(crate) fn as_error(&self) -> ApiError {
        ApiError::from_answer(self.status, &self.body)
    }

    fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn is_json(&self) -> bool {
        let essence = self.content_type().split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    }

    /// The body of the wanted status.
    pub(crate) fn parse<T: DeserializeOwned>(&self, wanted: u16) -> Result<T, ApiError> {
        if self.status != wanted {
            return Err(self.as_error());
        }
        if !self.is_json() {
            let content_type = presentable(self.content_type());
            return Err(ApiError::NotJson { status: self.status, content_type });
        }
        // All good bodies are objects, but the decoder takes the fields of one from an array, too.
        if !self.body.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::BadBody("it is not a JSON object".into()));
        }
        // The place is enough: the text of an error may quote what must stay secret.
        serde_json::from_slice(&self.body).map_err(|error| {
            let kind = match error.classify() {
                serde_json::error::Category::Eof => "it ends too early",
                serde_json::error::Category::Syntax => "it is not JSON",
                _ => "a field has an unexpected type",
            };
            ApiError::BadBody(format!("{kind} (line {}, column {})", error.line(), error.column()))
        })
    }
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) result: Result<Answer, ApiError>,
    /// Some attempt was answered with a status that asks for a retry.
    pub(crate) saw_retryable: bool,
}

impl Client {
    /// Sends a call, again if the server asks for it. Dropping the future ends it at any point.
    pub(crate) async fn send(&self, call: Result<Call, ApiError>) -> Sent {
        let mut saw_retryable = false;
        let result = match call {
            Ok(call) => self.send_with_retries(call, &mut saw_retryable).await,
            Err(error) => Err(error),
        };
        Sent { result, saw_retryable }
    }

    async fn send_with_retries(&self, mut call: Call, saw_retryable: &mut bool) -> Result<Answer, ApiError> {
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        call.headers.insert(X_REQUEST_ID, plain(&request_id)?);
        let connections = self.transport().connections()?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = self.attempt(&connections, &call, &request_id).await;
            let answer = answer.inspect_err(|error| {
                tracing::debug!(path = call.path, correlation_id = request_id, "no answer: {error}");
            })?;
            tracing::debug!(
                method = %call.method,
                path = call.path,
                status = answer.status,
                correlation_id = answer.correlation_id,
                "answered"
            );
            if !retry::is_retried(answer.status) {
                return Ok(answer);
            }
            *saw_retryable = true;
            if attempts >= retry::MAX_ATTEMPTS {
                return Ok(answer);
            }
            let clock = self.clock();
            let wait = retry::wait(&answer.headers, attempts, clock.now(), clock.jitter());
            clock.sleep(wait).await;
        }
    }

    /// One attempt, with its redirections.
    async fn attempt(
        &self,
        connections: &Connections,
        call: &Call,
        request_id: &str,
    ) -> Result<Answer, ApiError> {
        let mut url = self
            .api_root()
            .join(&call.path)
            .map_err(|error| ApiError::Client(format!("no URL for {}: {error}", call.path)))?;
        for _ in 0..=MAX_REDIRECTS {
            let request = connections
                .http
                .request(call.method.clone(), url.clone())
                .headers(call.headers.clone())
                .body(call.body.clone());
            let response = tokio::time::timeout(HEADER_TIMEOUT, request.send())
                .await
                .map_err(|_| ApiError::Transport(format!("no answer within {HEADER_TIMEOUT:?}")))?
                .map_err(transport)?;
            match redirection(&response) {
                Some(location) => url = next_url(&url, location, response.status().as_u16())?,
                None => return read(response, call.body_limit, connections, request_id, self).await,
            }
        }
        Err(ApiError::Redirect { location: origin(&url), reason: "there were too many redirections before" })
    }
}

pub(crate) fn redirection(response: &Response) -> Option<&HeaderValue> {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        .then(|| response.headers().get(LOCATION))
        .flatten()
}

/// Where a call goes on. All calls here have a body with a token or a log, so they never leave their host; and 301 to
/// 303 would turn them into a GET.
fn next_url(from: &Url, location: &HeaderValue, status: u16) -> Result<Url, ApiError> {
    let to = location.to_str().ok().and_then(|location| from.join(location).ok());
    let Some(to) = to.filter(|to| matches!(to.scheme(), "http" | "https")) else {
        return Err(ApiError::Redirect { location: "nowhere".into(), reason: "the address is not usable" });
    };
    let reason = if !may_share_tokens(from, &to) {
        "it would give the token to another host or give up TLS; change the runner's `url` if the server has moved"
    } else if !matches!(status, 307 | 308) {
        "this kind of redirection drops the request's content; change the runner's `url` if the server has moved"
    } else {
        return Ok(to);
    };
    Err(ApiError::Redirect { location: origin(&to), reason })
}

async fn read(
    mut response: Response,
    limit: Option<usize>,
    connections: &Connections,
    request_id: &str,
    client: &Client,
) -> Result<Answer, ApiError> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let correlation_id = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let correlation_id = correlation_id.filter(|id| !id.is_empty() && id.len() <= 255).unwrap_or(request_id);
    let correlation_id = correlation_id.to_owned();
    if let Some(value) = last_update(&headers) {
        client.remember_last_update(value);
    }
    let certificates = response
        .extensions()
        .get::<TlsInfo>()
        .and_then(TlsInfo::peer_certificate)
        .map(|der| certificates(connections.ca_pem.as_deref(), der));
    let body = match limit {
        Some(limit) if status < 400 => read_all(&mut response, limit).await?,
        // What was read of an explanation is worth more than the reason it was cut.
        _ => tokio::time::timeout(DRAIN_TIMEOUT, read_some(&mut response)).await.unwrap_or_default(),
    };
    Ok(Answer { status, headers, body, correlation_id, certificates })
}

async fn read_all(response: &mut Response, limit: usize) -> Result<Bytes, ApiError> {
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).is_ok_and(|length| length > limit) {
        return Err(ApiError::TooLarge(limit));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(transport)? {
        if body.len() + piece.len() > limit {
            return Err(ApiError::TooLarge(limit));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

pub(crate) async fn read_some(response: &mut Response) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() >= MAX_ERROR_BYTES {
            body.truncate(MAX_ERROR_BYTES);
            break;
        }
    }
    body.into()
}

/// The configured authorities, and the certificate of the connection, which curl and git trust by itself.
fn certificates(ca_pem: Option<&str>, der: &[u8]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    if let Some(ca) = ca_pem {
        text.push_str(ca.trim_end());
        text.push('\n');
    }
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while let Some((line, tail)) = rest.split_at_checked(64) {
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
