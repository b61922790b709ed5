//! The client of one GitLab server.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use crate::address::api_root;
use crate::clock::{Clock, SystemClock};
use crate::error::ApiError;
use crate::token::Token;
use crate::transport::{TlsFiles, Transport};

/// The default of `connection_max_age`.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// What the server is told of this program in `User-Agent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its name, one word.
    pub name: String,
    /// Its version, one word.
    pub version: String,
    /// The branch or revision it was built from.
    pub branch: String,
}

impl Default for Product {
    fn default() -> Self {
        Self { name: "tart".into(), version: env!("CARGO_PKG_VERSION").into(), branch: "HEAD".into() }
    }
}

impl Product {
    /// `NAME VERSION (BRANCH; LANGUAGE; OS/ARCH)`.
    pub fn user_agent(&self) -> String {
        // A header takes visible ASCII; the separators keep their meaning.
        let word = |text: &str| {
            let word: String =
                text.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, ';' | '(' | ')')).collect();
            if word.is_empty() { "unknown".to_owned() } else { word }
        };
        let (name, version, branch) = (word(&self.name), word(&self.version), word(&self.branch));
        format!("{name} {version} ({branch}; rust; {}/{})", platform(), architecture())
    }
}

/// The operating system, as GitLab names it in `info.platform`.
pub fn platform() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The architecture, as GitLab names it in `info.architecture`.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The configured URL: a trailing `/` or `/ci` is ignored.
    pub url: String,
    /// The files of TLS; they are read again when they change.
    pub tls: TlsFiles,
    /// The sender in `User-Agent`.
    pub product: Product,
    /// After this time connections are replaced, so that new certificates and balancers are noticed.
    pub connection_max_age: Duration,
    /// What waits between attempts.
    pub clock: Arc<dyn Clock>,
}

impl ClientOptions {
    /// The defaults for a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: TlsFiles::default(),
            product: Product::default(),
            connection_max_age: DEFAULT_MAX_AGE,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The client of one GitLab server for one runner token. Cheap to clone; clones share their connections and what the
/// server last said of its queue.
///
/// Every call has the time limits and the retries of protocol reference section 0. The proxy variables of the
/// environment are honoured. Dropping the future of a call cancels it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    api_root: Url,
    transport: Transport,
    clock: Arc<dyn Clock>,
    last_update: Mutex<LastUpdate>,
}

/// The last `X-GitLab-Last-Update`, and the token of the poll it belongs to.
#[derive(Default)]
struct LastUpdate {
    token: Token,
    value: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("api_root", &self.inner.api_root.as_str())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client; nothing is connected, and no file read, before the first call.
    ///
    /// # Errors
    /// [`ApiError::Client`] when the URL is not usable.
    pub fn new(options: ClientOptions) -> Result<Self, ApiError> {
        let api_root = api_root(&options.url)?;
        let transport = Transport::new(options.tls, options.product.user_agent(), options.connection_max_age);
        let inner = Inner {
            api_root,
            transport,
            clock: options.clock,
            last_update: Mutex::new(LastUpdate::default()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The host of the server, as it is written in a URL.
    pub fn host(&self) -> &str {
        self.inner.api_root.host_str().unwrap_or_default()
    }

    pub(crate) fn api_root(&self) -> &Url {
        &self.inner.api_root
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    /// Notes what the server says of the queue of the token that polls.
    pub(crate) fn remember_last_update(&self, value: &str) {
        self.last_update_slot().value = Some(value.to_owned());
    }

    /// What the server last said to this token; another token starts anew.
    pub(crate) fn last_update(&self, token: &Token) -> Option<String> {
        let mut slot = self.last_update_slot();
        if slot.token != *token {
            *slot = LastUpdate { token: token.clone(), value: None };
        }
        slot.value.clone()
    }

    fn last_update_slot(&self) -> std::sync::MutexGuard<'_, LastUpdate> {
        self.inner.last_update.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_agent_has_the_form_of_gitlab_runners() {
        let product = Product { name: "ta rt".into(), version: "1.0".into(), branch: "a;b(c)\n".into() };
        let text = product.user_agent().replace(architecture(), "ARCH");
        assert_eq!(text, format!("tart 1.0 (abc; rust; {}/ARCH)", platform()));
    }

    #[test]
    fn another_token_does_not_inherit_the_state_of_the_queue() {
        let client = Client::new(ClientOptions::new("http://localhost")).expect("a good URL");
        let (first, second) = (Token::new("one"), Token::new("two"));
        assert_eq!(client.last_update(&first), None);
        client.remember_last_update("abc");
        assert_eq!(client.last_update(&first).as_deref(), Some("abc"));
        assert_eq!(client.last_update(&second), None);
        assert_eq!(client.last_update(&first), None);
    }
}
