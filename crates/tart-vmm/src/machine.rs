//! The traits that every driver implements.

use std::{
    fmt, io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

use crate::{MachineCounters, MachineSpec, Snapshot, VmmError};

/// Starts machines.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync {
    /// Name in the configuration.
    fn name(&self) -> &'static str;

    /// What it runs machines with, for people.
    fn describe(&self) -> String;

    /// The monitor's program.
    fn program(&self) -> &Path;

    /// Bytes of the host's memory that a monitor takes at most, besides its guest's.
    fn own_memory(&self) -> u64;

    /// What it can do beyond starting machines.
    fn capabilities(&self) -> Capabilities;

    /// Starts a machine. It returns when the monitor runs, which is long before the agent is ready: see
    /// [`crate::await_boot`].
    ///
    /// # Errors
    /// [`VmmError`]; nothing of the machine is left then.
    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, VmmError>;
}

/// What a driver can do beyond starting machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Disks have serials in the guest; otherwise it finds them by position.
    pub disk_serials: bool,
    /// The agent's stream can be opened several times at once; otherwise a new one ends the last.
    pub concurrent_agent_streams: bool,
    /// Machines can be saved, and started from there: [`crate::Origin`].
    pub snapshots: bool,
    /// Guest code runs on the processor itself.
    pub hardware_acceleration: bool,
    /// Tap devices are opened by their names ([`tart_net::NicLink::Device`]); otherwise network devices are handed over
    /// open.
    pub named_taps: bool,
}

/// A started machine. Dropping it kills it.
#[async_trait]
pub trait Machine: fmt::Debug + Send + Sync {
    /// [`MachineSpec::id`].
    fn id(&self) -> &str;

    /// Process id of the monitor, for measurements. It may be reused after the machine's end.
    fn pid(&self) -> u32;

    /// Connects to the agent's port. The guest need not have come up yet: what is written waits for it. A driver
    /// without [`Capabilities::concurrent_agent_streams`] serves one stream at a time; the others wait until it is
    /// dropped.
    ///
    /// # Errors
    /// [`VmmError`] if the monitor does not take the connection.
    async fn connect_agent(&self) -> Result<AgentStream, VmmError>;

    /// Saves a machine of [`crate::Origin::Template`] and ends it: it must never go on itself, or there would be two of
    /// one. Nobody may be connected to its agent.
    ///
    /// # Errors
    /// [`VmmError`]; the machine is ended all the same.
    async fn save(&self) -> Result<Snapshot, VmmError>;

    /// Gives a disk that has none an image. The guest has to be told to look at the disk again.
    ///
    /// # Errors
    /// [`VmmError`] if there is no such disk, or the monitor refuses the image.
    async fn insert_disk(&self, serial: &str, image: &Path) -> Result<(), VmmError>;

    /// Waits for the machine's end. Any number of callers may wait.
    async fn wait(&self) -> MachineExit;

    /// Ends the machine at once and waits for its end. Never fails; has no effect after the end.
    async fn kill(&self) -> MachineExit;

    /// The last 64 KiB of the console, and what the monitor itself said, without control characters.
    fn console_tail(&self) -> String;

    /// What the monitor has counted so far. Nothing where it does not count, or does not say so in time.
    async fn counters(&self) -> Option<MachineCounters> {
        None
    }
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineExit {
    /// What it means.
    pub kind: ExitKind,
    /// What the monitor's process said.
    pub status: ProcessStatus,
}

/// What a machine's end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// The guest reset or powered off itself; after a shutdown by the agent, or a panic of its kernel.
    Guest,
    /// It was killed by [`Machine::kill`] or by dropping the machine.
    Killed,
    /// The monitor refused to run, or failed.
    Failed,
    /// The monitor was ended by a signal that is not ours: it crashed, or the host's kernel or someone killed it.
    Crashed,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessStatus {
    /// `exit(code)`.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
    /// It is gone, but someone else took its status.
    Unknown,
}

impl fmt::Display for MachineExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ExitKind::Guest => f.write_str("the guest reset itself"),
            ExitKind::Killed => f.write_str("it was killed by the runner"),
            ExitKind::Failed => write!(f, "the virtual machine monitor failed with {}", self.status),
            ExitKind::Crashed => write!(f, "the virtual machine monitor was ended by {}", self.status),
        }
    }
}

impl fmt::Display for ProcessStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(9) => f.write_str("signal 9 (the host may be out of memory)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

/// The byte stream to a guest's agent.
#[derive(Debug)]
pub struct AgentStream(UnixStream);

impl From<UnixStream> for AgentStream {
    fn from(stream: UnixStream) -> Self {
        Self(stream)
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
