//! What is known of a host: the facts that findings are made of.

use std::ops::Range;
use std::path::PathBuf;

/// What a host is, as far as Firecracker minds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The processor.
    pub(super) cpu: Cpu,
    /// Modules of KVM in the kernel, such as `kvm_intel`.
    pub(super) kvm_modules: Vec<String>,
    /// `/dev/kvm`.
    pub(super) kvm: Device,
    /// Why the user who asks cannot open it, if that is the service's user.
    pub(super) kvm_open: Option<Result<(), String>>,
    /// Whom the service runs as.
    pub(super) user: User,
    /// The socket of the root helper that the service uses.
    pub(super) helper: Option<PathBuf>,
    /// What Firecracker says of its version.
    pub(super) firecracker: Program,
    /// What the jailer says of its.
    pub(super) jailer: Program,
    /// What nft says of its.
    pub(super) nft: Program,
    /// `/dev/net/tun`.
    pub(super) tun: Device,
    /// Packets are forwarded.
    pub(super) forwarding: Forwarding,
    /// Control groups.
    pub(super) cgroup: Cgroup,
    /// Pages of 2 MiB: all, and free ones.
    pub(super) huge_pages: (u64, u64),
    /// Transparent huge pages can be had.
    pub(super) transparent_pages: bool,
    /// Whether faults of memory can be served by the service's user.
    pub(super) userfaultfd: bool,
    /// Bytes of swap space.
    pub(super) swap: u64,
    /// Equal pages of processes are merged.
    pub(super) ksm: bool,
    /// Two threads share a core.
    pub(super) smt: bool,
    /// Users and groups of machines.
    pub(super) uids: Range<u64>,
    /// Users of this host and ranges for their namespaces, by name.
    pub(super) taken_uids: Vec<(String, Range<u64>)>,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cpu {
    /// Intel's virtualization.
    pub(super) vmx: bool,
    /// AMD's.
    pub(super) svm: bool,
    /// It is itself a virtual one.
    pub(super) virtual_machine: bool,
}

/// A device's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// It is not there.
    Missing,
    /// There is something else that is no device.
    Other,
    /// It is there.
    Present {
        /// The low bits of its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl Device {
    pub(super) fn exists(self) -> bool {
        matches!(self, Self::Present { .. })
    }

    /// Whether its mode lets a user read and write it.
    pub(super) fn is_for(self, user: &User) -> bool {
        let Self::Present { mode, uid, gid } = self else { return false };
        const BOTH: u32 = 0o6;
        let bits = if user.uid == uid {
            mode >> 6
        } else if user.gids.contains(&gid) {
            mode >> 3
        } else {
            mode
        };
        user.uid == 0 || bits & BOTH == BOTH
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    /// All groups.
    pub(super) gids: Vec<u32>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// The answer to `--version`, or why there is none.
    pub(super) said: Result<String, String>,
}

/// Whether packets are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// By all devices.
    On,
    /// By those for which it is switched on, which can be done.
    Possible,
    /// The settings cannot be written.
    Fixed,
}

/// The control groups of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cgroup {
    /// Version 2 is mounted.
    pub(super) unified: bool,
    /// Controllers of the process's own group.
    pub(super) controllers: Vec<String>,
    /// Groups can be made below it.
    pub(super) writable: bool,
}
