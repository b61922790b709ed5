//! A listener in the guest.

use std::sync::Arc;

use tart_proto::{
    StreamReader, StreamWriter,
    message::{GuestEvent, HostOpen, Listen},
};

use crate::{
    GuestError,
    request::{ANSWER_LIMIT, next_event, unexpected, within},
    session::Session,
};

/// A listener in the guest. When it is dropped, the guest closes it and its connections.
#[derive(Debug)]
pub struct Listener {
    session: Arc<Session>,
    reader: StreamReader,
    _writer: StreamWriter,
}

impl Listener {
    pub(crate) async fn start(session: &Arc<Session>, listen: &Listen) -> Result<Self, GuestError> {
        let (mut reader, writer) = session.open(&HostOpen::Listen(listen.clone())).await?.split();
        match within("listen", ANSWER_LIMIT, next_event(session, &mut reader)).await? {
            GuestEvent::Done => Ok(Self { session: session.clone(), reader, _writer: writer }),
            _ => Err(session.violation("an answer that does not fit its request")),
        }
    }

    /// Waits until the listener is gone before its time, and says why.
    pub async fn failed(&mut self) -> GuestError {
        let item = self.reader.next().await;
        unexpected(&self.session, item)
    }
}
