//! Where and how a machine's Firecracker is started by this process: in a jail, or in the machine's directory as the
//! runner's user.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    dir::Dir,
    ends::{Ends, Listeners},
    jail::{self, Furnishing, Inmate, Jailer},
    place::{Here, Jail},
    requests,
};
use crate::{
    Identity, VmmError,
    process::{Launch, Launcher, Namespace, Process},
};

/// The API's socket in the directory of a machine without a jail.
const API_SOCKET: &str = "api.sock";

/// Bytes of the image of disks without one.
const EMPTY: u64 = 4096;

/// A machine that is to be started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// Its name.
    pub(super) id: &'a str,
    /// Its directory.
    pub(super) dir: &'a Path,
    /// The largest file that it may write, in bytes.
    pub(super) max_file: u64,
}

/// What a machine's Firecracker is started with.
#[derive(Debug)]
pub(super) struct Setting {
    program: PathBuf,
    arguments: Vec<OsString>,
    inherit: Vec<Arc<OwnedFd>>,
    /// The largest file that what is started may write, in bytes.
    max_file: u64,
    /// Its working directory.
    dir: Dir,
    /// Name of the API's socket there.
    api_socket: &'static str,
    jail: Option<Jail>,
}

/// What a process is started with besides.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Its standard output, which is the guest's console.
    pub(super) console: OwnedFd,
    /// Its standard error.
    pub(super) said: OwnedFd,
    pub(super) network: Namespace,
    pub(super) listeners: Listeners,
}

/// A process that was started, the place where it works, and the host's ends of what is there.
#[derive(Debug)]
pub(super) struct Started<P> {
    pub(super) process: Process,
    pub(super) place: P,
    pub(super) ends: Ends,
}

impl Setting {
    /// That of a machine without a jail.
    pub(super) fn free(
        binary: &Path,
        subject: Subject<'_>,
        inherit: Vec<Arc<OwnedFd>>,
    ) -> Result<Self, VmmError> {
        let Subject { id, dir, max_file } = subject;
        let what = |what: &str| format!("{what} of virtual machine `{id}`");
        let open = Dir::open(dir).map_err(|e| VmmError::system(what("open the directory"), e))?;
        File::create(dir.join(requests::EMPTY_DISK))
            .and_then(|disk| disk.set_len(EMPTY))
            .map_err(|e| VmmError::system(what("make an empty disk"), e))?;
        Ok(Self {
            program: binary.to_owned(),
            arguments: ["--id", id, "--api-sock", API_SOCKET].map(Into::into).to_vec(),
            inherit,
            max_file,
            dir: open,
            api_socket: API_SOCKET,
            jail: None,
        })
    }

    /// That of one in a jail, with a user and perhaps a control group of its own; `open` gives the open file of each that is
    /// put there. Blocks.
    pub(super) fn jailed<F>(
        jailer: &Jailer,
        subject: Subject<'_>,
        (identity, cgroup): (Option<Identity>, Option<&Path>),
        files: &[Furnishing<F>],
        open: impl Fn(&F) -> io::Result<File>,
    ) -> Result<Self, VmmError> {
        let Subject { id, dir, max_file } = subject;
        let refuse = |reason: String| VmmError::Jail { id: id.to_owned(), reason };
        let nobody = || refuse("it has no user of its own; or set `jailer = \"none\"`".to_owned());
        let identity = identity.ok_or_else(nobody)?;
        if let Some(reason) = jail::refuse_mount(dir) {
            return Err(refuse(reason));
        }
        let below = match cgroup {
            None => None,
            Some(cgroup) => {
                let mounts = fs::read_to_string("/proc/mounts")
                    .map_err(|e| VmmError::system("read what is mounted", e))?;
                let foreign = || refuse(format!("{} is no control group of version 2", cgroup.display()));
                Some(jail::below_mount(&mounts, cgroup).ok_or_else(foreign)?)
            }
        };
        let inmate = Inmate { id, dir, identity, cgroup: below.as_deref(), max_file };
        let plan = jail::plan(jailer, &inmate)?;
        let jail = Jail { identity, cgroup: cgroup.map(Path::to_owned), top: plan.top.clone() };
        let made = jail::make(&plan, files, open)?;
        Ok(Self {
            program: jailer.program.clone(),
            arguments: plan.arguments,
            inherit: Vec::new(),
            // The jailer copies Firecracker and sets the limit for that.
            max_file: u64::MAX,
            dir: made,
            api_socket: jail::API_SOCKET,
            jail: Some(jail),
        })
    }

    /// Makes the sockets and pipes, then starts the process.
    pub(super) async fn launch(
        self,
        launcher: &Arc<Launcher>,
        subject: Subject<'_>,
        surroundings: Surroundings,
    ) -> Result<Started<Here>, VmmError> {
        let Surroundings { console, said, network, listeners } = surroundings;
        let user = self.jail.as_ref().map(|jail| jail.identity);
        let ends = Ends::make(&self.dir, user, listeners).map_err(|e| {
            VmmError::system(format!("make the sockets of virtual machine `{}`", subject.id), e)
        })?;
        let program = self.program.display().to_string();
        let launch = Launch {
            program: self.program,
            args: self.arguments,
            dir: subject.dir.to_owned(),
            inherit: self.inherit.into_iter().map(|fd| (fd.clone(), fd.as_raw_fd())).collect(),
            stdout: Some(console),
            stderr: said,
            network,
            user: None,
            cgroup: None,
            // It has its own filters and, with the jailer, nothing else to open.
            places: None,
            max_file: self.max_file,
        };
        let launched = launcher.launch(launch).await;
        let process = launched.map_err(|e| VmmError::system(format!("run {program}"), e))?;
        let place = Here::new(self.dir, self.api_socket, self.jail, process.pid());
        Ok(Started { process, place, ends })
    }
}

/// Does what blocks.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, VmmError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| VmmError::system("prepare a virtual machine", io::Error::other(e)))
}
