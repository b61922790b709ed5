//! What open and message frames say: typed requests, events and controls, encoded with postcard.
//!
//! Host and agent come from one build, so there is no version negotiation within these types; a change of any of
//! them raises [`crate::limits::VERSION`].

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits::MAX_MESSAGE;

/// Channel that carries standard input (host to guest) and file contents (either way).
pub const CHANNEL_STDIN: u8 = 0;
/// Channel of standard output, and of merged output and ptys.
pub const CHANNEL_STDOUT: u8 = 1;
/// Channel of standard error.
pub const CHANNEL_STDERR: u8 = 2;

/// First stream of every session, opened by the guest: its [`GuestOpen::Hello`] says that it is ready.
pub const HELLO_STREAM: u32 = 2;

/// The file tree that a path or command belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Root {
    /// The agent's own initramfs; mounts and diagnostics only.
    Agent,
    /// The helper disk: git, git-lfs, CA certificates, a shell.
    Helper,
    /// The job image under its overlay: what user scripts see.
    Job,
    /// The image of a service under its overlay, from 0 and below [`MAX_SERVICES`]. A command in it is the first
    /// process of namespaces of its own: processes, names, shared memory, cgroups and the service's network.
    Service(u8),
}

/// Most services of a guest.
pub const MAX_SERVICES: u8 = 16;

impl Root {
    /// Where the agent mounts this tree, as an absolute path in its own mount namespace.
    #[must_use]
    pub fn mount_point(self) -> Cow<'static, str> {
        match self {
            Self::Agent => "/".into(),
            Self::Helper => "/run/tart/helper".into(),
            Self::Job => "/run/tart/job".into(),
            Self::Service(number) => format!("/run/tart/services/{number}").into(),
        }
    }
}

/// What the host asks of the guest; the payload of an open frame from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostOpen {
    /// Sets the guest up: clock, entropy, names, network. Answered by [`GuestEvent::Done`].
    Configure(Configure),
    /// Makes mounts in the given order. Answered by [`GuestEvent::Done`].
    Mount(Vec<MountStep>),
    /// Makes the network of the services. Answered by [`GuestEvent::Done`].
    ServiceNetwork(ServiceNetwork),
    /// Tries to connect from the job's network until somebody accepts. Answered by [`GuestEvent::Done`]; closing the
    /// stream ends the attempts.
    AwaitPort {
        /// Address and TCP port.
        address: SocketAddr,
    },
    /// Runs a command. Answered by [`GuestEvent::Started`], data on the output channels, and
    /// [`GuestEvent::Exited`] after both channels ended or their grace passed.
    Exec(Exec),
    /// Writes a file from channel 0 until its end. Answered by [`GuestEvent::Done`].
    PutFile(PutFile),
    /// Reads a file: data on channel 0, then [`GuestEvent::Done`].
    GetFile(GetFile),
    /// Listens in the guest; each accepted connection becomes a [`GuestOpen::Connect`]. Answered by
    /// [`GuestEvent::Done`]; the listener lives until the stream is closed or reset.
    Listen(Listen),
    /// Sets the wall clock, nanoseconds since 1970. Answered by [`GuestEvent::Done`].
    SetTime {
        /// Nanoseconds since 1970-01-01 UTC.
        unix_nanos: u64,
    },
    /// Mixes host randomness into the kernel's pool and reseeds it. Answered by [`GuestEvent::Done`].
    Reseed {
        /// At least 32 bytes from the host's generator.
        entropy: Vec<u8>,
    },
    /// Asks for [`GuestEvent::Stats`].
    Stats,
    /// Kills everything, syncs and resets the machine. Answered by [`GuestEvent::Done`] just before.
    Shutdown,
}

/// What the guest opens towards the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestOpen {
    /// First stream of a session: the agent is ready.
    Hello(Hello),
    /// A connection accepted by a [`Listen`]; bytes flow on channel 0 both ways.
    Connect {
        /// [`Listen::forward`] of the listener.
        forward: u32,
    },
}

/// What a ready agent tells of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the agent's package.
    pub agent_version: String,
    /// `uname -r`.
    pub kernel: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Memory the kernel manages, in bytes.
    pub memory_bytes: u64,
    /// Guest uptime when PID 1 started, in microseconds.
    pub init_uptime_usec: u64,
    /// Guest uptime when this message was made, in microseconds.
    pub ready_uptime_usec: u64,
}

/// One-time set-up of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {
    /// Wall clock, nanoseconds since 1970-01-01 UTC.
    pub unix_nanos: u64,
    /// Host randomness, at least 32 bytes.
    pub entropy: Vec<u8>,
    /// Host name of the guest.
    pub hostname: String,
    /// 32 hex digits for `/etc/machine-id` of the trees that have one.
    pub machine_id: String,
    /// Network interfaces to bring up; the loopback always is.
    pub interfaces: Vec<Interface>,
    /// Extra lines of `/etc/hosts`: address and names.
    pub hosts: Vec<(String, Vec<String>)>,
    /// Name servers for `/etc/resolv.conf`.
    pub nameservers: Vec<String>,
    /// Search domains for `/etc/resolv.conf`.
    pub search_domains: Vec<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// MAC address that identifies it, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Addresses with prefix length, for example `10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// Default gateways, at most one per address family.
    pub gateways: Vec<String>,
    /// MTU in bytes, if not the kernel's default.
    pub mtu: Option<u32>,
}

/// The network between the job and its services: a bridge with an address of the job's, and a network namespace for
/// each service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNetwork {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// The job's address on it, with prefix length: the services' gateway.
    pub gateway: String,
    /// MTU of the services' interfaces in bytes, if not the kernel's default.
    pub mtu: Option<u32>,
    /// The services; the position is the number of [`Root::Service`].
    pub services: Vec<ServiceHost>,
    /// Lines of `/etc/hosts` in all trees, after those of [`Configure::hosts`]: address and names.
    pub hosts: Vec<(String, Vec<String>)>,
}

/// A service on the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHost {
    /// Its address, within the gateway's prefix.
    pub address: String,
    /// Its host name.
    pub hostname: String,
}

/// A disk of the guest: by serial where the driver can set one (QEMU), else by its position among the disks. Serials that
/// Firecracker sets by itself have no letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `/sys/block/vdX/serial`; has a letter.
    pub serial: String,
    /// 0 for `vda`, 1 for `vdb`, ...
    pub position: u8,
    /// Its size in bytes, if the guest may have seen it with another image; 0 otherwise.
    pub bytes: u64,
}

/// One step of setting up the guest's file trees. Paths are absolute in the agent's mount namespace, see
/// [`Root::mount_point`]; missing target directories are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountStep {
    /// Mounts a disk.
    Disk {
        /// Which disk.
        disk: Disk,
        /// Mount point.
        target: String,
        /// Kernel name of the file system, for example `squashfs`.
        fstype: String,
        /// Mount read-only.
        read_only: bool,
        /// File system specific options.
        options: String,
    },
    /// Mounts an overlay.
    Overlay {
        /// Read-only layers, topmost first.
        lower: Vec<String>,
        /// Writable layer; made if missing.
        upper: String,
        /// Work directory beside it; made if missing.
        work: String,
        /// Mount point.
        target: String,
    },
    /// Binds a directory to a second place.
    Bind {
        /// Existing directory; made if missing.
        source: String,
        /// Mount point.
        target: String,
    },
    /// Binds a directory to a second place, unless there are files already. The directory gets owner and mode of
    /// what it hides.
    Volume {
        /// Existing directory; made if missing.
        source: String,
        /// Mount point.
        target: String,
    },
    /// Mounts a tmpfs.
    Tmpfs {
        /// Mount point.
        target: String,
        /// Permission bits.
        mode: u32,
        /// Size limit in bytes; 0 for the kernel's default (half the memory).
        size_bytes: u64,
    },
    /// Makes a directory.
    Directory {
        /// Its path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Mounts proc, sysfs, a full `/dev` (with pts, shm, mqueue), `/run` and cgroup2 into a tree, and gives it
    /// `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
    System {
        /// The tree.
        root: Root,
    },
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Tree it runs in.
    pub root: Root,
    /// Program and arguments. A program without a slash is looked up in the `PATH` of `env` within the tree.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory within the tree.
    pub cwd: String,
    /// `""` for root, else `user`, `uid`, `user:group` or `uid:gid`, looked up in the tree's `/etc/passwd` and
    /// `/etc/group`.
    pub user: String,
    /// Where its output goes.
    pub output: Output,
    /// Standard input comes from channel 0; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// cgroup of the step, `[a-z0-9_-]{1,64}`. Commands with the same name share it.
    pub cgroup: String,
    /// Limits of that cgroup.
    pub limits: Limits,
}

/// The program of [`Exec::argv`] that is the agent's own helper, for archives; it is in every tree.
pub const HELPER: &str = "tart-helper";

/// Where a command's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Standard output on channel 1, standard error on channel 2.
    Separate,
    /// Both on channel 1, in the order written.
    Merged,
    /// A pseudo terminal; output on channel 1, input from channel 0.
    Pty {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        cols: u16,
    },
}

/// Limits of a step's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; 0 for what the machine has less a reserve for the agent.
    pub memory_bytes: u64,
    /// Processes and threads; 0 for no limit of its own.
    pub pids: u64,
}

/// A file to write. It is replaced as a whole; a broken transfer leaves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutFile {
    /// Tree of the file.
    pub root: Root,
    /// Absolute path within the tree. Symbolic links are resolved within the tree.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// As [`Exec::user`].
    pub owner: String,
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetFile {
    /// Tree of the file.
    pub root: Root,
    /// Absolute path within the tree. Symbolic links are resolved within the tree.
    pub path: String,
    /// A larger file is refused, in bytes.
    pub max_bytes: u64,
}

/// A listener in the guest that forwards to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Named in every [`GuestOpen::Connect`].
    pub forward: u32,
    /// Guest address to listen on, for example `127.0.0.1:80`; an address not yet local is added to the loopback.
    pub address: String,
}

/// What the guest says within a stream that the host opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestEvent {
    /// The request is done.
    Done,
    /// The request failed.
    Failed(Failure),
    /// The command runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The command ended, and everything it left in its cgroup is dealt with as asked.
    Exited(Exited),
    /// Answer to [`HostOpen::Stats`].
    Stats(Stats),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Class that the host acts on.
    pub kind: FailureKind,
    /// For people: what failed and why.
    pub message: String,
}

/// Classes of failures that the host tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program, file, user or directory is not there.
    NotFound,
    /// It is there but may not be used so (permission, not executable, not a regular file).
    Denied,
    /// The request is malformed or over a limit.
    Invalid,
    /// The guest's disk or memory is full.
    NoSpace,
    /// Anything else the guest's kernel said.
    Other,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Processes of the step's cgroup that the kernel killed for lack of memory, while this command ran.
    pub oom_kills: u64,
    /// CPU time of the step's cgroup while this command ran, in microseconds.
    pub cpu_usec: u64,
    /// Peak memory of the step's cgroup, in bytes; 0 if the kernel does not say.
    pub memory_peak_bytes: u64,
}

/// Exit code or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// `exit(code)`.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
}

/// Counters of the whole guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Uptime in microseconds.
    pub uptime_usec: u64,
    /// CPU time of everything but idle, in microseconds.
    pub cpu_usec: u64,
    /// Memory the kernel manages, in bytes.
    pub memory_total_bytes: u64,
    /// Memory that can be had without swapping, in bytes.
    pub memory_available_bytes: u64,
    /// Size of the scratch disk's file system, in bytes; 0 without one.
    pub disk_total_bytes: u64,
    /// Free space of it, in bytes.
    pub disk_free_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
}

/// What the host says within an exec stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostControl {
    /// Sends a signal to the command's process group.
    Signal(i32),
    /// TERM to the whole cgroup, KILL of the whole cgroup after the grace.
    Cancel {
        /// Milliseconds between the two.
        grace_ms: u32,
    },
    /// New size of the pty.
    Resize {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        cols: u16,
    },
}

/// A message does not fit the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It is larger than a frame may be.
    #[error("message of {0} bytes is over the limit of {MAX_MESSAGE} bytes")]
    TooLarge(usize),
    /// The bytes do not decode, or something follows them.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Encodes a message.
///
/// # Errors
/// [`MessageError::TooLarge`] if it does not fit one frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, MessageError> {
    let bytes = postcard::to_allocvec(message).map_err(|e| MessageError::Malformed(e.to_string()))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLarge(bytes.len()));
    }
    Ok(bytes.into())
}

/// Decodes a message; bytes left over are an error.
///
/// # Errors
/// [`MessageError::Malformed`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let (message, rest) =
        postcard::take_from_bytes(bytes).map_err(|e| MessageError::Malformed(e.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(MessageError::Malformed(format!("{} bytes left over", rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_round_trip() {
        let exec = HostOpen::Exec(Exec {
            root: Root::Job,
            argv: vec!["sh".into(), "-c".into(), "true".into()],
            env: vec![("A".into(), "ü\n".into())],
            cwd: "/".into(),
            user: "1000:1000".into(),
            output: Output::Pty { rows: 24, cols: 80 },
            stdin: true,
            cgroup: "step_script".into(),
            limits: Limits { memory_bytes: 1 << 30, pids: 100 },
        });
        assert_eq!(decode::<HostOpen>(&encode(&exec).unwrap()).unwrap(), exec);
    }

    #[test]
    fn left_over_bytes_are_refused() {
        let mut bytes = encode(&HostOpen::Stats).unwrap().to_vec();
        bytes.push(0);
        assert!(matches!(decode::<HostOpen>(&bytes), Err(MessageError::Malformed(_))));
    }

    #[test]
    fn a_message_over_the_limit_is_not_encoded() {
        let request = HostOpen::Reseed { entropy: vec![0; MAX_MESSAGE + 1] };
        assert!(matches!(encode(&request), Err(MessageError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn hostile_messages_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _event = decode::<GuestEvent>(&bytes);
            let _open = decode::<GuestOpen>(&bytes);
            let _request = decode::<HostOpen>(&bytes);
        }
    }
}
