//! One call of a runner, taken apart.

use std::collections::BTreeMap;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::api::answer::{Refusal, message, violation};
use crate::state::{Shared, State};
use crate::strict::Problems;

pub(crate) const RUNNER_TOKEN: HeaderName = HeaderName::from_static("runner-token");
pub(crate) const JOB_TOKEN: HeaderName = HeaderName::from_static("job-token");

/// A request with its body.
#[derive(Debug)]
pub(crate) struct Call {
    /// Method and path, for messages.
    pub(crate) what: String,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Option<String>,
    pub(crate) body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = axum::response::Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        let what = what(&request);
        let (parts, body) = request.into_parts();
        // The size was limited when the request was recorded.
        let body = to_bytes(body, usize::MAX)
            .await
            .map_err(|_| message(StatusCode::BAD_REQUEST, "400 the body was cut"))?;
        Ok(Self { what, headers: parts.headers, query: parts.uri.query().map(String::from), body })
    }
}

/// Method and path; nested routes see only a part of the path, so the original is asked for.
pub(crate) fn what(request: &Request) -> String {
    let uri = request.extensions().get::<axum::extract::OriginalUri>().map_or(request.uri(), |uri| &uri.0);
    format!("{} {}", request.method(), uri.path())
}

impl Call {
    /// The body as a JSON object; a violation if it is not one.
    pub(crate) fn object(&self, problems: &mut Problems) -> Map<String, Value> {
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => object,
            Ok(_) => {
                problems.add("the body is not a JSON object");
                Map::new()
            }
            Err(error) => {
                problems.add(format!("the body is not JSON: {error}"));
                Map::new()
            }
        }
    }

    /// `RUNNER-TOKEN` is there and is the token of the body.
    pub(crate) fn runner_token_header(&self, problems: &mut Problems, token: Option<&str>) {
        let header = problems.header(&self.headers, &RUNNER_TOKEN);
        if let (Some(header), Some(token)) = (header, token) {
            problems.check(header == token, || "RUNNER-TOKEN is not the token of the body".into());
        }
    }

    /// Records what is wrong and refuses the call with 400.
    pub(crate) fn refuse(&self, shared: &Shared, problems: Problems) -> Result<(), Refusal> {
        shared.update(|state| self.refuse_in(state, problems))
    }

    /// [`Self::refuse`] with the state at hand.
    pub(crate) fn refuse_in(&self, state: &mut State, problems: Problems) -> Result<(), Refusal> {
        problems.into_result().map_err(|problem| violation(state, &self.what, &problem).into())
    }
}

/// The query as a map; keys outside `known` and repeated keys are problems.
pub(crate) fn query(
    problems: &mut Problems,
    query: Option<&str>,
    known: &[&str],
) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        problems.check(known.contains(&&*key), || format!("query parameter {key:?} is not known"));
        let repeated = map.insert(key.to_string(), value.into_owned());
        problems.check(repeated.is_none(), || format!("query parameter {key:?} is there twice"));
    }
    map
}
