//! A guest whose agent is ready.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tart_proto::message::{
    Configure, Exec, GetFile, Hello, HostOpen, Listen, MountStep, PutFile, ServiceNetwork, Stats,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Command, GuestError, Listener, Relay, connect, files,
    request::{self, ANSWER_LIMIT},
    session::Session,
};

/// How long the guest may take to kill, unmount and sync everything; its own limits are shorter.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// How long mounts may take: a journal may have to be read.
const MOUNT_LIMIT: Duration = Duration::from_secs(120);

/// A guest whose agent is ready. Clones are the same session; it ends when the last of them, and of its commands and
/// listeners, is dropped. The guest then kills what still runs.
#[derive(Debug, Clone)]
pub struct Guest {
    session: Arc<Session>,
}

impl Guest {
    /// Shakes hands with the agent and waits until it says that it is ready, all within `limit`. `relay` gets every
    /// connection that the guest opens. The stream may be connected before the guest runs.
    ///
    /// # Errors
    /// If the limit passes, the stream ends, the agent is of another build, or it breaks the protocol.
    pub async fn connect<S>(
        stream: S,
        relay: Arc<dyn Relay>,
        limit: Duration,
    ) -> Result<(Self, Hello), GuestError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (session, hello) = connect::connect(stream, relay, limit).await?;
        Ok((Self { session: Arc::new(session) }, hello))
    }

    /// Sets the guest up: clock, entropy, names, network.
    ///
    /// # Errors
    /// If the guest cannot do it or answers in no time.
    pub async fn configure(&self, configure: &Configure) -> Result<(), GuestError> {
        self.ask(&HostOpen::Configure(configure.clone()), "set itself up", ANSWER_LIMIT).await
    }

    /// Makes mounts, in order.
    ///
    /// # Errors
    /// If the guest cannot make one, which it names.
    pub async fn mount(&self, steps: &[MountStep]) -> Result<(), GuestError> {
        self.ask(&HostOpen::Mount(steps.to_vec()), "make its mounts", MOUNT_LIMIT).await
    }

    /// Makes the network of the services, after the mounts of their trees.
    ///
    /// # Errors
    /// If the guest cannot do it or answers in no time.
    pub async fn service_network(&self, network: &ServiceNetwork) -> Result<(), GuestError> {
        let request = HostOpen::ServiceNetwork(network.clone());
        self.ask(&request, "make the network of the services", ANSWER_LIMIT).await
    }

    /// Waits, for as long as it takes, until something in the guest accepts connections on an address. Drop it to give
    /// up.
    ///
    /// # Errors
    /// If the session is lost.
    pub async fn await_port(&self, address: SocketAddr) -> Result<(), GuestError> {
        request::wait(&self.session, &HostOpen::AwaitPort { address }).await
    }

    /// Starts a command.
    ///
    /// # Errors
    /// If it cannot be started: [`GuestError::failure_kind`] tells a missing program from others.
    pub async fn exec(&self, exec: &Exec) -> Result<Command, GuestError> {
        Command::start(&self.session, exec).await
    }

    /// Writes a file. A failure leaves what was there. It takes as long as `contents` takes; drop it to give up.
    ///
    /// # Errors
    /// If the guest cannot write it or `contents` cannot be read.
    pub async fn put_file(
        &self,
        file: &PutFile,
        contents: impl AsyncRead + Send + Unpin,
    ) -> Result<(), GuestError> {
        files::put(&self.session, file, contents).await
    }

    /// Reads a file, and gives the number of its bytes. After a failure `to` may have got a part. It takes as long as
    /// the guest and `to` take; drop it to give up.
    ///
    /// # Errors
    /// If the guest cannot read it, it is over the limit of the request, or `to` cannot be written.
    pub async fn get_file(
        &self,
        file: &GetFile,
        to: impl AsyncWrite + Send + Unpin,
    ) -> Result<u64, GuestError> {
        files::get(&self.session, file, to).await
    }

    /// Listens in the guest until the listener is dropped; connections go to the relay.
    ///
    /// # Errors
    /// If the guest cannot listen on the address.
    pub async fn listen(&self, listen: &Listen) -> Result<Listener, GuestError> {
        Listener::start(&self.session, listen).await
    }

    /// Sets the guest's wall clock, in nanoseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// If the guest cannot.
    pub async fn set_time(&self, unix_nanos: u64) -> Result<(), GuestError> {
        self.ask(&HostOpen::SetTime { unix_nanos }, "set its clock", ANSWER_LIMIT).await
    }

    /// Mixes randomness of the host, at least 32 bytes, into the guest's.
    ///
    /// # Errors
    /// If the guest cannot.
    pub async fn reseed(&self, entropy: &[u8]) -> Result<(), GuestError> {
        self.ask(&HostOpen::Reseed { entropy: entropy.to_vec() }, "reseed its randomness", ANSWER_LIMIT).await
    }

    /// The guest's counters, by its own word.
    ///
    /// # Errors
    /// If the session is lost.
    pub async fn stats(&self) -> Result<Stats, GuestError> {
        request::stats(&self.session).await
    }

    /// Waits until the agent has answered a ping. It may wait forever, so the caller limits it.
    ///
    /// # Errors
    /// If the session is lost.
    pub async fn ping(&self) -> Result<(), GuestError> {
        self.session.ping().await
    }

    /// Kills everything in the guest, writes its disks back, and lets it reset its machine, which ends it.
    ///
    /// # Errors
    /// If the session is lost first, or the guest takes too long; the machine is then to be killed.
    pub async fn shutdown(&self) -> Result<(), GuestError> {
        self.ask(&HostOpen::Shutdown, "shut down", SHUTDOWN_LIMIT).await
    }

    /// Waits until the session is gone, and says why.
    pub async fn closed(&self) -> GuestError {
        self.session.closed().await
    }

    async fn ask(&self, request: &HostOpen, what: &'static str, limit: Duration) -> Result<(), GuestError> {
        request::ask(&self.session, request, what, limit).await
    }
}
