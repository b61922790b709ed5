//! A running QEMU.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream as StdUnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use tart_net::NicLink;
use tokio::{
    net::{UnixStream, unix::OwnedWriteHalf},
    time::timeout,
};

use super::{
    QemuDriver,
    args::{self, Inherited},
    qmp::{Qmp, QmpError},
};
use crate::{
    AgentStream, ExitKind, Machine, MachineExit, MachineSpec, ProcessStatus, VmmError, process::Launch,
    run_dir, supervised::Supervised,
};

/// The agent's socket in the machine's directory.
const AGENT_SOCKET: &str = "agent.sock";

/// How long QEMU may take to start. Much less is usual, but the host may be busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long QEMU may take to quit by itself.
const QUIT_LIMIT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct QemuMachine {
    id: String,
    process: Supervised,
    /// [`MachineSpec::run_dir`]; sockets are found by it, however long its path is.
    dir: OwnedFd,
    qmp: Qmp<OwnedWriteHalf>,
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
        NicLink::Stream(fd) | NicLink::Tap(fd) => Ok(fd.clone()),
        NicLink::Device { .. } => {
            let reason = "QEMU is given an open tap device, not the name of one".to_owned();
            Err(VmmError::Spec { id: spec.id.clone(), reason })
        }
    });
    let nic = nic.transpose()?;
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
    let launch = Launch {
        program: driver.binary.clone(),
        args,
        dir: spec.run_dir.clone(),
        inherit,
        stdout: None,
        namespace: None,
        max_file: spec.largest_writable(),
    };
    let (process, stderr) = driver
        .launcher
        .launch(launch)
        .await
        .map_err(|e| VmmError::system(format!("run {}", driver.binary.display()), e))?;
    run_dir::record(&spec.run_dir, process.pid())
        .map_err(|e| VmmError::system(what("record the process"), e))?;

    let connection = |e: io::Error| VmmError::system(what("watch the sockets"), e);
    let process =
        Supervised::new(process, console, stderr, driver.launcher.clone(), kind).map_err(connection)?;
    qmp.set_nonblocking(true).map_err(connection)?;
    let (reader, writer) = UnixStream::from_std(qmp).map_err(connection)?.into_split();
    let limit = START_LIMIT.min(spec.boot_limit);
    let failure = match Qmp::start(reader, writer, limit).await {
        Ok(qmp) => match qmp.execute("query-status", json!({}), limit).await {
            Ok(_) => return Ok(QemuMachine { id: spec.id.clone(), process, dir, qmp }),
            Err(error) => error,
        },
        Err(error) => error,
    };
    if failure == QmpError::Closed
        && let Ok(exit) = timeout(QUIT_LIMIT, process.wait()).await
    {
        return Err(VmmError::EndedInBoot { exit, console: process.said() });
    }
    process.kill().await;
    let said = process.said();
    let problem = if said.is_empty() { failure.to_string() } else { format!("{failure}: {said}") };
    Err(VmmError::Control { id: spec.id.clone(), problem })
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
        self.process.wait().await
    }

    async fn kill(&self) -> MachineExit {
        if self.process.exit().is_none() {
            self.process.claim();
            // Lets QEMU end what it has under way; a hung one is killed all the same.
            let quit = self.qmp.execute("quit", json!({}), QUIT_LIMIT);
            let ended = async {
                let _asked = quit.await;
                self.wait().await
            };
            if timeout(QUIT_LIMIT, ended).await.is_err() {
                return self.process.kill().await;
            }
        }
        self.wait().await
    }

    fn console_tail(&self) -> String {
        self.process.said()
    }
}
