//! Calls of a registry (OCI distribution specification, version 1.1).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::{
    distribution::Reference,
    image::{Descriptor, Digest, ImageConfiguration, Platform},
};
use reqwest::{Method, Response, StatusCode, header};
use serde::Deserialize;
use url::Url;

use crate::{
    auth::Auth,
    challenge::{self, Challenge},
    connections::{Connections, Endpoint, join, unreachable},
    error::RegistryError,
    manifest::{ACCEPT, Document, MAX_CONFIG, MAX_MANIFEST, Resolved, document, sha256},
    settings::RegistrySettings,
};

/// Docker Hub is called by another name than it has.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Most bytes of a token server's answer, and of an error.
const MAX_TOKEN: u64 = 1 << 20;

/// How long a token lasts if its server does not say.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// A token this close to its end is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// The longest pause that a server is granted.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Digest of what was answered (Docker registry API).
const CONTENT_DIGEST: &str = "docker-content-digest";

/// Registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    settings: RegistrySettings,
    connections: Connections,
    authorizations: Mutex<HashMap<Key, Authorization>>,
}

/// Registry, repository and user.
type Key = (String, String, Auth);

/// What is sent as `Authorization`.
#[derive(Clone)]
struct Authorization {
    value: String,
    until: Option<Instant>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// Reads the name of an image as Docker does: `busybox` is `docker.io/library/busybox:latest`.
///
/// # Errors
/// If it is none.
pub fn parse_reference(text: &str) -> Result<Reference, RegistryError> {
    let text = text.trim();
    let name = text.split(['@', ':']).next().unwrap_or_default();
    text.parse::<Reference>().map_err(|error| RegistryError::Name {
        name: text.chars().take(300).collect(),
        problem: match error {
            // The domain may have any case, and then there is a slash.
            _ if name.contains(char::is_uppercase) => "repositories are written in lower case".to_owned(),
            other => other.to_string(),
        },
    })
}

/// Mirrors one after the other, without the credentials, and then the registry of the name, again and again as long as
/// its failures may pass.
pub(crate) struct Tries<'a> {
    registry: &'a Registry,
    host: &'a str,
    mirrors: std::slice::Iter<'a, Url>,
    at_mirror: bool,
    auth: &'a Auth,
    attempt: u32,
    pause: Duration,
}

impl Tries<'_> {
    /// Where to try next.
    pub(crate) async fn next(&mut self) -> Result<(Endpoint, Auth), RegistryError> {
        loop {
            self.at_mirror = false;
            let error = match self.mirrors.next() {
                Some(mirror) => {
                    self.at_mirror = true;
                    match self.registry.mirror(mirror).await {
                        Ok(endpoint) => return Ok((endpoint, Auth::Anonymous)),
                        Err(error) => error,
                    }
                }
                None => {
                    let registry = self.registry;
                    match registry.inner.connections.endpoint(self.host, registry.settings()).await {
                        Ok(endpoint) => return Ok((endpoint, self.auth.clone())),
                        Err(error) => error,
                    }
                }
            };
            self.failed(error).await?;
        }
    }

    /// Waits before the next try; the error comes back if there should be none.
    pub(crate) async fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.at_mirror {
            tracing::debug!(%error, "the mirror does not have it");
            return Ok(());
        }
        if !error.is_worth_retrying() || self.attempt >= self.registry.settings().attempts {
            return Err(error);
        }
        let wanted = match &error {
            RegistryError::Answer { retry_after: Some(pause), .. } => (*pause).min(MAX_PAUSE),
            _ => self.pause,
        };
        tracing::debug!(host = self.host, attempt = self.attempt, %error, "the registry is asked again");
        tokio::time::sleep(wanted).await;
        self.attempt += 1;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}

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
    /// Registries reached by these settings.
    ///
    /// # Errors
    /// None yet: files of certificates are read when their registry is called.
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        let inner = Inner { settings, connections: Connections::default(), authorizations: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn settings(&self) -> &RegistrySettings {
        &self.inner.settings
    }

    /// The digest that a name stands for now. Registries that limit pulls do not count this call.
    ///
    /// # Errors
    /// If the registry does not have it, does not give it to this user, or is not reached.
    pub async fn digest(&self, reference: &Reference, auth: &Auth) -> Result<Digest, RegistryError> {
        let mut tries = self.tries(reference, auth);
        loop {
            let (endpoint, auth) = tries.next().await?;
            match self.digest_at(&endpoint, reference, &auth).await {
                Ok(digest) => return Ok(digest),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    async fn digest_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<Digest, RegistryError> {
        let what = reference.whole();
        let call = Call { method: Method::HEAD, ..manifest_call(reference, &what) };
        match self.send(endpoint, reference, auth, call).await {
            Ok(response) => {
                let said = response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
                if let Some(digest) = said {
                    return parse_digest(digest, &endpoint.host, &what);
                }
            }
            Err(RegistryError::Answer { status: 405 | 501, .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(self.manifest(endpoint, reference, auth).await?.0)
    }

    /// The image that a name stands for on a platform.
    ///
    /// # Errors
    /// As [`Self::digest`], if no image fits, or if what the registry sends cannot be right.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        auth: &Auth,
    ) -> Result<Resolved, RegistryError> {
        let mut tries = self.tries(reference, auth);
        loop {
            let (endpoint, auth) = tries.next().await?;
            match self.resolve_at(&endpoint, reference, platform, &auth).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        platform: &Platform,
        auth: &Auth,
    ) -> Result<Resolved, RegistryError> {
        let what = reference.whole();
        let content = |problem: String| RegistryError::Content {
            host: endpoint.host.clone(),
            what: what.clone(),
            problem,
        };
        let (digest, json) = self.manifest(endpoint, reference, auth).await?;
        let (index_digest, digest, json, manifest) = match document(&json).map_err(content)? {
            Document::Manifest(manifest) => (None, digest, json, *manifest),
            Document::Index(index) => {
                let chosen = tart_oci::select(&index, platform)?;
                let chosen = reference.clone_with_digest(chosen.digest().to_string());
                let (inner, json) = self.manifest(endpoint, &chosen, auth).await?;
                match document(&json).map_err(content)? {
                    Document::Manifest(manifest) => (Some(digest), inner, json, *manifest),
                    Document::Index(_) => return Err(content("an index in an index".to_owned())),
                }
            }
        };
        let config_json = self.small_blob(endpoint, reference, manifest.config(), auth).await?;
        let config: ImageConfiguration = serde_json::from_slice(&config_json)
            .map_err(|error| content(format!("its configuration cannot be read: {error}")))?;
        Ok(Resolved {
            reference: reference.clone_with_digest(digest.to_string()),
            index_digest,
            manifest_digest: digest,
            manifest,
            manifest_json: json,
            config,
            config_json,
        })
    }

    /// Fetches a manifest and checks its digest.
    async fn manifest(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        let what = reference.whole();
        let response = self.send(endpoint, reference, auth, manifest_call(reference, &what)).await?;
        let said = response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
        let wanted = reference.digest().or(said).map(str::to_owned);
        let json = bounded(endpoint, response, MAX_MANIFEST, &what).await?;
        let real = sha256(&json);
        if let Some(wanted) = wanted
            && wanted != real
            && wanted.starts_with("sha256:")
        {
            let problem = format!("its digest is {real} and should be {wanted}: it was damaged or forged");
            return Err(RegistryError::Content { host: endpoint.host.clone(), what, problem });
        }
        Ok((parse_digest(&real, &endpoint.host, &what)?, json))
    }

    async fn small_blob(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
    ) -> Result<Vec<u8>, RegistryError> {
        let digest = descriptor.digest().to_string();
        let call = blob_call(reference, &digest, &digest);
        let response = self.send(endpoint, reference, auth, call).await?;
        let bytes = bounded(endpoint, response, MAX_CONFIG, &digest).await?;
        let real = sha256(&bytes);
        if real != digest {
            let problem = format!("its digest is {real}: it was damaged or forged");
            return Err(RegistryError::Content { host: endpoint.host.clone(), what: digest, problem });
        }
        Ok(bytes)
    }

    /// The registries that may have an image, tried until one does.
    pub(crate) fn tries<'a>(&'a self, reference: &'a Reference, auth: &'a Auth) -> Tries<'a> {
        let is_hub = reference.registry() == HUB.0;
        Tries {
            registry: self,
            host: if is_hub { HUB.1 } else { reference.registry() },
            mirrors: if is_hub { self.settings().mirrors.iter() } else { [].iter() },
            at_mirror: false,
            auth,
            attempt: 1,
            pause: self.settings().backoff,
        }
    }

    async fn mirror(&self, mirror: &Url) -> Result<Endpoint, RegistryError> {
        let host = mirror.host_str().unwrap_or_default();
        let host = mirror.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut endpoint = self.inner.connections.endpoint(&host, self.settings()).await?;
        endpoint.base.clone_from(mirror);
        Ok(endpoint)
    }

    /// Sends a call, and once more with what the registry wants to know of who asks.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: &Auth,
        call: Call<'_>,
    ) -> Result<Response, RegistryError> {
        let key = (endpoint.host.clone(), reference.repository().to_owned(), auth.clone());
        let known = self.known(&key);
        let response = self.once(endpoint, &call, known.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return accepted(endpoint, response, &call, auth).await;
        }
        let values = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = challenge::parse(values.iter().filter_map(|value| value.to_str().ok()));
        let authorization = match (challenge, auth) {
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", reference.repository()));
                self.token(endpoint, &realm, service.as_deref(), &scope, auth, call.what).await?
            }
            (Some(Challenge::Basic), Auth::Basic { user, password }) => {
                use base64::{Engine as _, engine::general_purpose::STANDARD};
                let pair = STANDARD.encode(format!("{user}:{password}"));
                Authorization { value: format!("Basic {pair}"), until: None }
            }
            _ => return accepted(endpoint, response, &call, auth).await,
        };
        let value = authorization.value.clone();
        let response = self.once(endpoint, &call, Some(&value)).await?;
        let response = accepted(endpoint, response, &call, auth).await?;
        self.authorizations().insert(key, authorization);
        Ok(response)
    }

    fn known(&self, key: &Key) -> Option<String> {
        let mut all = self.authorizations();
        all.retain(|_, known| known.until.is_none_or(|until| until > Instant::now()));
        all.get(key).map(|known| known.value.clone())
    }

    fn authorizations(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Authorization>> {
        self.inner.authorizations.lock().unwrap_or_else(PoisonError::into_inner)
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
            request = request.header(header::AUTHORIZATION, value);
        }
        if call.from > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", call.from));
        }
        request.send().await.map_err(|error| unreachable(&endpoint.host, &error))
    }

    /// Gets a token of the server that the registry names (Docker registry token authentication).
    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<&str>,
        scope: &str,
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
        let mut fields = vec![("scope", scope)];
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
        let host = realm.host_str().unwrap_or_default().to_owned();
        let response = request.send().await.map_err(|error| unreachable(&host, &error))?;
        let server = Endpoint { host, ..endpoint.clone() };
        let call = Call { method: Method::GET, path: String::new(), accept: None, from: 0, what };
        let response = accepted(&server, response, &call, auth).await?;
        let bytes = bounded(&server, response, MAX_TOKEN, "a token").await?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|_| content("its answer is no token".to_owned()))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| content("there is no token in its answer".to_owned()))?;
        let life = answer.expires_in.map_or(TOKEN_LIFE, Duration::from_secs);
        let until = Instant::now().checked_add(life.saturating_sub(TOKEN_MARGIN));
        Ok(Authorization { value: format!("Bearer {token}"), until })
    }
}

fn manifest_call<'a>(reference: &Reference, what: &'a str) -> Call<'a> {
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

fn parse_digest(text: &str, host: &str, what: &str) -> Result<Digest, RegistryError> {
    let digest = text.parse::<Digest>().ok().filter(|_| text.starts_with("sha256:"));
    digest.ok_or_else(|| RegistryError::Content {
        host: host.to_owned(),
        what: what.to_owned(),
        problem: format!("`{}` is no SHA-256 digest", text.escape_debug()),
    })
}

/// Refuses answers that say no.
async fn accepted(
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
    let said = bounded(endpoint, response, MAX_TOKEN, call.what).await.ok().and_then(|body| message(&body));
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
async fn bounded(
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let full = |text: &str| parse_reference(text).unwrap().whole();
        assert_eq!(full("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("user/app:1"), "docker.io/user/app:1");
        assert_eq!(full("localhost:5000/a/b/c"), "localhost:5000/a/b/c:latest");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(full(&format!("r.example.com/a:1@{digest}")), format!("r.example.com/a:1@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let problem = |text: &str| parse_reference(text).unwrap_err().to_string();
        insta::assert_snapshot!(problem("Busybox"), @"`Busybox` is no name of an image: repositories are written in lower case");
        insta::assert_snapshot!(problem("a:b:c"), @"`a:b:c` is no name of an image: invalid reference format");
        insta::assert_snapshot!(problem(""), @"`` is no name of an image: repository name must have at least one component");
        insta::assert_snapshot!(problem("a@sha256:00"), @"`a@sha256:00` is no name of an image: invalid reference format");
    }

    proptest! {
        #[test]
        fn a_name_never_leads_to_another_path(text in ".*") {
            if let Ok(reference) = parse_reference(&text) {
                let call = manifest_call(&reference, "");
                prop_assert!(!call.path.contains("..") && !call.path.contains(['?', '#', '%', '\\']));
            }
        }
    }
}
