//! A running QEMU.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{OwnedFd, RawFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream as StdUnixStream},
        },
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use tart_net::NicLink;
use tart_proto::time::scaled;
use tokio::{
    net::{UnixStream, unix::OwnedWriteHalf},
    time::timeout,
};

use super::{
    QemuDriver,
    args::{self, Inherited},
    confine, migration,
    qmp::{Qmp, QmpError},
};
use crate::{
    Acceleration, AgentStream, DiskSpec, Driver, ExitKind, Machine, MachineExit, MachineSpec, Origin,
    ProcessStatus, Snapshot, VmmError, monitor::Wanted, run_dir, snapshot::Unsealed, spec,
    supervised::Supervised,
};

/// The agent's socket in the machine's directory.
const AGENT_SOCKET: &str = "agent.sock";

/// The socket there that a machine is saved through.
const STATE_SOCKET: &str = "state.sock";

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
    disks: Vec<DiskSpec>,
    /// Where a template is saved.
    unsealed: Mutex<Option<Unsealed>>,
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
    let agent = UnixListener::bind(run_dir::path_in(&dir, AGENT_SOCKET))
        .map_err(|e| VmmError::system(what("make the socket"), e))?;
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
    let saved = Saved::of(spec)?;
    let mut inherit = Inherit::default();
    let inherited = Inherited {
        qmp: inherit.add(qmp_far),
        console: inherit.add(console_far),
        agent: inherit.add(agent),
        nic: nic.map(|fd| inherit.share(fd)),
        memory: saved.memory.clone().map(|fd| inherit.share(fd)),
    };
    let state = saved.state.clone().map(|fd| inherit.share(fd));
    let utf8 = |arg: OsString| {
        arg.into_string().map_err(|arg| VmmError::Spec {
            id: spec.id.clone(),
            reason: format!("`{}` is not UTF-8", arg.display()),
        })
    };
    let args = args::arguments(spec, driver.acceleration, line, inherited)?;
    let own = spec.disks.iter().filter(|disk| !disk.read_only).filter_map(|disk| disk.path.clone());
    let wanted = Wanted {
        machine: spec.id.clone(),
        program: driver.binary.clone(),
        args: args.into_iter().map(utf8).collect::<Result<_, _>>()?,
        dir: spec.run_dir.clone(),
        numbers: inherit.numbers(),
        allowed: confine::allowed(driver, spec),
        own: own.chain(spec.later_disk.clone()).collect(),
        kvm: driver.acceleration == Acceleration::Kvm,
        memory: spec.memory_bytes.saturating_add(driver.own_memory()),
        vcpus: spec.vcpus,
        bandwidth: driver.disk_bandwidth,
        max_file: spec.largest_writable(),
    };
    let held = (spec.identity, spec.cgroup.clone());
    let (process, stderr) = driver.starter.start(wanted, inherit.0, held).await?;
    run_dir::record(&spec.run_dir, process.pid())
        .map_err(|e| VmmError::system(what("record the process"), e))?;

    let connection = |e: io::Error| VmmError::system(what("watch the sockets"), e);
    let process = Supervised::new(process, console, stderr, kind).map_err(connection)?;
    qmp.set_nonblocking(true).map_err(connection)?;
    let (reader, writer) = UnixStream::from_std(qmp).map_err(connection)?.into_split();
    let limit = scaled(START_LIMIT).min(spec.boot_limit);
    let failure = match Qmp::start(reader, writer, limit).await {
        Ok(qmp) => match migration::begin(&qmp, state, limit).await {
            Ok(()) => {
                let (id, disks) = (spec.id.clone(), spec.disks.clone());
                let unsealed = Mutex::new(saved.unsealed);
                return Ok(QemuMachine { id, process, dir, qmp, disks, unsealed });
            }
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

/// The number of the first descriptor that QEMU inherits, out of the way of those that it opens itself.
const FIRST_NUMBER: RawFd = 100;

/// Descriptors that QEMU inherits.
#[derive(Default)]
struct Inherit(Vec<Arc<OwnedFd>>);

impl Inherit {
    /// Adds one and gives its number.
    fn add(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        self.share(Arc::new(fd.into()))
    }

    fn share(&mut self, fd: Arc<OwnedFd>) -> RawFd {
        self.0.push(fd);
        self.numbers().last().copied().unwrap_or(FIRST_NUMBER)
    }

    fn numbers(&self) -> Vec<RawFd> {
        (FIRST_NUMBER..).take(self.0.len()).collect()
    }
}

/// The files of a machine that is saved, or goes on from one that was.
#[derive(Default)]
struct Saved {
    memory: Option<Arc<OwnedFd>>,
    state: Option<Arc<OwnedFd>>,
    unsealed: Option<Unsealed>,
}

impl Saved {
    fn of(spec: &MachineSpec) -> Result<Self, VmmError> {
        match &spec.origin {
            Origin::Boot => Ok(Self::default()),
            Origin::Template => {
                let unsealed = Unsealed::create(spec.memory_mib() << 20)?;
                Ok(Self {
                    memory: Some(unsealed.memory.clone()),
                    unsealed: Some(unsealed),
                    ..Self::default()
                })
            }
            Origin::Snapshot(snapshot) => {
                let state = snapshot.state().map_err(|e| VmmError::system("open a saved machine", e))?;
                let (memory, state) = (Some(snapshot.memory()), Some(Arc::new(state)));
                Ok(Self { memory, state, unsealed: None })
            }
        }
    }
}

fn kind(status: ProcessStatus, killed: bool) -> ExitKind {
    match status {
        _ if killed => ExitKind::Killed,
        ProcessStatus::Code(0) => ExitKind::Guest,
        ProcessStatus::Code(_) => ExitKind::Failed,
        ProcessStatus::Signal(_) | ProcessStatus::Unknown => ExitKind::Crashed,
    }
}

impl QemuMachine {
    fn control(&self, problem: impl ToString) -> VmmError {
        VmmError::control(&self.id, problem)
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
        let connected = UnixStream::connect(run_dir::path_in(&self.dir, AGENT_SOCKET)).await;
        let what = || format!("connect to the agent of virtual machine `{}`", self.id);
        Ok(connected.map_err(|e| VmmError::system(what(), e))?.into())
    }

    async fn save(&self) -> Result<Snapshot, VmmError> {
        let unsealed = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(unsealed) = unsealed else {
            return Err(self.control("was not started to be saved"));
        };
        let saved = async {
            let socket = run_dir::path_in(&self.dir, STATE_SOCKET);
            let listener = UnixListener::bind(&socket)?;
            // Its directory lets nobody but the machine get here.
            fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
            listener.set_nonblocking(true)?;
            let state = File::from(unsealed.state.try_clone()?);
            let listener = tokio::net::UnixListener::from_std(listener)?;
            Ok(migration::save(&self.qmp, STATE_SOCKET, listener, state).await)
        };
        let saved: io::Result<_> = saved.await;
        // Its end also unmaps the memory, which seals need.
        self.kill().await;
        saved
            .map_err(|e| VmmError::system("make files for the state of a machine", e))?
            .map_err(|error| self.control(error))?;
        unsealed.seal()
    }

    async fn insert_disk(&self, serial: &str, image: &Path) -> Result<(), VmmError> {
        let (position, disk) = spec::empty_disk(&self.id, &self.disks, serial)?;
        let node = format!("image{position}");
        let image = args::image(&node, image, disk, &self.id)?;
        migration::insert(&self.qmp, &args::device(position), &node, image)
            .await
            .map_err(|error| self.control(error))
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
