//! What the agent knows of the guest it is in, shared by all sessions and requests.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rustix::{fd::AsFd, time::ClockId};
use tart_proto::message::{Hello, Root};
use tokio_util::task::TaskTracker;

use crate::{
    exec::{cgroup::Cgroups, reaper::Reaper},
    stats,
    tree::Trees,
};

/// The guest.
#[derive(Debug)]
pub struct Machine {
    pub(crate) trees: Trees,
    pub(crate) cgroups: Cgroups,
    pub(crate) reaper: Reaper,
    /// Holds the files that every tree's `/etc` gets, so that a later change is seen in all of them.
    pub(crate) etc: PathBuf,
    /// What outlives the command it was started for.
    pub(crate) background: TaskTracker,
    init_uptime: Duration,
    mounts: Mutex<Mounts>,
    job_namespace: OnceLock<OwnedFd>,
}

/// What was mounted on request.
#[derive(Debug, Default)]
struct Mounts {
    /// Mount points, in the order made.
    points: Vec<PathBuf>,
    /// The file system that a job fills: the first writable disk.
    scratch: Option<PathBuf>,
}

impl Machine {
    /// A machine with nothing mounted yet. `etc` is a directory of the agent's own; `init_uptime` is the guest's
    /// uptime when the agent started.
    #[must_use]
    pub fn new(
        trees: Trees,
        cgroups: Cgroups,
        reaper: Reaper,
        etc: impl Into<PathBuf>,
        init_uptime: Duration,
    ) -> Self {
        Self {
            trees,
            cgroups,
            reaper,
            etc: etc.into(),
            background: TaskTracker::new(),
            init_uptime,
            mounts: Mutex::default(),
            job_namespace: OnceLock::new(),
        }
    }

    /// The message that says the agent is ready.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            memory_bytes: stats::memory_total(),
            init_uptime_usec: stats::micros(self.init_uptime),
            ready_uptime_usec: stats::micros(uptime()),
        }
    }

    /// The mount namespace whose root is the tree, if it has one.
    pub(crate) fn namespace_of(&self, root: Root) -> Option<BorrowedFd<'_>> {
        match root {
            Root::Job => self.job_namespace.get().map(AsFd::as_fd),
            Root::Agent | Root::Helper => None,
        }
    }

    /// Gives the job tree its mount namespace, once.
    pub(crate) fn set_job_namespace(&self, namespace: OwnedFd) {
        // A second one would be the same tree.
        let _first = self.job_namespace.set(namespace);
    }

    pub(crate) fn has_job_namespace(&self) -> bool {
        self.job_namespace.get().is_some()
    }

    pub(crate) fn mounted(&self, point: PathBuf) {
        self.mounts().points.push(point);
    }

    /// Takes the mount points, the last made first.
    pub(crate) fn take_mounts(&self) -> Vec<PathBuf> {
        let mut points = std::mem::take(&mut self.mounts().points);
        points.reverse();
        points
    }

    pub(crate) fn add_scratch(&self, point: &Path) {
        self.mounts().scratch.get_or_insert_with(|| point.to_owned());
    }

    pub(crate) fn scratch(&self) -> Option<PathBuf> {
        self.mounts().scratch.clone()
    }

    fn mounts(&self) -> MutexGuard<'_, Mounts> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time since the guest's kernel started.
#[must_use]
pub fn uptime() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
