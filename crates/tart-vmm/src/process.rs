//! Processes that cannot outlive the runner, with one owner who waits for each.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use rustix::net::Shutdown;
use rustix::process::{
    Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid, WaitId, WaitIdOptions, getppid, pidfd_open,
    pidfd_send_signal, set_parent_process_death_signal, setrlimit, setsid, waitid,
};
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use tart_root_helper::Connection;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{oneshot, watch},
};

use crate::{
    Identity, ProcessStatus,
    confine::{Place, Rules},
    isolation::Jail,
    monitor::Ended,
};

/// A program to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// Working directory.
    pub(crate) dir: PathBuf,
    /// Descriptors that it inherits, and the numbers that it knows them by.
    pub(crate) inherit: Vec<(Arc<OwnedFd>, RawFd)>,
    /// Its standard output; nothing without it.
    pub(crate) stdout: Option<OwnedFd>,
    /// Its standard error.
    pub(crate) stderr: OwnedFd,
    /// The network namespace that it starts in.
    pub(crate) network: Namespace,
    /// What it may open; anything without it.
    pub(crate) places: Option<Vec<Place>>,
    /// Whom it runs as, if not as the runner's user in the runner's root directory.
    pub(crate) user: Option<User>,
    /// Where a process gets into the cgroup that it is to be in.
    pub(crate) cgroup: Option<File>,
    /// Largest file that it may write, in bytes.
    pub(crate) max_file: u64,
}

/// A network namespace.
#[derive(Debug, Clone, Default)]
pub(crate) enum Namespace {
    /// The runner's.
    #[default]
    Runner,
    /// A new one without any devices.
    Empty,
    /// One that exists.
    Of(Arc<OwnedFd>),
}

/// Whom a process runs as.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) identity: Identity,
    /// Its root directory.
    pub(crate) jail: Jail,
}

/// Most threads and processes of a user that is one machine's.
pub(crate) const MAX_THREADS: u64 = 256;

/// Starts processes from a thread of its own. The kernel kills them when that thread ends, so it must be neither
/// one of the runtime's, which come and go, nor end before the last process: every process holds the launcher.
#[derive(Debug)]
pub(crate) struct Launcher(mpsc::Sender<Request>);

type Request = (Launch, oneshot::Sender<io::Result<Process>>);

impl Launcher {
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::Builder::new().name("tart-launcher".to_owned()).spawn(move || {
            for (launch, answer) in requests {
                // A process that nobody waits for any more is killed as it is dropped.
                let _gone = answer.send(spawn(launch));
            }
        })?;
        Ok(Arc::new(Self(sender)))
    }

    /// Starts a process.
    pub(crate) async fn launch(self: &Arc<Self>, launch: Launch) -> io::Result<Process> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| io::Error::other("the launcher thread is gone");
        self.0.send((launch, answer)).map_err(|_| gone(()))?;
        let mut process = answered.await.map_err(|_| gone(()))??;
        process.launcher = Some(self.clone());
        Ok(process)
    }
}

fn spawn(mut launch: Launch) -> io::Result<Process> {
    let parent = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or(0));
    let prepared = Prepared::new(&mut launch)?;
    let mut command = Command::new(&launch.program);
    // A directory that belongs to somebody else is entered in the new root only.
    let dir = if prepared.user.is_some() { Path::new("/") } else { &launch.dir };
    // The runner's environment may hold secrets of jobs.
    command.args(&launch.args).current_dir(dir).env_clear();
    let stdout = launch.stdout.map_or_else(Stdio::null, Stdio::from);
    command.stdin(Stdio::null()).stdout(stdout).stderr(launch.stderr);
    let mut inherit: Vec<(RawFd, RawFd)> =
        launch.inherit.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
    let prepare = move || {
        setsid()?;
        prepared.enter()?;
        // After the change of user, which clears it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != parent {
            return Err(io::Error::other("the runner is gone"));
        }
        prepared.confine()?;
        // The last of all: numbers that they get may be those of what was used before.
        give_numbers(&mut inherit)
    };
    #[expect(unsafe_code, reason = "the standard library has no other way to prepare a child")]
    // SAFETY: `prepare` makes system calls only; it neither allocates nor takes locks, except for the error of a
    // child whose runner is gone, which nobody waits for.
    unsafe {
        command.pre_exec(prepare);
    }
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
        .ok_or_else(|| io::Error::other("the child has no process id"))?;
    // Not reaped yet, so the number is still this child's.
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => Ok(Process { pid: child.id(), end: End::Child(Arc::new(pidfd)), launcher: None }),
        Err(errno) => {
            child.kill()?;
            child.wait()?;
            Err(errno.into())
        }
    }
}

/// What a child changes of itself before it runs its program; in it, system calls only.
struct Prepared {
    cgroup: Option<File>,
    network: Namespace,
    user: Option<User>,
    rules: Option<Rules>,
    max_file: u64,
}

impl Prepared {
    fn new(launch: &mut Launch) -> io::Result<Self> {
        Ok(Self {
            cgroup: launch.cgroup.take(),
            network: std::mem::take(&mut launch.network),
            user: launch.user.take(),
            rules: launch.places.as_deref().map(Rules::new).transpose()?.flatten(),
            max_file: launch.max_file,
        })
    }

    /// Gets into its cgroup, namespaces, limits and user.
    fn enter(&self) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            rustix::io::write(cgroup, b"0")?;
        }
        match &self.network {
            Namespace::Runner => {}
            Namespace::Empty => unshare(UnshareFlags::NEWNET)?,
            Namespace::Of(namespace) => {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
        }
        limit(Resource::Core, 0)?;
        limit(Resource::Fsize, self.max_file)?;
        let Some(user) = &self.user else { return Ok(()) };
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)?;
        user.jail.enter()?;
        limit(Resource::Nproc, MAX_THREADS)?;
        let (uid, gid) = (Uid::from_raw(user.identity.uid), Gid::from_raw(user.identity.gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        // Takes all capabilities with it.
        Ok(set_thread_res_uid(uid, uid, uid)?)
    }

    /// Gives up what it could get back by the programs and files that it runs and opens.
    fn confine(&self) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        match &self.rules {
            Some(rules) => rules.enter(),
            None => Ok(()),
        }
    }
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    #[expect(unsafe_code, reason = "descriptors that threads share could be unshared by it")]
    // SAFETY: none of the flags is about descriptors, and the caller is the child of a fork with one thread.
    unsafe {
        Ok(rustix::thread::unshare_unsafe(flags)?)
    }
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource);
    let most = now.maximum.map_or(most, |maximum| maximum.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Numbers below this are for what is inherited.
const OTHERS: RawFd = 1001;

/// Gives open descriptors the numbers that go with them, kept across the start of a program.
fn give_numbers(inherit: &mut [(RawFd, RawFd)]) -> io::Result<()> {
    let checked = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    for (fd, number) in inherit.iter_mut().filter(|(fd, number)| fd != number) {
        // Out of the way of the others' numbers first, if the limit of descriptors has room there.
        let above = OTHERS.min(number.saturating_add(200));
        #[expect(
            unsafe_code,
            reason = "a descriptor of the parent is known to the child by its number alone"
        )]
        // SAFETY: the calls take numbers; `Launch::inherit` keeps the descriptor open until the program runs.
        unsafe {
            *fd = checked(libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, above))?;
        }
    }
    for (fd, number) in inherit {
        #[expect(
            unsafe_code,
            reason = "a descriptor of the parent is known to the child by its number alone"
        )]
        // SAFETY: the calls take numbers; whatever had the number is of no use to the child any more.
        unsafe {
            if *fd == *number {
                checked(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            } else {
                checked(libc::dup2(*fd, *number))?;
            }
        }
    }
    Ok(())
}

/// A monitor's process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    end: End,
    /// Whose end would be the process's.
    launcher: Option<Arc<Launcher>>,
}

/// How a process is ended, and its end noticed.
#[derive(Debug, Clone)]
enum End {
    /// It is a child of this process.
    Child(Arc<OwnedFd>),
    /// The root helper has it, and ends it when the connection closes.
    Helper(Arc<Connection>),
}

impl End {
    fn kill(&self) {
        match self {
            // The only possible error is that the process has ended.
            Self::Child(pidfd) => drop(pidfd_send_signal(&**pidfd, Signal::KILL)),
            // The helper takes it for the end of the connection, and can still tell the process's end.
            Self::Helper(connection) => drop(rustix::net::shutdown(&**connection, Shutdown::Write)),
        }
    }
}

/// Kills a process without being its owner.
#[derive(Debug)]
pub(crate) struct Killer(End);

impl Killer {
    /// Sends SIGKILL. Without effect if it is gone.
    pub(crate) fn kill(&self) {
        self.0.kill();
    }
}

impl Process {
    /// One that the root helper has started.
    pub(crate) fn helped(pid: u32, connection: Connection) -> Self {
        Self { pid, end: End::Helper(Arc::new(connection)), launcher: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends SIGKILL. Without effect if it is gone.
    pub(crate) fn kill(&self) {
        self.end.kill();
    }

    /// What else can kill it.
    pub(crate) fn killer(&self) -> Killer {
        Killer(self.end.clone())
    }

    /// Waits for the end and takes the status. To be called once, by the process's one owner: it goes on after this
    /// `Process` is dropped, so that no zombie stays.
    pub(crate) fn reaped(&self) -> impl Future<Output = ProcessStatus> + Send + 'static {
        let (end, launcher) = (self.end.clone(), self.launcher.clone());
        async move {
            let status = match &end {
                End::Child(pidfd) => reap(pidfd).await,
                End::Helper(connection) => match connection.receive::<Ended>().await {
                    Ok((Ended { status }, _)) => status,
                    Err(_) => ProcessStatus::Unknown,
                },
            };
            drop(launcher);
            status
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn reap(pidfd: &OwnedFd) -> ProcessStatus {
    let Ok(watched) = watch(pidfd) else { return ProcessStatus::Unknown };
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => return status_of(&status),
            Ok(None) | Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => return ProcessStatus::Unknown,
        }
        // A pidfd stays readable, so there is nothing to clear before the status is taken.
        match watched.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_) => return ProcessStatus::Unknown,
        }
    }
}

fn status_of(status: &rustix::process::WaitIdStatus) -> ProcessStatus {
    if let Some(code) = status.exit_status() {
        ProcessStatus::Code(code)
    } else if let Some(signal) = status.terminating_signal() {
        ProcessStatus::Signal(signal)
    } else {
        ProcessStatus::Unknown
    }
}

fn watch(pidfd: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = pidfd.try_clone()?;
    #[expect(unsafe_code, reason = "tokio has no safe way to register a descriptor")]
    // SAFETY: an `OwnedFd` is one and the same open descriptor until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// What is published once, for any number of waiters.
pub(crate) type Published<T> = watch::Receiver<Option<T>>;

/// Waits for what is published, or `None` if that will never be.
pub(crate) async fn published<T: Copy>(mut value: Published<T>) -> Option<T> {
    value.wait_for(Option::is_some).await.ok().and_then(|value| *value)
}
