//! What a session connects a person with.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// A place with shells in it.
#[async_trait]
pub trait Terminal: Send + Sync {
    /// Starts a shell on a terminal of its own. It ends when what this returns is dropped.
    ///
    /// # Errors
    /// Why there is none, for the runner's log.
    async fn connect(&self) -> Result<Box<dyn TerminalOutput>, String>;
}

/// What a shell prints.
#[async_trait]
pub trait TerminalOutput: Send {
    /// The next bytes; `None` once the shell has ended. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Bytes>;

    /// The way to the shell.
    fn input(&self) -> Arc<dyn TerminalInput>;
}

/// The way to a shell. What comes after its end is lost.
#[async_trait]
pub trait TerminalInput: Send + Sync {
    /// Gives it bytes, as typed. Waits until they are taken.
    async fn write(&self, bytes: Bytes);

    /// Tells it the size of its terminal, in characters.
    async fn resize(&self, rows: u16, cols: u16);
}
