//! The two halves of a stream.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Connection, MuxError, state::Signals, wait};
use crate::{
    frame::{Frame, FrameKind},
    limits::{MAX_DATA, MAX_MESSAGE},
};

/// A stream within a connection.
#[derive(Debug)]
pub struct Stream {
    reader: StreamReader,
    writer: StreamWriter,
}

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamItem {
    /// Some bytes of a channel, up to [`MAX_DATA`].
    Data {
        /// The channel.
        channel: u8,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Nothing more comes on a channel.
    Eof {
        /// The channel.
        channel: u8,
    },
    /// A typed event or control.
    Message(Bytes),
    /// The peer has closed its direction; nothing more comes, and asking again gives this again.
    Closed,
    /// The stream, or the whole connection, failed or was dropped; asking again gives this again. The text is the
    /// peer's and may hold anything.
    Reset(String),
}

impl Stream {
    pub(super) fn new(connection: &Arc<Connection>, id: u32, signals: Signals) -> Self {
        Self {
            reader: StreamReader { connection: connection.clone(), id, signals: signals.clone() },
            writer: StreamWriter { connection: connection.clone(), id, signals },
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.reader.id
    }

    /// Gives the two directions to two owners.
    #[must_use]
    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

/// The receiving direction of a stream. Once it is dropped, what the peer sends is thrown away.
#[derive(Debug)]
pub struct StreamReader {
    connection: Arc<Connection>,
    id: u32,
    signals: Signals,
}

impl StreamReader {
    /// The next item; the credit of data is given back to the peer. Dropping the future loses nothing.
    pub async fn next(&mut self) -> StreamItem {
        self.take(true).await
    }

    /// As [`StreamReader::next`], but the credit of data stays spent until [`StreamReader::consumed`] gives it back.
    /// So an owner that keeps data for later still sees messages that come after it, and is sent no more than the
    /// credit of a stream.
    pub async fn next_on_credit(&mut self) -> StreamItem {
        self.take(false).await
    }

    /// Gives the credit of one data item of `len` bytes back.
    pub fn consumed(&self, len: usize) {
        self.connection.shared.lock().give_credit(self.id, len);
        self.connection.shared.write.notify_one();
    }

    async fn take(&mut self, give_credit: bool) -> StreamItem {
        let shared = &self.connection.shared;
        let item = wait(&self.signals.readable, || shared.lock().take(self.id, give_credit)).await;
        if give_credit && matches!(item, StreamItem::Data { .. }) {
            shared.write.notify_one();
        }
        item
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.connection.shared.lock().drop_reader(self.id);
        self.connection.shared.write.notify_one();
    }
}

/// The sending direction of a stream. Clones send on the same one. When the last is dropped and none was closed,
/// the stream is reset.
#[derive(Debug)]
pub struct StreamWriter {
    connection: Arc<Connection>,
    id: u32,
    signals: Signals,
}

impl StreamWriter {
    /// Sends bytes of a channel, in as many frames as they need. It waits for credit: until the peer has read most of
    /// what was sent before. When the future is dropped, a part may have been sent.
    ///
    /// # Errors
    /// If the channel, stream or connection has ended.
    pub async fn data(&self, channel: u8, mut bytes: Bytes) -> Result<(), MuxError> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(MAX_DATA));
            let mut payload = BytesMut::with_capacity(part.len() + 1);
            payload.put_u8(channel);
            payload.put_slice(&part);
            self.send(FrameKind::Data, payload.freeze()).await?;
        }
        Ok(())
    }

    /// Ends a channel; a second time does nothing.
    ///
    /// # Errors
    /// If the stream or connection has ended.
    pub async fn eof(&self, channel: u8) -> Result<(), MuxError> {
        self.send(FrameKind::Eof, Bytes::copy_from_slice(&[channel])).await
    }

    /// Sends a message. It needs no credit, but waits while earlier frames of the stream wait to be written.
    ///
    /// # Errors
    /// If the message is over [`MAX_MESSAGE`], or the stream or connection has ended.
    pub async fn message(&self, bytes: Bytes) -> Result<(), MuxError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(MuxError::TooLarge(bytes.len()));
        }
        self.send(FrameKind::Message, bytes).await
    }

    /// Ends this direction well, after everything sent before. It does not wait for the peer.
    ///
    /// # Errors
    /// If the stream or connection has ended.
    pub async fn close(self) -> Result<(), MuxError> {
        let shared = &self.connection.shared;
        let closed = shared.lock().close(self.id);
        shared.write.notify_one();
        closed
    }

    /// Ends both directions with a reason, of which the peer gets at most [`crate::limits::MAX_REASON`] bytes. What
    /// waits to be written is thrown away. A stream that has been closed stays so.
    pub fn reset(&self, reason: &str) {
        self.connection.shared.lock().reset(self.id, reason);
        self.connection.shared.write.notify_one();
    }

    async fn send(&self, kind: FrameKind, payload: Bytes) -> Result<(), MuxError> {
        let shared = &self.connection.shared;
        let frame = Frame::new(kind, self.id, payload);
        let sent = wait(&self.signals.writable, || shared.lock().send(self.id, &frame)).await;
        shared.write.notify_one();
        sent
    }
}

impl Clone for StreamWriter {
    fn clone(&self) -> Self {
        self.connection.shared.lock().clone_writer(self.id);
        Self { connection: self.connection.clone(), id: self.id, signals: self.signals.clone() }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.connection.shared.lock().drop_writer(self.id);
        self.connection.shared.write.notify_one();
    }
}
