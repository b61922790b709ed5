//! Control of a running command.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tart_proto::{
    MuxError, StreamWriter,
    message::{CHANNEL_STDIN, HostControl, encode},
};

use crate::{GuestError, session::Session};

/// Controls a running command from anywhere. It does not keep the command alive. Everything fails with
/// [`GuestError::Ended`] once the command has ended.
#[derive(Debug, Clone)]
pub struct CommandControl {
    session: Arc<Session>,
    writer: StreamWriter,
}

impl CommandControl {
    pub(crate) fn new(session: Arc<Session>, writer: StreamWriter) -> Self {
        Self { session, writer }
    }

    /// Sends TERM to everything the command started, and KILL to what is left after the grace. The end is then
    /// reported as usual.
    ///
    /// # Errors
    /// If the command or session has ended.
    pub async fn cancel(&self, grace: Duration) -> Result<(), GuestError> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.send(HostControl::Cancel { grace_ms }).await
    }

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    /// If the command or session has ended.
    pub async fn signal(&self, number: i32) -> Result<(), GuestError> {
        self.send(HostControl::Signal(number)).await
    }

    /// Tells the command's terminal its size, in characters.
    ///
    /// # Errors
    /// If the command or session has ended.
    pub async fn resize(&self, rows: u16, cols: u16) -> Result<(), GuestError> {
        self.send(HostControl::Resize { rows, cols }).await
    }

    /// Writes to the command's standard input. It waits until the command reads.
    ///
    /// # Errors
    /// If the command, its input or the session has ended.
    pub async fn write_stdin(&self, bytes: Bytes) -> Result<(), GuestError> {
        self.writer.data(CHANNEL_STDIN, bytes).await.map_err(|e| self.failed(e))
    }

    /// Ends the command's standard input after what was written. A second time does nothing.
    ///
    /// # Errors
    /// If the command or session has ended.
    pub async fn close_stdin(&self) -> Result<(), GuestError> {
        self.writer.eof(CHANNEL_STDIN).await.map_err(|e| self.failed(e))
    }

    /// Kills the command's process group at once: nobody wants to know how it ends.
    pub(crate) fn abandon(&self) {
        self.writer.reset("nobody waits for the command");
    }

    async fn send(&self, control: HostControl) -> Result<(), GuestError> {
        self.writer.message(encode(&control)?).await.map_err(|e| self.failed(e))
    }

    fn failed(&self, error: MuxError) -> GuestError {
        match (self.session.lost(), error) {
            (Some(lost), _) => lost,
            (None, MuxError::Reset(_) | MuxError::StreamClosed) => GuestError::Ended,
            (None, error) => error.into(),
        }
    }
}
