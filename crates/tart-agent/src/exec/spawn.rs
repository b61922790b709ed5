//! Starting a process: everything between a request and its first instruction.

use std::{
    ffi::CStr,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags},
    pipe::PipeFlags,
    process::{Gid, Pid, Resource, Rlimit, Uid},
    pty::OpenptFlags,
    termios::Winsize,
};
use tart_proto::message::{CHANNEL_STDERR, CHANNEL_STDOUT, Exec, ExitStatus, Failure, HELPER, Output, Root};
use tokio::{io::unix::AsyncFd, sync::oneshot};

use super::{
    cgroup::Step,
    isolation::{self, Isolation},
    program,
};
use crate::{
    failure,
    machine::Machine,
    readiness,
    tree::Tree,
    users::{self, User},
};

/// Open files a command may have, as in Docker's containers of long standing.
const MAX_OPEN_FILES: u64 = 1024 * 1024;

/// The agent itself.
const AGENT: &str = "/proc/self/exe";

/// First file descriptor that is not a standard one.
const FIRST_OTHER_FD: libc::c_uint = 3;

/// A process that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) exit: oneshot::Receiver<ExitStatus>,
    /// Where standard input goes.
    pub(super) stdin: Option<AsyncFd<OwnedFd>>,
    /// Channel and source of each output.
    pub(super) outputs: Vec<(u8, AsyncFd<OwnedFd>)>,
    /// Our side of the terminal, for its size.
    pub(super) terminal: Option<OwnedFd>,
}

/// The ends of a command's standard streams.
struct Streams {
    child: [Stdio; 3],
    stdin: Option<OwnedFd>,
    outputs: Vec<(u8, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

/// Starts the command of a request in the step's cgroup.
pub(super) fn spawn(machine: &Machine, request: &Exec, step: &Step) -> Result<Running, Failure> {
    let tree = machine.trees.open(request.root)?;
    let user = users::resolve(&tree, &request.user)?;
    let [name, arguments @ ..] = request.argv.as_slice() else {
        return Err(failure::invalid("the command has no program"));
    };
    if !request.cwd.starts_with('/') {
        return Err(failure::invalid(format!("the working directory `{}` is not absolute", request.cwd)));
    }
    let entered = match request.root {
        // As Docker does.
        Root::Service(_) => tree.directory(&request.cwd, (Uid::ROOT, Gid::ROOT)),
        _ => tree.open(&request.cwd, OFlags::PATH | OFlags::DIRECTORY),
    };
    entered
        .map_err(|e| failure::system(format!("cannot enter the working directory `{}`", request.cwd), e))?;
    let search = request.env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_str());
    let program = if name == HELPER {
        // The kernel finds it outside of the tree: the new process is still the agent when it executes this.
        AGENT.to_owned()
    } else {
        program::find(&tree, name, search, &request.cwd)?
    };

    let streams = streams(request, &tree, &user)
        .map_err(|e| failure::system("cannot make the streams of the command", e))?;
    let entrance = step.entrance().map_err(|e| failure::system("cannot open the step's cgroup", e))?;
    let cannot_run = |e| failure::system(format!("cannot run `{program}`"), e);

    let mut command = Command::new(&program);
    command.arg0(name).args(arguments).env_clear();
    // As Docker does: the host cannot know what the image's user database says.
    command.env("HOME", &user.home);
    command.envs(request.env.iter().map(|(key, value)| (key, value)));
    let [stdin, stdout, stderr] = streams.child;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let namespace = machine.namespace_of(request.root);
    let isolation = match request.root {
        Root::Service(number) => Some(Isolation::new(machine, number, step)?),
        _ => None,
    };
    let child = Child {
        cgroup: entrance.as_raw_fd(),
        isolation,
        place: match &namespace {
            Some(namespace) => Place::Namespace(namespace.as_raw_fd()),
            None => Place::Root(tree.root().as_raw_fd()),
        },
        terminal: streams.terminal.is_some(),
        cwd: std::ffi::CString::new(request.cwd.as_str()).map_err(|e| cannot_run(e.into()))?,
        user,
    };
    #[expect(unsafe_code, reason = "code between fork and exec")]
    // SAFETY: `Child::prepare` makes system calls on values made before the fork, and nothing else: no allocation,
    // no lock. The descriptors it is given are open until `spawn` has returned.
    unsafe {
        command.pre_exec(move || child.prepare().map_err(io::Error::from));
    }
    let (pid, exit) = machine
        .reaper
        .start(|| {
            let id = i32::try_from(command.spawn()?.id()).ok().and_then(Pid::from_raw);
            id.ok_or_else(|| io::Error::other("the kernel gave an impossible process id"))
        })
        .map_err(cannot_run)?;
    // Its copies of the child's ends would keep the streams open.
    drop(command);

    let watch = |fd| {
        rustix::io::ioctl_fionbio(&fd, true)?;
        readiness::watch(fd)
    };
    let running = || -> io::Result<Running> {
        Ok(Running {
            pid,
            exit,
            stdin: streams.stdin.map(watch).transpose()?,
            outputs: streams
                .outputs
                .into_iter()
                .map(|(channel, fd)| Ok((channel, watch(fd)?)))
                .collect::<io::Result<_>>()?,
            terminal: streams.terminal,
        })
    };
    running().map_err(|e| {
        let _gone = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        failure::system("cannot watch the streams of the command", e)
    })
}

fn streams(request: &Exec, tree: &Tree, user: &User) -> io::Result<Streams> {
    if let Output::Pty { rows, cols } = request.output {
        return terminal(tree, user, rows, cols);
    }
    // A user other than root may open /dev/stdout only if the pipe is its own.
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fchown(&read, Some(user.uid), Some(user.gid))?;
        Ok((read, write))
    };
    let (stdin, child_stdin) = if request.stdin {
        let (read, write) = pipe()?;
        (Some(write), Stdio::from(read))
    } else {
        (None, Stdio::null())
    };
    let (stdout, child_stdout) = pipe()?;
    let mut outputs = vec![(CHANNEL_STDOUT, stdout)];
    let child_stderr = if request.output == Output::Merged {
        child_stdout.try_clone()?
    } else {
        let (stderr, child_stderr) = pipe()?;
        outputs.push((CHANNEL_STDERR, stderr));
        child_stderr
    };
    let child = [child_stdin, child_stdout.into(), child_stderr.into()];
    Ok(Streams { child, stdin, outputs, terminal: None })
}

/// A terminal of the tree's own `devpts`, so that programs in it find its name; else of the agent's.
fn terminal(tree: &Tree, user: &User, rows: u16, cols: u16) -> io::Result<Streams> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = match tree.open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY) {
        Ok(fd) => fd,
        Err(_) => rustix::pty::openpt(flags)?,
    };
    rustix::pty::unlockpt(&ours)?;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    rustix::fs::fchown(&theirs, Some(user.uid), None)?;
    resize(ours.as_fd(), rows, cols)?;
    let child = [theirs.try_clone()?.into(), theirs.try_clone()?.into(), theirs.into()];
    let (input, output) = (ours.try_clone()?, ours.try_clone()?);
    Ok(Streams { child, stdin: Some(input), outputs: vec![(CHANNEL_STDOUT, output)], terminal: Some(ours) })
}

/// Sets the size of a terminal.
pub(super) fn resize(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> rustix::io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}

/// What the new process needs between fork and exec. Nothing in it may allocate when used.
struct Child {
    cgroup: RawFd,
    isolation: Option<Isolation>,
    place: Place,
    terminal: bool,
    cwd: std::ffi::CString,
    user: User,
}

/// How a process gets its root directory.
enum Place {
    /// The directory becomes its root.
    Root(RawFd),
    /// The root of the mount namespace is the tree.
    Namespace(RawFd),
}

impl Child {
    fn prepare(&self) -> rustix::io::Result<()> {
        #[expect(unsafe_code, reason = "rustix has no close_range")]
        // SAFETY: the call changes no memory; descriptors stay open until the exec.
        unsafe {
            libc::close_range(FIRST_OTHER_FD, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
        }
        rustix::io::write(borrow(self.cgroup), b"0")?;
        reset_oom_score()?;
        if let Some(isolation) = &self.isolation {
            isolation.enter()?;
        }
        rustix::process::setsid()?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        let files = Some(MAX_OPEN_FILES);
        // Only an agent that is not PID 1, as in tests, may lack the right to raise it; then it stays as it is.
        let _kept = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files });
        rustix::process::umask(Mode::from_raw_mode(0o022));
        match self.place {
            Place::Root(fd) => {
                rustix::process::fchdir(borrow(fd))?;
                rustix::process::chroot(c".")?;
            }
            Place::Namespace(fd) => {
                let kind = rustix::thread::LinkNameSpaceType::Mount;
                rustix::thread::move_into_link_name_space(borrow(fd), Some(kind))?;
            }
        }
        if self.isolation.is_some() {
            isolation::mount_own_view()?;
        }
        rustix::process::chdir(self.cwd.as_c_str())?;
        rustix::thread::set_thread_groups(&self.user.groups)?;
        set_ids(self.user.uid, self.user.gid)
    }
}

/// The agent is not to be killed for memory; its children are.
fn reset_oom_score() -> rustix::io::Result<()> {
    const SCORE: &CStr = c"/proc/self/oom_score_adj";
    let file = rustix::fs::open(SCORE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, b"0")?;
    Ok(())
}

fn set_ids(uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

pub(super) fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    #[expect(
        unsafe_code,
        reason = "a closure that outlives the borrow checker's view cannot hold a BorrowedFd"
    )]
    // SAFETY: only called between fork and exec with descriptors that `spawn` keeps open across it.
    unsafe {
        BorrowedFd::borrow_raw(fd)
    }
}
