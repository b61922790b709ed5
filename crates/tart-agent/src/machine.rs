//! What the agent knows of the guest it is in, shared by all sessions and requests.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::ClockId;
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
    namespaces: Mutex<HashMap<Root, Arc<OwnedFd>>>,
    services: Mutex<Vec<Arc<ServicePlace>>>,
}

/// Where the processes of a service run, apart from its tree.
#[derive(Debug)]
pub(crate) struct ServicePlace {
    /// Its network namespace.
    pub(crate) network: OwnedFd,
    /// Its host name.
    pub(crate) hostname: String,
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
            namespaces: Mutex::default(),
            services: Mutex::default(),
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
    pub(crate) fn namespace_of(&self, root: Root) -> Option<Arc<OwnedFd>> {
        locked(&self.namespaces).get(&root).cloned()
    }

    /// Gives a tree its mount namespace.
    pub(crate) fn set_namespace(&self, root: Root, namespace: OwnedFd) {
        locked(&self.namespaces).insert(root, Arc::new(namespace));
    }

    /// The directory of the files that a tree gets in its `/etc`.
    pub(crate) fn etc_of(&self, root: Root) -> PathBuf {
        match root {
            Root::Service(number) => self.etc.join(format!("service-{number}")),
            Root::Agent | Root::Helper | Root::Job => self.etc.clone(),
        }
    }

    /// Where a service runs, once its network is made.
    pub(crate) fn service(&self, number: u8) -> Option<Arc<ServicePlace>> {
        locked(&self.services).get(usize::from(number)).cloned()
    }

    pub(crate) fn set_services(&self, services: Vec<ServicePlace>) {
        *locked(&self.services) = services.into_iter().map(Arc::new).collect();
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
        locked(&self.mounts)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time since the guest's kernel started.
#[must_use]
pub fn uptime() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
