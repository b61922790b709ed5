//! Calls of providers.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, redirect::Policy};
use serde_json::Value;

use crate::error::{Cause, SecretError};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Fetches secrets.
#[derive(Debug, Clone)]
pub struct Resolver {
    client: Client,
}

impl Resolver {
    /// One that trusts the system's certificates. It follows no redirection: a token must not go elsewhere.
    ///
    /// # Errors
    /// If there is no TLS.
    pub fn new() -> Result<Self, SecretError> {
        let client = Client::builder().timeout(CALL_LIMIT).redirect(Policy::none()).build();
        let client = client.map_err(|error| SecretError::new(Cause::Other, chain(&error)))?;
        Ok(Self { client })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

/// Makes a call; what it is for goes into errors. The answer is JSON.
pub(crate) async fn call(what: &str, request: RequestBuilder) -> Result<Value, SecretError> {
    let provider = |text: String| SecretError::new(Cause::Provider, format!("{what}: {text}"));
    // An error of reqwest has the address, in which there is no secret, and nothing of headers or bodies.
    let mut response = request.send().await.map_err(|error| provider(chain(&error)))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| provider(chain(&error)))? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(provider(format!("the answer is longer than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| provider("the answer is no JSON".to_owned()));
    }
    let cause = match status.as_u16() {
        404 => Cause::Missing,
        400 | 401 | 403 => Cause::Configuration,
        500..=599 => Cause::Provider,
        _ => Cause::Other,
    };
    Err(SecretError::new(cause, format!("{what}: the server answers {status}{}", said(&body))))
}

/// What Vault says of an error: `{"errors": ["permission denied"]}`.
fn said(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors =
        value.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let text: String =
        errors.collect::<Vec<_>>().join(", ").chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
