//! A tokio multiplexer with per-stream credits, the same code on both ends.
//!
//! One task owns the connection: it reads frames and never waits for whoever reads a stream, and it writes what the
//! streams have queued, small frames (credits, messages, ends) ahead of bulk data, streams in turn. What a stream may
//! have in flight is bounded by its credit, which the receiver gives back as it consumes; so a slow reader holds up
//! its own writer and nobody else, and memory stays within [`crate::limits`] whatever the peer does.
//!
//! A stream has two directions. Closing one leaves the other; a reset ends both. A stream that its owner drops
//! without closing it is reset; one that was closed but whose reader is dropped before the peer has closed too is
//! reset after the close, which tells the peer's writer to stop and costs its reader nothing.

mod driver;
mod error;
mod handshake;
mod state;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use crate::{frame::Decoder, limits::MAX_MESSAGE};
use state::State;

pub use error::MuxError;
pub use handshake::{answer, handshake_guest, handshake_host};
pub use stream::{Stream, StreamItem, StreamReader, StreamWriter};

/// Which end of the connection this is. It decides the stream ids, see [`crate::Frame::stream`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens odd streams.
    Host,
    /// Opens even streams.
    Guest,
}

/// Opens streams. The connection ends when every clone of it, the [`Incoming`] and all streams are dropped.
#[derive(Debug, Clone)]
pub struct Mux {
    connection: Arc<Connection>,
}

/// The streams that the peer opens. When it is dropped, further ones are refused.
#[derive(Debug)]
pub struct Incoming {
    connection: Arc<Connection>,
}

impl Mux {
    /// Starts a session on a connection after its handshake; `decoder` is what the handshake gave. It must be called
    /// within a tokio runtime. Both halves are dropped before [`Mux::closed`] tells of the end.
    pub fn start<R, W>(reader: R, writer: W, role: Role, decoder: Decoder) -> (Self, Incoming)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared::new(role));
        // The task ends by itself: with the connection, or when the last handle is dropped.
        drop(tokio::spawn(driver::run(shared.clone(), reader, writer, decoder)));
        let connection = Arc::new(Connection { shared });
        (Self { connection: connection.clone() }, Incoming { connection })
    }

    /// Opens a stream with a request. It does not wait for the peer.
    ///
    /// # Errors
    /// If the request is over [`MAX_MESSAGE`], too many streams are open, or the connection has ended.
    pub async fn open(&self, payload: Bytes) -> Result<Stream, MuxError> {
        if payload.len() > MAX_MESSAGE {
            return Err(MuxError::TooLarge(payload.len()));
        }
        let (id, signals) = self.connection.shared.lock().open(payload)?;
        self.connection.shared.write.notify_one();
        Ok(Stream::new(&self.connection, id, signals))
    }

    /// Waits until the peer has answered a ping: it is alive and reads.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn ping(&self) -> Result<(), MuxError> {
        let shared = &self.connection.shared;
        let number = shared.lock().ping();
        shared.write.notify_one();
        wait(&shared.events, || {
            let state = shared.lock();
            if let Some(end) = state.end() {
                return Some(Err(end));
            }
            (state.last_pong() >= number).then_some(Ok(()))
        })
        .await
    }

    /// Ends the connection, whose other handles see `reason`.
    pub fn abort(&self, reason: MuxError) {
        let shared = &self.connection.shared;
        shared.lock().abort(reason);
        shared.abandoned.notify_one();
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<MuxError> {
        self.connection.shared.lock().end()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> MuxError {
        let shared = &self.connection.shared;
        wait(&shared.events, || shared.lock().end()).await
    }
}

impl Incoming {
    /// The next stream that the peer opened, with its request; `None` when the connection has ended. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<(Bytes, Stream)> {
        let shared = &self.connection.shared;
        let (payload, id, signals) = wait(&shared.events, || {
            let mut state = shared.lock();
            match state.accept() {
                Some(accepted) => Some(Some(accepted)),
                None => state.end().map(|_| None),
            }
        })
        .await?;
        Some((payload, Stream::new(&self.connection, id, signals)))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.connection.shared.lock().refuse_all();
        self.connection.shared.write.notify_one();
    }
}

/// What all handles of a connection hold; the connection ends with it.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.abandoned.notify_one();
    }
}

/// What the handles and the task of a connection share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    write: Notify,
    /// A stream came, a ping was answered, or the connection ended.
    events: Notify,
    /// Nobody holds the connection any more.
    abandoned: Notify,
}

impl Shared {
    fn new(role: Role) -> Self {
        Self {
            state: Mutex::new(State::new(role)),
            write: Notify::new(),
            events: Notify::new(),
            abandoned: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries until there is a value, again after each notice. No notice between a try and the wait is lost.
async fn wait<T>(notify: &Notify, mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        let mut notified = std::pin::pin!(notify.notified());
        notified.as_mut().enable();
        if let Some(value) = attempt() {
            return value;
        }
        notified.await;
    }
}

#[cfg(test)]
mod tests;
