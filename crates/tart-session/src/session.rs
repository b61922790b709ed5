//! What GitLab is offered with a request for a job, and what becomes of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use crate::{SessionError, Terminal};

/// Random bytes of an endpoint, and of a token.
const RANDOM: usize = 32;

/// What a job's server is told of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// `https://<address>/session/<64 hex digits>`.
    pub url: String,
    /// The certificate that the server shows, PEM.
    pub certificate: String,
    /// What the `Authorization` header has to be: 64 hex digits.
    pub authorization: String,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The sessions that can be reached, by their endpoints' last parts.
pub(crate) type Sessions = Mutex<HashMap<String, Arc<Shared>>>;

/// What a session and its connections share.
pub(crate) struct Shared {
    token: String,
    terminal: watch::Sender<Option<Arc<dyn Terminal>>>,
    connected: watch::Sender<bool>,
    /// Why the connection has to end.
    end: watch::Sender<Option<String>>,
}

impl Shared {
    /// Whether a header is the token. It takes as long whatever is wrong with it.
    pub(crate) fn authorizes(&self, header: &[u8]) -> bool {
        self.token.as_bytes().ct_eq(header).into()
    }

    /// The terminal, once there is one.
    pub(crate) async fn terminal(&self) -> Option<Arc<dyn Terminal>> {
        let mut terminal = self.terminal.subscribe();
        let there = terminal.wait_for(Option::is_some).await;
        there.ok().and_then(|terminal| terminal.clone())
    }

    /// Takes the place of the one connection.
    pub(crate) fn connect(self: &Arc<Self>) -> Option<Connected> {
        let free = self.connected.send_if_modified(|connected| !std::mem::replace(connected, true));
        free.then(|| Connected { shared: Arc::clone(self), end: self.end.subscribe() })
    }
}

/// The one connection of a session, until it is dropped.
pub(crate) struct Connected {
    shared: Arc<Shared>,
    end: watch::Receiver<Option<String>>,
}

impl Connected {
    /// Waits until the connection has to end, and says why.
    pub(crate) async fn ended(&mut self) -> String {
        match self.end.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.shared.connected.send_replace(false);
    }
}

/// A session on offer. It is reached from [`Self::open`] until it is dropped.
pub struct Session {
    name: String,
    offer: Offer,
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
}

impl Session {
    pub(crate) fn new(base: &str, certificate: &str, sessions: Arc<Sessions>) -> Result<Self, SessionError> {
        let (name, token) = (random()?, random()?);
        let offer = Offer {
            url: format!("{base}/session/{name}"),
            certificate: certificate.to_owned(),
            authorization: token.clone(),
        };
        let shared = Arc::new(Shared {
            token,
            terminal: watch::Sender::new(None),
            connected: watch::Sender::new(false),
            end: watch::Sender::new(None),
        });
        Ok(Self { name, offer, shared, sessions })
    }

    /// What a job's server is told.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Lets it be reached: there is a job.
    pub fn open(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(self.name.clone(), Arc::clone(&self.shared));
    }

    /// Gives whoever connects a terminal. Those who came too early have waited for it.
    pub fn set_terminal(&self, terminal: Arc<dyn Terminal>) {
        self.shared.terminal.send_replace(Some(terminal));
    }

    /// Whether somebody is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.shared.connected.borrow()
    }

    /// Waits until nobody is connected.
    pub async fn disconnected(&self) {
        let mut connected = self.shared.connected.subscribe();
        // The sender lives as long as this.
        let _there = connected.wait_for(|connected| !connected).await;
    }

    /// Takes the terminal away, and ends the connection. The reason is shown to who is connected.
    pub fn close(&self, reason: &str) {
        self.shared.terminal.send_replace(None);
        self.shared.end.send_replace(Some(reason.to_owned()));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close("the job is over");
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// A name or token that nobody guesses, in hex digits.
fn random() -> Result<String, SessionError> {
    let mut bytes = [0; RANDOM];
    getrandom::fill(&mut bytes).map_err(SessionError::Randomness)?;
    Ok(hex::encode(bytes))
}
