//! What touches the system: namespaces, the tap device, programs and settings of the kernel.
//!
//! A network namespace is a property of a thread. Whatever works in one gets a thread of its own that ends with the
//! work, so that no thread of a runtime is ever in the wrong namespace.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    ioctl::{IntegerSetter, Setter, ioctl},
    thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space},
};
use tokio::sync::oneshot;

use crate::NetError;

/// A network namespace, which lives as long as a descriptor, process or socket of it.
#[derive(Debug, Clone)]
pub(super) struct Namespace(Arc<OwnedFd>);

impl Namespace {
    /// The calling thread's.
    pub(super) fn own() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// That of a path, such as those of `ip netns`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)))
    }

    /// Moves the calling thread into a new one. Only for threads that end with their work in such.
    pub(super) fn enter_new() -> Result<Self, NetError> {
        #[expect(
            unsafe_code,
            reason = "unshare can break what threads share; this flag concerns one thread only"
        )]
        // SAFETY: `NEWNET` gives the calling thread a network namespace of its own and changes nothing else.
        let made = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        made.map_err(|e| NetError::system("make a network namespace", e))?;
        Self::own().map_err(|e| NetError::system("open a network namespace", e))
    }

    /// A name that no other namespace of the machine has while this one lives.
    pub(super) fn key(&self) -> io::Result<String> {
        Ok(format!("net-{}", rustix::fs::fstat(&*self.0)?.st_ino))
    }

    /// What keeps it alive.
    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        self.0.clone()
    }

    /// A path by which other processes of this user find it while this one lives.
    pub(super) fn path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs work in the namespace, on a thread of its own.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        let namespace = self.clone();
        on_thread((), move || {
            namespace.enter()?;
            work()
        })
        .await
    }

    /// Like [`Namespace::run`], for callers that may wait.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        let namespace = self.clone();
        let run = move || {
            namespace.enter()?;
            work()
        };
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(run);
        thread.map_err(|e| NetError::system("start a thread", e))?.join().unwrap_or_else(|_| Err(ended()))
    }

    fn enter(&self) -> Result<(), NetError> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| NetError::system("enter a network namespace", e))
    }
}

/// Where the host's own sockets are opened, which are none of a guest.
#[derive(Debug, Clone)]
pub(super) enum HostSide {
    /// In the namespace of this process, which may have no right to enter any.
    Here,
    /// In another one.
    In(Namespace),
}

impl HostSide {
    /// Runs work that opens sockets, on a thread of its own.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        match self {
            Self::Here => on_thread((), work).await,
            Self::In(namespace) => namespace.run(work).await,
        }
    }

    /// The name of its namespace, as of [`Namespace::key`].
    pub(super) fn key(&self) -> io::Result<String> {
        match self {
            Self::Here => Namespace::own()?.key(),
            Self::In(namespace) => namespace.key(),
        }
    }
}

const THREAD: &str = "tart-netns";

/// Runs work on a thread of its own, in the namespace of the caller. Work goes on if nobody waits for it any more;
/// what it made is dropped then, and after that `kept`.
pub(super) async fn on_thread<T: Send + 'static>(
    kept: impl Send + 'static,
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        let _abandoned = sender.send(work());
        drop(kept);
    };
    spawn(run)?;
    receiver.await.unwrap_or_else(|_| Err(ended()))
}

/// Starts a thread for namespaces.
pub(super) fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), NetError> {
    let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(run);
    thread.map(drop).map_err(|e| NetError::system("start a thread", e))
}

fn ended() -> NetError {
    NetError::system("work in a network namespace", io::Error::other("the thread ended early"))
}

/// Why this process may not make networks, if so.
pub(super) fn missing_capability() -> Option<&'static str> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN")]
        .into_iter()
        .find(|(capability, _)| !effective.contains(*capability))
        .map(|(_, name)| name)
}

/// `struct ifreq` as far as `TUNSETIFF` reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `TUNSETIFF` of `linux/if_tun.h`.
const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<libc::c_int>(b'T', 202);
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// Frames come with a header that lets large segments and unfinished checksums pass.
const IFF_VNET_HDR: u16 = 0x4000;

/// `TUNSETPERSIST`: the device stays without its descriptor, until its namespace is gone.
const TUNSETPERSIST: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<libc::c_int>(b'T', 203);

/// Makes a tap device in the calling thread's namespace that whoever knows its name can open.
pub(super) fn make_tap(name: &str) -> Result<(), NetError> {
    let fd = open_tap(name)?;
    #[expect(unsafe_code, reason = "rustix has no wrapper of this ioctl")]
    // SAFETY: `TUNSETPERSIST` takes a number instead of a pointer.
    let kept = unsafe { ioctl(&fd, IntegerSetter::<TUNSETPERSIST>::new_usize(1)) };
    kept.map_err(|e| NetError::system("keep a tap device", e))
}

/// Makes a tap device in the calling thread's namespace. It is gone with its descriptor.
pub(super) fn open_tap(name: &str) -> Result<OwnedFd, NetError> {
    let failed = |e: rustix::io::Errno| NetError::system("make a tap device with /dev/net/tun", e);
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(failed)?;
    let mut request =
        InterfaceRequest { name: [0; 16], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, rest: [0; 22] };
    // The last byte stays zero.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    #[expect(unsafe_code, reason = "rustix has no wrapper of this ioctl")]
    // SAFETY: `TUNSETIFF` reads one `struct ifreq`, whose size and layout `InterfaceRequest` has.
    let made = unsafe { ioctl(&fd, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) };
    made.map_err(failed)?;
    Ok(fd)
}

/// Runs a program in the calling thread's namespace and returns what it prints.
pub(super) fn program(name: &'static str, arguments: &[&str], input: &str) -> Result<String, NetError> {
    let refuse = |reason: String| NetError::Program { network: super::NAME, program: name.into(), reason };
    let mut command = Command::new(name);
    command.args(arguments).env_clear().env("PATH", PATH);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            refuse(format!("it is not installed; install the package {}", package(name)))
        }
        _ => refuse(error.to_string()),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // Both programs read to the end before they print much; a program that ended early says why.
        let _ended = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| refuse(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it failed");
    Err(refuse(line.to_owned()))
}

/// Where both programs are, also for a runner whose own search path has no `sbin`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn package(program: &str) -> &'static str {
    if program == "nft" { "nftables" } else { "iproute2" }
}

/// Runs commands of `ip`.
pub(super) fn ip(commands: &str) -> Result<(), NetError> {
    program("ip", &["-batch", "-"], commands).map(drop)
}

/// Applies a rule set, all of it or nothing.
pub(super) fn nft(rules: &str) -> Result<(), NetError> {
    program("nft", &["-f", "-"], rules).map(drop)
}

/// Sets something below `/proc/sys/net`, which is that of the calling thread's namespace. What the kernel does not
/// have needs no setting.
pub(super) fn set(name: &str, value: &str) -> Result<(), NetError> {
    let path = Path::new("/proc/sys/net").join(name);
    let written =
        File::options().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
    match written {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetError::system(format!("write {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Reads something below `/proc/sys/net`.
pub(super) fn get(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
    Some(text.trim().to_owned())
}
