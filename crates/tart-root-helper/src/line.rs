//! Requests of several callers over one connection, one after the other.

use std::os::fd::BorrowedFd;

use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use tokio::sync::Mutex;

use crate::{Answer, Connection, HelperError, Received};

/// The runner's end of a connection on which every request has one [`Answer`]. A caller that goes away while it waits
/// leaves the answer to be passed over by the next.
#[derive(Debug)]
pub struct Line(Mutex<Calls>);

#[derive(Debug)]
struct Calls {
    connection: Connection,
    /// Requests whose answers nobody waited for.
    unanswered: usize,
}

impl Line {
    /// One whose other end has answered everything so far.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self(Mutex::new(Calls { connection, unanswered: 0 }))
    }

    /// Sends a request with descriptors, and waits for what it gives.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        request: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Received<T>, HelperError> {
        self.0.lock().await.call(request, descriptors).await
    }
}

impl Calls {
    async fn call<T: DeserializeOwned>(
        &mut self,
        request: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Received<T>, HelperError> {
        while self.unanswered > 0 {
            self.receive::<IgnoredAny>().await?;
        }
        self.connection.send(request, descriptors).await?;
        self.unanswered += 1;
        let (answer, descriptors) = self.receive::<Answer<T>>().await?;
        Ok((answer.map_err(HelperError::Refused)?, descriptors))
    }

    /// Waits for the next answer, which counts whatever it is.
    async fn receive<T: DeserializeOwned>(&mut self) -> Result<Received<T>, HelperError> {
        let received = self.connection.receive().await;
        self.unanswered = self.unanswered.saturating_sub(1);
        received
    }
}
