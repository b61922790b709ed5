//! Starting monitors: by this process, or by the root helper for a process without privileges.

mod handed;
mod helped;
mod here;
mod serve;

use std::{
    os::fd::{OwnedFd, RawFd},
    path::PathBuf,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    Identity, ProcessStatus, VmmError,
    confine::Allowed,
    process::{Launcher, Process},
};
pub use serve::{MonitorServer, serve_monitor};
pub(crate) use serve::{describe, end_of, tell};

/// Where the root directories and devices of monitors are made.
pub(crate) const JAILS: &str = "/run/tart";

/// A monitor to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// The machine's name.
    pub(crate) machine: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// The machine's directory, where it works.
    pub(crate) dir: PathBuf,
    /// The numbers under which it inherits the descriptors that are given with this.
    pub(crate) numbers: Vec<RawFd>,
    /// What it may open.
    pub(crate) allowed: Allowed,
    /// Those files among these that become its user's.
    pub(crate) own: Vec<PathBuf>,
    /// It uses the kernel's virtual machines.
    pub(crate) kvm: bool,
    /// Bytes of memory, the guest's and its own.
    pub(crate) memory: u64,
    /// Processors of the guest.
    pub(crate) vcpus: u32,
    /// Bytes in a second that are read from the disk that its directory is on, and that are written.
    pub(crate) bandwidth: Option<u64>,
    /// Largest file that it may write, in bytes.
    pub(crate) max_file: u64,
}

/// What the helper says of a monitor that it has started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) pid: u32,
}

/// What it says at the monitor's end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) status: ProcessStatus,
}

/// Who starts monitors.
#[derive(Debug)]
pub(crate) enum Starter {
    /// This process.
    Here(Arc<Launcher>),
    /// The root helper behind this socket, which gives them users and cgroups itself.
    Helper(PathBuf),
}

impl Starter {
    pub(crate) fn new(helper: Option<PathBuf>) -> Result<Self, VmmError> {
        match helper {
            Some(socket) => Ok(Self::Helper(socket)),
            None => Launcher::start()
                .map(Self::Here)
                .map_err(|e| VmmError::system("start a thread for virtual machines", e)),
        }
    }

    /// Starts a monitor, for this process as a user and in a cgroup that are the machine's, if it has such. Its standard
    /// error is what is returned.
    pub(crate) async fn start(
        &self,
        wanted: Wanted,
        descriptors: Vec<Arc<OwnedFd>>,
        held: (Option<Identity>, Option<PathBuf>),
    ) -> Result<(Process, OwnedFd), VmmError> {
        let program = wanted.program.display().to_string();
        let failed = |e| VmmError::system(format!("run {program}"), e);
        let (said, stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| VmmError::system("make a pipe", e))?;
        let process = match self {
            Self::Here(launcher) => {
                let launch = here::launch(&wanted, descriptors, stderr, held).map_err(failed)?;
                launcher.launch(launch).await.map_err(failed)?
            }
            Self::Helper(socket) => helped::start(socket, wanted, &descriptors, &stderr).await?,
        };
        Ok((process, said))
    }
}
