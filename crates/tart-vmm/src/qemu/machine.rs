//! A running QEMU.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream as StdUnixStream},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use tokio::{
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{
    QemuDriver,
    args::{self, Inherited},
    qmp::{Qmp, QmpError},
};
use crate::{
    AgentStream, ExitKind, Machine, MachineExit, MachineSpec, ProcessStatus, VmmError,
    console::Tail,
    process::{Launch, Process, Published, published},
    run_dir,
};

/// The agent's socket in the machine's directory.
const AGENT_SOCKET: &str = "agent.sock";

/// Kept of the console, in bytes.
const CONSOLE_TAIL: usize = 64 * 1024;

/// Kept of what QEMU itself says, in bytes.
const MONITOR_TAIL: usize = 8 * 1024;

/// How long QEMU may take to start. Much less is usual, but the host may be busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long QEMU may take to quit by itself.
const QUIT_LIMIT: Duration = Duration::from_millis(500);

/// How long the last output of an ended process may take to be read.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct QemuMachine {
    id: String,
    process: Process,
    /// [`MachineSpec::run_dir`]; sockets are found by it, however long its path is.
    dir: OwnedFd,
    qmp: Qmp<OwnedWriteHalf>,
    console: Tail,
    monitor: Tail,
    killed: Arc<AtomicBool>,
    exit: Published<MachineExit>,
}

/// Starts QEMU and waits until it runs the guest.
pub(super) async fn start(
    driver: &QemuDriver,
    spec: &MachineSpec,
    line: &str,
) -> Result<QemuMachine, VmmError> {
    let what = |what: &str| format!("{what} of virtual machine `{}`", spec.id);
    let dir =
        rustix::fs::open(&spec.run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| VmmError::system(what("open the directory"), e))?;
    let agent =
        UnixListener::bind(socket_path(&dir)).map_err(|e| VmmError::system(what("make the socket"), e))?;
    let pair = || StdUnixStream::pair().map_err(|e| VmmError::system(what("make a socket pair"), e));
    let ((qmp, qmp_far), (console, console_far)) = (pair()?, pair()?);
    let nic = spec.nic.as_ref().map(|nic| match &nic.link {
        tart_net::NicLink::Stream(fd) | tart_net::NicLink::Tap(fd) => fd.clone(),
    });
    let inherited = Inherited {
        qmp: qmp_far.as_raw_fd(),
        console: console_far.as_raw_fd(),
        agent: agent.as_raw_fd(),
        nic: nic.as_ref().map(|fd| fd.as_raw_fd()),
    };
    let args = args::arguments(spec, driver.acceleration, line, inherited)?;
    let mut inherit: Vec<Arc<OwnedFd>> =
        [qmp_far.into(), console_far.into(), agent.into()].into_iter().map(Arc::new).collect();
    inherit.extend(nic);
    let max_file = max_file(spec);
    let launch =
        Launch { program: driver.binary.clone(), args, dir: spec.run_dir.clone(), inherit, max_file };
    let (process, stderr) = driver
        .launcher
        .launch(launch)
        .await
        .map_err(|e| VmmError::system(format!("run {}", driver.binary.display()), e))?;
    run_dir::record(&spec.run_dir, process.pid())
        .map_err(|e| VmmError::system(what("record the process"), e))?;

    let connection = |e: io::Error| VmmError::system(what("watch the sockets"), e);
    let console = tokio_stream(console).map_err(connection)?;
    let qmp = tokio_stream(qmp).map_err(connection)?;
    let stderr =
        tokio::net::unix::pipe::Receiver::from_owned_fd(OwnedFd::from(stderr)).map_err(connection)?;
    let (console_tail, monitor_tail) = (Tail::new(CONSOLE_TAIL), Tail::new(MONITOR_TAIL));
    let killed = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    readers.spawn(console_tail.clone().follow(console));
    readers.spawn(monitor_tail.clone().follow(stderr));
    let exit = watch_end(&process, readers, killed.clone(), driver.launcher.clone());

    let (reader, writer) = qmp.into_split();
    let limit = START_LIMIT.min(spec.boot_limit);
    let failure = match Qmp::start(reader, writer, limit).await {
        Ok(qmp) => match qmp.execute("query-status", json!({}), limit).await {
            Ok(_) => {
                let (id, console, monitor) = (spec.id.clone(), console_tail, monitor_tail);
                return Ok(QemuMachine { id, process, dir, qmp, console, monitor, killed, exit });
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    let console = || tail(&console_tail, &monitor_tail);
    if failure == QmpError::Closed
        && let Ok(Some(exit)) = timeout(QUIT_LIMIT, published(exit.clone())).await
    {
        return Err(VmmError::EndedInBoot { exit, console: console() });
    }
    killed.store(true, Ordering::Relaxed);
    process.kill();
    published(exit).await;
    let said = console();
    let problem = if said.is_empty() { failure.to_string() } else { format!("{failure}: {said}") };
    Err(VmmError::Control { id: spec.id.clone(), problem })
}

/// The one owner of the process: takes its status once, after that of its output, and publishes it. It must run on
/// after the machine is dropped, or the killed process would stay as a zombie; it ends because the process does.
fn watch_end(
    process: &Process,
    mut readers: JoinSet<()>,
    killed: Arc<AtomicBool>,
    launcher: Arc<crate::process::Launcher>,
) -> Published<MachineExit> {
    let (sender, exit) = watch::channel(None);
    let reaped = process.reaped();
    tokio::spawn(async move {
        let status = reaped.await;
        // The launcher's end would have killed the process.
        drop(launcher);
        let drained = async { while readers.join_next().await.is_some() {} };
        let _late = timeout(DRAIN_LIMIT, drained).await;
        sender.send_replace(Some(MachineExit { kind: kind(status, killed.load(Ordering::Relaxed)), status }));
    });
    exit
}

fn kind(status: ProcessStatus, killed: bool) -> ExitKind {
    match status {
        _ if killed => ExitKind::Killed,
        ProcessStatus::Code(0) => ExitKind::Guest,
        ProcessStatus::Code(_) => ExitKind::Failed,
        ProcessStatus::Signal(_) | ProcessStatus::Unknown => ExitKind::Crashed,
    }
}

/// A path to the agent's socket that always fits a socket address.
fn socket_path(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{AGENT_SOCKET}", dir.as_raw_fd()))
}

fn tokio_stream(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// QEMU writes to no file but the machine's disks, whose size is fixed.
fn max_file(spec: &MachineSpec) -> u64 {
    let sizes = spec.disks.iter().filter(|disk| !disk.read_only).filter_map(|disk| disk.path.metadata().ok());
    sizes.map(|disk| disk.len()).max().unwrap_or(0)
}

fn tail(console: &Tail, monitor: &Tail) -> String {
    let (console, monitor) = (console.text(), monitor.text());
    match (console.is_empty(), monitor.is_empty()) {
        (_, true) => console,
        (true, false) => monitor,
        (false, false) => format!("{}\n{monitor}", console.trim_end()),
    }
}

#[async_trait]
impl Machine for QemuMachine {
    fn id(&self) -> &str {
        &self.id
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    async fn connect_agent(&self) -> Result<AgentStream, VmmError> {
        let connected = UnixStream::connect(socket_path(&self.dir)).await;
        let what = || format!("connect to the agent of virtual machine `{}`", self.id);
        Ok(connected.map_err(|e| VmmError::system(what(), e))?.into())
    }

    async fn wait(&self) -> MachineExit {
        let lost = MachineExit { kind: ExitKind::Crashed, status: ProcessStatus::Unknown };
        published(self.exit.clone()).await.unwrap_or(lost)
    }

    async fn kill(&self) -> MachineExit {
        if self.exit.borrow().is_none() {
            self.killed.store(true, Ordering::Relaxed);
            // Lets QEMU end what it has under way; a hung one is killed all the same.
            let quit = self.qmp.execute("quit", json!({}), QUIT_LIMIT);
            let ended = async {
                let _asked = quit.await;
                self.wait().await
            };
            if timeout(QUIT_LIMIT, ended).await.is_err() {
                self.process.kill();
            }
        }
        self.wait().await
    }

    fn console_tail(&self) -> String {
        tail(&self.console, &self.monitor)
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        self.killed.store(true, Ordering::Relaxed);
    }
}
