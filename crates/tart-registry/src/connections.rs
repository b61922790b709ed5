//! HTTP clients: one for each registry, since certificates and plain HTTP are a matter of the registry.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Certificate, Client, Identity, redirect};
use url::Url;

use crate::{error::RegistryError, settings::RegistrySettings};

/// Most redirects of one call.
const REDIRECTS: usize = 5;

/// How long it may take to find out whether a registry speaks TLS.
const PROBE: Duration = Duration::from_secs(10);

/// A registry and how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `host[:port]`, for messages and keys.
    pub(crate) host: String,
    /// `https://host:port/`.
    pub(crate) base: Url,
    pub(crate) client: Client,
}

/// How long an endpoint is used. Then files of certificates are read again, and registries that jobs named once are
/// forgotten.
const LIFE: Duration = Duration::from_secs(5 * 60);

/// Clients by registry.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    known: Mutex<HashMap<String, (Instant, Endpoint)>>,
}

impl Connections {
    /// The way to a registry. Whether one that may speak plain HTTP does so is found out once.
    pub(crate) async fn endpoint(
        &self,
        host: &str,
        settings: &RegistrySettings,
    ) -> Result<Endpoint, RegistryError> {
        if let Some(known) = self.known(host) {
            return Ok(known);
        }
        let insecure = settings.insecure.iter().any(|name| name == host) || is_loopback(host);
        let client = client(host, insecure, settings)?;
        let secure = address("https", host)?;
        let base = if insecure { scheme(&client, host, secure).await? } else { secure };
        let endpoint = Endpoint { host: host.to_owned(), base, client };
        self.lock().insert(host.to_owned(), (Instant::now(), endpoint.clone()));
        Ok(endpoint)
    }

    fn known(&self, host: &str) -> Option<Endpoint> {
        let mut known = self.lock();
        known.retain(|_, (made, _)| made.elapsed() < LIFE);
        known.get(host).map(|(_, endpoint)| endpoint.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Endpoint)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a registry that may do either speaks HTTPS.
async fn scheme(client: &Client, host: &str, secure: Url) -> Result<Url, RegistryError> {
    match client.get(join(&secure, "v2/")).timeout(PROBE).send().await {
        Ok(_) => return Ok(secure),
        Err(error) => tracing::debug!(host, %error, "no HTTPS"),
    }
    let plain = address("http", host)?;
    match client.get(join(&plain, "v2/")).timeout(PROBE).send().await {
        Ok(_) => Ok(plain),
        Err(error) => Err(unreachable(host, &error)),
    }
}

pub(crate) fn address(scheme: &str, host: &str) -> Result<Url, RegistryError> {
    let text = format!("{scheme}://{host}/");
    Url::parse(&text)
        .map_err(|error| RegistryError::Name { name: host.to_owned(), problem: error.to_string() })
}

/// A path below a registry, or below the path of a mirror. It consists of checked names only.
pub(crate) fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

/// `host[:port]` of an address.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether a mirror is an address without anything that would be lost or shown.
pub(crate) fn check_mirror(mirror: &Url) -> Result<(), RegistryError> {
    let web = matches!(mirror.scheme(), "https" | "http") && mirror.has_host();
    let plain = mirror.username().is_empty() && mirror.password().is_none();
    if web && plain && mirror.query().is_none() && mirror.fragment().is_none() {
        return Ok(());
    }
    let host = mirror.host_str().unwrap_or_default();
    let text = format!("the mirror `{host}` is not `http(s)://HOST[:PORT][/PATH]`, without user and query");
    Err(RegistryError::Settings(text))
}

/// Docker takes all of loopback for insecure.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn client(host: &str, insecure: bool, settings: &RegistrySettings) -> Result<Client, RegistryError> {
    let mut roots = Vec::new();
    for path in &settings.ca_files {
        roots.extend(certificates(path)?);
    }
    let mut identity = None;
    if let Some(directory) = settings.certs_dir.as_ref().map(|directory| directory.join(host)) {
        let existing = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
        if let Some(path) = existing("ca.crt") {
            roots.extend(certificates(&path)?);
        }
        if let Some((cert, key)) = existing("client.cert").zip(existing("client.key")) {
            let pem = [read(&key)?, read(&cert)?].concat();
            identity = Some(Identity::from_pem(&pem).map_err(|error| unusable(&cert, &error))?);
        }
    }
    let builder = || {
        let mut builder = Client::builder()
            .user_agent(concat!("tart/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.idle_timeout)
            .redirect(redirects())
            .referer(false);
        if insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        // As Go's programs do: a proxy has another loopback.
        if is_loopback(host) {
            builder = builder.no_proxy();
        }
        match &identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        }
    };
    // A machine without certificates of its own still has those of the settings, or speaks plain HTTP.
    let client = builder().tls_certs_merge(roots.clone()).build();
    let client = client.or_else(|_| builder().tls_certs_only(roots).build());
    client.map_err(|error| RegistryError::Settings(format!("no HTTP client: {error}")))
}

/// Layers are often elsewhere. The library takes the credentials off when the host changes; an encrypted call stays
/// one.
fn redirects() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let downgrade = attempt.url().scheme() == "http"
            && attempt.previous().last().is_some_and(|previous| previous.scheme() == "https");
        if downgrade {
            attempt.error("it redirects from HTTPS to plain HTTP")
        } else if attempt.previous().len() > REDIRECTS {
            attempt.error("it redirects too often")
        } else {
            attempt.follow()
        }
    })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    Certificate::from_pem_bundle(&read(&path.to_owned())?).map_err(|error| unusable(path, &error))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|source| RegistryError::File { action: "read", path: path.clone(), source })
}

fn unusable(path: &Path, error: &reqwest::Error) -> RegistryError {
    RegistryError::Settings(format!("{} is not usable PEM: {}", path.display(), causes(error)))
}

pub(crate) fn unreachable(host: &str, error: &reqwest::Error) -> RegistryError {
    let problem = causes(error);
    // The types of these errors are of a library below, whose version is not ours to choose.
    let hint = if problem.contains("invalid peer certificate") {
        "if it is the right one, put the certificate of its authority into `ca.crt` of its directory in \
         `registry_certs_dir`"
    } else if problem.contains("InvalidContentType") {
        "it does not speak TLS; if that is right, list it in `insecure_registries`"
    } else {
        return RegistryError::Unreachable { host: host.to_owned(), problem };
    };
    RegistryError::Unsafe { host: host.to_owned(), problem, hint }
}

/// The innermost causes, without the address, which may hold a signature.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    if texts.is_empty() {
        texts.push(if error.is_timeout() { "no answer in time".to_owned() } else { "no answer".to_owned() });
    }
    texts.dedup();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_insecure_as_for_docker() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "10.0.0.1:5000", "localhost.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
