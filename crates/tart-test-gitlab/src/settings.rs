//! How a server is made.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The settings of a [`crate::TestGitlab`]; the default is plain HTTP on a free port of 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) bind: SocketAddr,
    pub(crate) external_host: Option<String>,
    pub(crate) tls: bool,
    pub(crate) require_client_certificate: bool,
    pub(crate) long_poll: Duration,
    pub(crate) ack_window: Duration,
    pub(crate) update_interval: u64,
    pub(crate) max_artifact_bytes: usize,
    pub(crate) direct_download: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            external_host: None,
            tls: false,
            require_client_certificate: false,
            long_poll: Duration::from_secs(50),
            ack_window: Duration::from_secs(120),
            update_interval: 1,
            max_artifact_bytes: 100 << 20,
            direct_download: false,
        }
    }
}

impl Options {
    /// The address to listen on; port 0 takes a free one.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = address;
        self
    }

    /// The host name or address in every URL the server gives out, when clients do not reach it by the
    /// address it listens on.
    pub fn external_host(mut self, host: impl Into<String>) -> Self {
        self.external_host = Some(host.into());
        self
    }

    /// Serves HTTPS with a certificate of an authority made for this server: [`crate::TestGitlab::ca_pem`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Serves HTTPS and refuses clients without the certificate of [`crate::TestGitlab::client_identity`].
    pub fn require_client_certificate(mut self) -> Self {
        self.tls = true;
        self.require_client_certificate = true;
        self
    }

    /// How long `jobs/request` with a current `last_update` is held; zero answers 204 at once.
    pub fn long_poll(mut self, hold: Duration) -> Self {
        self.long_poll = hold;
        self
    }

    /// How long an assigned job waits for its first `running` or `pending` update before it is given to
    /// someone else.
    pub fn ack_window(mut self, window: Duration) -> Self {
        self.ack_window = window;
        self
    }

    /// The first value of `X-GitLab-Trace-Update-Interval` in seconds; zero sends no header.
    pub fn update_interval(mut self, seconds: u64) -> Self {
        self.update_interval = seconds;
        self
    }

    /// The biggest artifact that is taken; a bigger one is answered 413.
    pub fn max_artifact_bytes(mut self, bytes: usize) -> Self {
        self.max_artifact_bytes = bytes;
        self
    }

    /// Answers `direct_download=true` with a redirection to another origin, as object storage does.
    pub fn direct_download(mut self) -> Self {
        self.direct_download = true;
        self
    }
}

/// What is fixed once the server listens.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Scheme, host and port, without a trailing slash.
    pub(crate) url: String,
    /// The same by the address it listens at.
    pub(crate) local_url: String,
    /// The origin of stored artifacts: the same host at another port.
    pub(crate) storage_url: String,
    pub(crate) registration_token: String,
    pub(crate) private_token: String,
    pub(crate) long_poll: Duration,
    pub(crate) ack_window: Duration,
    pub(crate) update_interval: u64,
    pub(crate) max_artifact_bytes: usize,
    pub(crate) direct_download: bool,
}
