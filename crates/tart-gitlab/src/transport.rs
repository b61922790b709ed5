//! Connections: TLS files, their rotation, and the age of connections.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::{Certificate, Identity};

use crate::error::{ApiError, transport};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A whole call, from the name resolution to the last byte of the answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The files of TLS, all PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of authorities that are trusted besides those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate shown to the server, with its intermediates.
    pub cert: Option<PathBuf>,
    /// The private key of [`Self::cert`].
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// Fills what is not set with `<host>.crt`, `<host>.auth.crt` and `<host>.auth.key` of a directory, if they exist.
    pub fn or_in_directory(mut self, directory: &Path, host: &str) -> Self {
        // A host is a name of one path component; an address in brackets is used as it is written.
        if host.contains(['/', '\0']) {
            return self;
        }
        let existing = |suffix: &str| {
            let path = directory.join(format!("{host}{suffix}"));
            path.is_file().then_some(path)
        };
        self.ca = self.ca.or_else(|| existing(".crt"));
        if self.cert.is_none() && self.key.is_none() {
            let pair = existing(".auth.crt").zip(existing(".auth.key"));
            (self.cert, self.key) = pair.unzip();
        }
        self
    }

    /// What changes when a file is replaced.
    fn stamps(&self) -> Stamps {
        [&self.ca, &self.cert, &self.key].map(|path| {
            let metadata = std::fs::metadata(path.as_ref()?).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

type Stamps = [Option<(SystemTime, u64)>; 3];

/// A pool of connections.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) http: reqwest::Client,
    /// The content of [`TlsFiles::ca`].
    pub(crate) ca_pem: Option<Arc<str>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connections").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Current {
    connections: Connections,
    since: Instant,
    stamps: Stamps,
}

/// Makes pools of connections, a new one when the files of TLS change or the connections are too old.
#[derive(Debug)]
pub(crate) struct Transport {
    tls: TlsFiles,
    user_agent: String,
    max_age: Duration,
    current: Mutex<Option<Current>>,
}

impl Transport {
    pub(crate) fn new(tls: TlsFiles, user_agent: String, max_age: Duration) -> Self {
        Self { tls, user_agent, max_age, current: Mutex::new(None) }
    }

    /// The pool of now. Calls under way keep the one they have.
    pub(crate) fn connections(&self) -> Result<Connections, ApiError> {
        let stamps = self.tls.stamps();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = &*current
            && current.stamps == stamps
            && current.since.elapsed() < self.max_age
        {
            return Ok(current.connections.clone());
        }
        match (self.build(), &mut *current) {
            (Ok(connections), current) => {
                *current = Some(Current { connections: connections.clone(), since: Instant::now(), stamps });
                Ok(connections)
            }
            // The files may be half-way through their replacement.
            (Err(error), Some(current)) => {
                tracing::warn!("the previous TLS files stay in use: {error}");
                current.stamps = stamps;
                current.since = Instant::now();
                Ok(current.connections.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn build(&self) -> Result<Connections, ApiError> {
        let ca = self.tls.ca.as_deref().map(read).transpose()?;
        let roots = match &ca {
            Some(pem) => Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| unusable("the CA file", self.tls.ca.as_deref(), error))?,
            None => Vec::new(),
        };
        let identity = match (&self.tls.cert, &self.tls.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let pem = format!("{}\n{}", read(key)?, read(cert)?);
                let identity = Identity::from_pem(pem.as_bytes())
                    .map_err(|error| unusable("the client certificate", Some(cert), error))?;
                Some(identity)
            }
            _ => {
                return Err(ApiError::Client(
                    "a client certificate needs both tls-cert-file and tls-key-file".into(),
                ));
            }
        };
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(&self.user_agent)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TOTAL_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .tcp_keepalive(KEEP_ALIVE)
                .tls_info(true);
            match &identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            }
        };
        // A machine without certificates of its own still has the CA file, or speaks plain HTTP.
        let http = builder()
            .tls_certs_merge(roots.clone())
            .build()
            .or_else(|_| builder().tls_certs_only(roots).build())
            .map_err(|error| ApiError::Client(transport(error).to_string()))?;
        Ok(Connections { http, ca_pem: ca.map(Arc::from) })
    }
}

fn read(path: &Path) -> Result<String, ApiError> {
    let failed = |why: String| ApiError::Client(format!("cannot read {}: {why}", path.display()));
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

fn unusable(what: &str, path: Option<&Path>, error: reqwest::Error) -> ApiError {
    let path = path.unwrap_or(Path::new("")).display();
    ApiError::Client(format!("{what} {path} is not usable PEM: {}", transport(error)))
}
