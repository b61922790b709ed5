//! Calls of providers.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, header::HeaderValue, redirect::Policy};
use serde_json::Value;

use crate::endpoints::Endpoints;
use crate::error::{Cause, SecretError};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Longest text of a provider in an error, in characters.
const MAX_SAID: usize = 200;

/// Fetches secrets.
#[derive(Debug, Clone)]
pub struct Resolver {
    client: Client,
    endpoints: Endpoints,
}

impl Resolver {
    /// One that trusts the system's certificates. It follows no redirection: a token must not go elsewhere.
    ///
    /// # Errors
    /// If there is no TLS.
    pub fn new() -> Result<Self, SecretError> {
        let client = Client::builder().timeout(CALL_LIMIT).redirect(Policy::none()).build();
        let client = client.map_err(|error| SecretError::new(Cause::Other, chain(&error)))?;
        Ok(Self { client, endpoints: Endpoints::default() })
    }

    /// The same, which finds the services of clouds elsewhere.
    #[must_use]
    pub fn with_endpoints(self, endpoints: Endpoints) -> Self {
        Self { endpoints, ..self }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }
}

/// What a server says.
pub(crate) struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The answer as text, cleaned of nothing.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// The answer as JSON; anything else is null.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Why there is no answer that is of use, by the status alone.
    pub(crate) fn refusal(&self, what: &str, said: &str) -> SecretError {
        let cause = match self.status.as_u16() {
            404 => Cause::Missing,
            400 | 401 | 403 => Cause::Configuration,
            500..=599 => Cause::Provider,
            _ => Cause::Other,
        };
        self.refusal_because_of(cause, what, said)
    }

    pub(crate) fn refusal_because_of(&self, cause: Cause, what: &str, said: &str) -> SecretError {
        let said: String = said.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        SecretError::new(cause, format!("{what}: the server answers {}{said}", self.status))
    }
}

/// Makes a call; what it is for goes into errors.
pub(crate) async fn send(what: &str, request: RequestBuilder) -> Result<Answer, SecretError> {
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
    Ok(Answer { status, body })
}

/// Makes a call whose answer is JSON.
pub(crate) async fn call(what: &str, request: RequestBuilder) -> Result<Value, SecretError> {
    let answer = send(what, request).await?;
    if answer.is_success() {
        return serde_json::from_slice(&answer.body)
            .map_err(|_| SecretError::new(Cause::Provider, format!("{what}: the answer is no JSON")));
    }
    Err(answer.refusal(what, &said(&answer.json())))
}

/// The same for a call that gets a token: there, 404 says that the way to log in is wrong, not that the secret is
/// missing.
pub(crate) async fn log_in(what: &str, request: RequestBuilder) -> Result<Value, SecretError> {
    call(what, request).await.map_err(|error| match error.cause {
        Cause::Missing => SecretError::configuration(error.to_string()),
        _ => error,
    })
}

/// A token for a header, at a place of an answer.
pub(crate) fn token(
    what: &str,
    answer: &Value,
    pointer: &str,
    prefix: &str,
) -> Result<HeaderValue, SecretError> {
    let token = answer.pointer(pointer).and_then(Value::as_str);
    let token = token.ok_or_else(|| SecretError::new(Cause::Provider, format!("{what} gave no token")))?;
    let mut token = HeaderValue::from_str(&format!("{prefix}{token}"))
        .map_err(|_| SecretError::new(Cause::Provider, format!("{what} gave a token that is none")))?;
    token.set_sensitive(true);
    Ok(token)
}

/// What a provider says of an error: `errors` of Vault, `error_description` of OAuth, `error.message` of Google and
/// Azure, `message` of AWS.
fn said(value: &Value) -> String {
    if let Some(errors) = value.get("errors").and_then(Value::as_array) {
        return errors.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    }
    let places = ["/error_description", "/error/message", "/message", "/Message", "/error"];
    let text = places.into_iter().find_map(|place| value.pointer(place).and_then(Value::as_str));
    text.unwrap_or_default().to_owned()
}

/// The field of an object as the value of a variable: text as it is, other values as JSON.
pub(crate) fn field(what: &str, fields: Option<&Value>, name: &str) -> Result<String, SecretError> {
    match fields.and_then(|fields| fields.get(name)) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) | None => {
            Err(SecretError::new(Cause::Missing, format!("{what} has no field `{name}`")))
        }
        Some(value) => Ok(value.to_string()),
    }
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
