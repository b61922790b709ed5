//! Requests and answers (OCI distribution specification, version 1.1).

use std::time::Duration;

use oci_spec::distribution::Reference;
use reqwest::{
    Method, Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::Deserialize;

use crate::{
    auth::Auth,
    challenge::{self, Challenge},
    connections::{Endpoint, join, unreachable},
    error::RegistryError,
    manifest::ACCEPT,
    registry::Registry,
    token::Authorization,
};

/// Most bytes of an error that are read.
const MAX_ERROR: u64 = 1 << 20;

/// A call.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) accept: Option<&'a str>,
    /// The first byte that is wanted.
    pub(crate) from: u64,
    /// What is asked for, for messages.
    pub(crate) what: &'a str,
}

impl Registry {
    /// Sends a call, and once more with what the registry wants to know of who asks.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: &Auth,
        call: Call<'_>,
    ) -> Result<Response, RegistryError> {
        let known = self.authorizations().get(&endpoint.host, reference.repository(), auth);
        let response = self.once(endpoint, &call, known.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return accepted(endpoint, response, &call, auth).await;
        }
        let values = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = challenge::parse(values.iter().filter_map(|value| value.to_str().ok()));
        let authorization = match (challenge, auth) {
            (Some(Challenge::Bearer { realm, service }), _) => {
                self.token(endpoint, &realm, service.as_deref(), reference, auth, call.what).await?
            }
            (Some(Challenge::Basic), Auth::Basic { user, password }) => Authorization::basic(user, password),
            _ => return accepted(endpoint, response, &call, auth).await,
        };
        let value = authorization.value.clone();
        let response = self.once(endpoint, &call, Some(&value)).await?;
        let response = accepted(endpoint, response, &call, auth).await?;
        self.authorizations().insert(&endpoint.host, reference.repository(), auth, authorization);
        Ok(response)
    }

    async fn once(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let mut request = endpoint.client.request(call.method.clone(), join(&endpoint.base, &call.path));
        if let Some(accept) = call.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(value) = authorization {
            // A token may be anything.
            let mut value = HeaderValue::from_str(value).map_err(|_| RegistryError::Content {
                host: endpoint.host.clone(),
                what: call.what.to_owned(),
                problem: "its token has characters that no token has".to_owned(),
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if call.from > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", call.from));
        }
        request.send().await.map_err(|error| unreachable(&endpoint.host, &error))
    }
}

pub(crate) fn manifest_call<'a>(reference: &Reference, what: &'a str) -> Call<'a> {
    let name = reference.digest().or(reference.tag()).unwrap_or("latest");
    Call {
        method: Method::GET,
        path: format!("v2/{}/manifests/{name}", reference.repository()),
        accept: Some(ACCEPT),
        from: 0,
        what,
    }
}

pub(crate) fn blob_call<'a>(reference: &Reference, digest: &str, what: &'a str) -> Call<'a> {
    Call {
        method: Method::GET,
        path: format!("v2/{}/blobs/{digest}", reference.repository()),
        accept: None,
        from: 0,
        what,
    }
}

/// Refuses answers that say no.
pub(crate) async fn accepted(
    endpoint: &Endpoint,
    response: Response,
    call: &Call<'_>,
    auth: &Auth,
) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let said = bounded(endpoint, response, MAX_ERROR, call.what).await.ok().and_then(|body| message(&body));
    let (host, what) = (endpoint.host.clone(), call.what.to_owned());
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { what, host },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
            what,
            host,
            anonymous: auth.is_anonymous(),
            said: said.unwrap_or_else(|| status.to_string()),
        },
        _ => RegistryError::Answer { host, what, status: status.as_u16(), said, retry_after },
    })
}

/// What a registry's error says; only of errors in the registry's form, as other servers may answer too.
fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        code: Option<String>,
        message: Option<String>,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let first = errors.errors.into_iter().next()?;
    let text = first.message.filter(|text| !text.is_empty()).or(first.code)?;
    Some(text.chars().filter(|c| !c.is_control()).take(200).collect())
}

/// The whole of a small answer.
pub(crate) async fn bounded(
    endpoint: &Endpoint,
    mut response: Response,
    most: u64,
    what: &str,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| unreachable(&endpoint.host, &error))?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(RegistryError::Content {
                host: endpoint.host.clone(),
                what: what.to_owned(),
                problem: format!("it has more than {most} bytes"),
            });
        }
        bytes.extend_from_slice(&chunk);
    }
}
