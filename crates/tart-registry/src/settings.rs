//! How registries are reached.

use std::{path::PathBuf, time::Duration};

use url::Url;

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// `host[:port]` of registries that may speak plain HTTP, or HTTPS with any certificate. Those of loopback always
    /// may, as for Docker.
    pub insecure: Vec<String>,
    /// A directory with `HOST[:PORT]/ca.crt` and `client.cert` with `client.key`, as Docker's `/etc/docker/certs.d`.
    pub certs_dir: Option<PathBuf>,
    /// Certificates of authorities that are trusted for all registries, besides those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Registries that are asked for Docker Hub's images first.
    pub mirrors: Vec<Url>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a registry may send nothing.
    pub idle_timeout: Duration,
    /// How often a call is tried in all.
    pub attempts: u32,
    /// The pause after the first failure; it doubles after each.
    pub backoff: Duration,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            certs_dir: None,
            ca_files: Vec::new(),
            mirrors: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            attempts: 5,
            backoff: Duration::from_millis(500),
        }
    }
}
