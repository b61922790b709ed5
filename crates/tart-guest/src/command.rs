//! A running command.

use std::sync::Arc;

use bytes::Bytes;
use tart_proto::{
    StreamItem, StreamReader,
    message::{CHANNEL_STDERR, CHANNEL_STDOUT, Exec, Exited, GuestEvent, HostOpen},
};

use crate::{
    CommandControl, GuestError,
    request::{ANSWER_LIMIT, next_event, parse, unexpected, within},
    session::Session,
};

/// A running command. Dropped before its end, it is killed.
#[derive(Debug)]
pub struct Command {
    /// Its process id in the guest.
    pub pid: u32,
    session: Arc<Session>,
    reader: StreamReader,
    control: CommandControl,
    exited: Option<Exited>,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEvent {
    /// It wrote to its standard output or its terminal, or, when both are merged, to either output. Up to 64 KiB,
    /// cut anywhere.
    Stdout(Bytes),
    /// It wrote to its standard error.
    Stderr(Bytes),
    /// It ended, and all of its output has been given. The numbers are the guest's word.
    Exited(Exited),
}

impl Command {
    pub(crate) async fn start(session: &Arc<Session>, exec: &Exec) -> Result<Self, GuestError> {
        let (mut reader, writer) = session.open(&HostOpen::Exec(exec.clone())).await?.split();
        let control = CommandControl::new(session.clone(), writer);
        match within("start a command", ANSWER_LIMIT, next_event(session, &mut reader)).await? {
            GuestEvent::Started { pid } => {
                Ok(Self { pid, session: session.clone(), reader, control, exited: None })
            }
            _ => Err(session.violation("an answer that does not fit its request")),
        }
    }

    /// The next event; after the end the end again. Output waits in the guest, and its command with it, until it is
    /// asked for here. Dropping the future loses nothing.
    ///
    /// # Errors
    /// If the session is lost, or the guest lost track of the command.
    pub async fn next(&mut self) -> Result<CommandEvent, GuestError> {
        if let Some(exited) = self.exited {
            return Ok(CommandEvent::Exited(exited));
        }
        loop {
            match self.reader.next().await {
                StreamItem::Data { channel: CHANNEL_STDOUT, bytes } => {
                    return Ok(CommandEvent::Stdout(bytes));
                }
                StreamItem::Data { channel: CHANNEL_STDERR, bytes } => {
                    return Ok(CommandEvent::Stderr(bytes));
                }
                StreamItem::Eof { channel: CHANNEL_STDOUT | CHANNEL_STDERR } => {}
                StreamItem::Message(bytes) => match parse(&self.session, &bytes)? {
                    GuestEvent::Exited(exited) => {
                        self.exited = Some(exited);
                        return Ok(CommandEvent::Exited(exited));
                    }
                    _ => return Err(self.session.violation("an event that does not belong to a command")),
                },
                item => return Err(unexpected(&self.session, item)),
            }
        }
    }

    /// Controls it from elsewhere.
    #[must_use]
    pub fn control(&self) -> CommandControl {
        self.control.clone()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.exited.is_none() {
            self.control.abandon();
        }
    }
}
