//! A monitor's process with what it says and how it ended; killed when dropped.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::UnixStream, sync::watch, task::JoinSet, time::timeout};

use crate::{
    ExitKind, MachineExit, ProcessStatus,
    console::Tail,
    process::{Killer, Process, Published, published},
};

/// Kept of the console, in bytes.
const CONSOLE_TAIL: usize = 64 * 1024;

/// Kept of what the monitor itself says, in bytes.
const MONITOR_TAIL: usize = 8 * 1024;

/// How long the last output of an ended process may take to be read.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Tells what a status means; the flag says that we killed it.
pub(crate) type Kind = fn(ProcessStatus, bool) -> ExitKind;

/// A monitor's process.
#[derive(Debug)]
pub(crate) struct Supervised {
    process: Process,
    console: Tail,
    monitor: Tail,
    killed: Arc<AtomicBool>,
    exit: Published<MachineExit>,
}

impl Supervised {
    /// Watches a process that was just launched: its console and its standard error.
    pub(crate) fn new(
        process: Process,
        console: StdUnixStream,
        stderr: OwnedFd,
        kind: Kind,
    ) -> io::Result<Self> {
        console.set_nonblocking(true)?;
        let console_stream = UnixStream::from_std(console)?;
        let stderr = tokio::net::unix::pipe::Receiver::from_owned_fd(stderr)?;
        let (console, monitor) = (Tail::new(CONSOLE_TAIL), Tail::new(MONITOR_TAIL));
        let killed = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        readers.spawn(console.clone().follow(console_stream));
        readers.spawn(monitor.clone().follow(stderr));
        let exit = watch_end(&process, readers, killed.clone(), kind);
        Ok(Self { process, console, monitor, killed, exit })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> MachineExit {
        let lost = MachineExit { kind: ExitKind::Crashed, status: ProcessStatus::Unknown };
        published(self.exit.clone()).await.unwrap_or(lost)
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<MachineExit> {
        *self.exit.borrow()
    }

    /// What kills it as if it had crashed.
    pub(crate) fn killer(&self) -> Killer {
        self.process.killer()
    }

    /// From now on its end is ours.
    pub(crate) fn claim(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    /// Kills it at once and waits for its end.
    pub(crate) async fn kill(&self) -> MachineExit {
        self.claim();
        self.process.kill();
        self.wait().await
    }

    /// The last of its console, then of what it said itself.
    pub(crate) fn said(&self) -> String {
        let (console, monitor) = (self.console.text(), self.monitor.text());
        match (console.is_empty(), monitor.is_empty()) {
            (_, true) => console,
            (true, false) => monitor,
            (false, false) => format!("{}\n{monitor}", console.trim_end()),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.claim();
    }
}

/// The one owner of the process: takes its status once, after that of its output, and publishes it. It must run on
/// after the machine is dropped, or the killed process would stay as a zombie; it ends because the process does.
fn watch_end(
    process: &Process,
    mut readers: JoinSet<()>,
    killed: Arc<AtomicBool>,
    kind: Kind,
) -> Published<MachineExit> {
    let (sender, exit) = watch::channel(None);
    let reaped = process.reaped();
    tokio::spawn(async move {
        let status = reaped.await;
        let drained = async { while readers.join_next().await.is_some() {} };
        let _late = timeout(DRAIN_LIMIT, drained).await;
        let kind = kind(status, killed.load(Ordering::Relaxed));
        sender.send_replace(Some(MachineExit { kind, status }));
    });
    exit
}
