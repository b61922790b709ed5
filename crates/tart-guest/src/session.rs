//! What the handles of a session share, and the dispatch of what the guest opens.

use std::sync::Arc;

use bytes::Bytes;
use tart_proto::{
    Incoming, Mux, MuxError, Stream,
    message::{GuestOpen, HostOpen, decode, encode},
};
use tokio::task::JoinSet;

use crate::{GuestError, Relay};

/// A session; its connection and relays end with it.
#[derive(Debug)]
pub(crate) struct Session {
    mux: Mux,
    /// Aborts the dispatcher, and with it all relays, when dropped.
    _dispatcher: JoinSet<()>,
}

impl Session {
    pub(crate) fn start(mux: Mux, incoming: Incoming, relay: Arc<dyn Relay>) -> Self {
        let mut dispatcher = JoinSet::new();
        dispatcher.spawn(dispatch(mux.clone(), incoming, relay));
        Self { mux, _dispatcher: dispatcher }
    }

    pub(crate) async fn open(&self, request: &HostOpen) -> Result<Stream, GuestError> {
        Ok(self.mux.open(encode(request)?).await?)
    }

    pub(crate) async fn ping(&self) -> Result<(), GuestError> {
        Ok(self.mux.ping().await?)
    }

    pub(crate) async fn closed(&self) -> GuestError {
        self.mux.closed().await.into()
    }

    /// Why the session ended, if it has.
    pub(crate) fn lost(&self) -> Option<GuestError> {
        self.mux.end().map(GuestError::from)
    }

    /// Ends the session of a guest that broke the protocol.
    pub(crate) fn violation(&self, what: &'static str) -> GuestError {
        let error = MuxError::Protocol(what);
        self.mux.abort(error.clone());
        error.into()
    }
}

/// Gives the guest's connections to the relay until the session ends.
async fn dispatch(mux: Mux, mut incoming: Incoming, relay: Arc<dyn Relay>) {
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            opened = incoming.next() => {
                let Some((payload, stream)) = opened else { return };
                match connection(&payload) {
                    Ok(forward) => {
                        let relay = relay.clone();
                        relays.spawn(async move { relay.serve(forward, stream).await });
                    }
                    Err(what) => return mux.abort(MuxError::Protocol(what)),
                }
            }
            Some(served) = relays.join_next(), if !relays.is_empty() => {
                if let Err(error) = served {
                    tracing::error!(%error, "a relay failed");
                }
            }
        }
    }
}

/// The listener whose connection a stream is.
fn connection(payload: &Bytes) -> Result<u32, &'static str> {
    match decode::<GuestOpen>(payload) {
        Ok(GuestOpen::Connect { forward }) => Ok(forward),
        Ok(GuestOpen::Hello(_)) => Err("the agent greeted twice"),
        Err(_) => Err("malformed request of the guest"),
    }
}
