//! What is sent as `Authorization`: tokens of other servers (Docker registry token authentication), and passwords.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_spec::distribution::Reference;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::{
    auth::Auth,
    call::{Call, accepted, bounded},
    connections::{Endpoint, host_of, unreachable},
    error::RegistryError,
    registry::Registry,
};

/// Most bytes of a token server's answer.
const MAX_TOKEN: u64 = 1 << 20;

/// How long a token lasts if its server does not say.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// A token this close to its end is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// No token is kept longer, whatever its server says.
const MAX_TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// How long it is remembered that a registry wants a password.
const PASSWORD_LIFE: Duration = Duration::from_secs(5 * 60);

/// Registry, repository and user.
type Key = (String, String, Auth);

/// What is sent as `Authorization`.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) value: String,
    until: Instant,
}

impl Authorization {
    /// Name and password in each request.
    pub(crate) fn basic(user: &str, password: &str) -> Self {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        Self { value: format!("Basic {pair}"), until: Instant::now() + PASSWORD_LIFE }
    }

    fn bearer(token: &str, expires_in: Option<u64>) -> Self {
        let life = expires_in.map_or(TOKEN_LIFE, Duration::from_secs).min(MAX_TOKEN_LIFE);
        Self { value: format!("Bearer {token}"), until: Instant::now() + life.saturating_sub(TOKEN_MARGIN) }
    }
}

/// What was accepted lately. It holds secrets and has no `Debug`.
#[derive(Default)]
pub(crate) struct Authorizations {
    known: Mutex<HashMap<Key, Authorization>>,
}

impl Authorizations {
    /// What a registry accepted for a repository. What is out of date is forgotten, that of others too: the users of
    /// jobs come and go.
    pub(crate) fn get(&self, registry: &str, repository: &str, auth: &Auth) -> Option<String> {
        let mut known = self.lock();
        let now = Instant::now();
        known.retain(|_, authorization| authorization.until > now);
        known.get(&key(registry, repository, auth)).map(|authorization| authorization.value.clone())
    }

    pub(crate) fn insert(&self, registry: &str, repository: &str, auth: &Auth, new: Authorization) {
        self.lock().insert(key(registry, repository, auth), new);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Authorization>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(registry: &str, repository: &str, auth: &Auth) -> Key {
    (registry.to_owned(), repository.to_owned(), auth.clone())
}

impl Registry {
    /// Gets a token of the server that the registry names (Docker registry token authentication).
    pub(crate) async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<&str>,
        reference: &Reference,
        auth: &Auth,
        what: &str,
    ) -> Result<Authorization, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let content = |problem: String| RegistryError::Content {
            host: endpoint.host.clone(),
            what: "its token server".to_owned(),
            problem,
        };
        let realm = Url::parse(realm).map_err(|error| content(format!("`{realm}`: {error}")))?;
        if realm.scheme() != endpoint.base.scheme() && realm.scheme() != "https" {
            return Err(content("it is not encrypted, and the registry is".to_owned()));
        }
        // Whatever scope the registry names, nothing but reading the image is asked for; Docker does the same.
        let scope = format!("repository:{}:pull", reference.repository());
        let mut fields = vec![("scope", scope.as_str())];
        fields.extend(service.map(|service| ("service", service)));
        let request = match auth {
            Auth::IdentityToken(token) => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "tart"),
                ]);
                endpoint.client.post(realm.clone()).form(&fields)
            }
            Auth::Basic { user, password } => {
                endpoint.client.get(realm.clone()).query(&fields).basic_auth(user, Some(password))
            }
            Auth::Anonymous => endpoint.client.get(realm.clone()).query(&fields),
        };
        let host = host_of(&realm);
        let response = request.send().await.map_err(|error| unreachable(&host, &error))?;
        let server = Endpoint { host, ..endpoint.clone() };
        let call = Call { method: Method::GET, path: String::new(), accept: None, from: 0, what };
        let response = accepted(&server, response, &call, auth).await?;
        let bytes = bounded(&server, response, MAX_TOKEN, "a token").await?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|_| content("its answer is no token".to_owned()))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| content("there is no token in its answer".to_owned()))?;
        Ok(Authorization::bearer(&token, answer.expires_in))
    }
}
