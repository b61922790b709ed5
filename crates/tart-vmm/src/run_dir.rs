//! Directories of running machines, and what to do about those whose runner was killed.
//!
//! Below one root, every runner has a directory with a lock that it holds while it lives, and in it one directory for
//! each machine, with a record of every process. All of it is gone when its owner ends properly; otherwise the next
//! runner finds the lock free, kills what the records name, and removes the rest.

mod cgroup;
mod guard;
mod record;

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{Identity, Isolation, Limits, VmmError, isolation::Confinement, spec};
use cgroup::record_cgroup;
pub(crate) use cgroup::remove as remove_cgroup;
pub use guard::Guard;
pub(crate) use record::record;

/// The lock file, in the root and in every runner's directory.
const LOCK: &str = "lock";

/// How the names of runners' directories begin.
const PREFIX: &str = "runner-";

/// The directory of this runner; removed when dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Its lock is what tells that this runner lives.
    _lock: File,
}

impl RunDir {
    /// Makes a directory for this runner below `root`, which is made too if it is missing.
    ///
    /// # Errors
    /// [`VmmError::System`].
    pub fn create(root: &Path) -> Result<Self, VmmError> {
        let failed = |e: io::Error| {
            VmmError::system(format!("make a directory for virtual machines in {}", root.display()), e)
        };
        let create = || {
            DirBuilder::new().recursive(true).mode(0o700).create(root)?;
            // A directory is without its own lock for a moment, in which nobody may take it for a dead runner's.
            let _root = lock(root, FlockOperation::LockExclusive)?;
            let prefix = format!("{PREFIX}{}-", std::process::id());
            let mode = Permissions::from_mode(0o700);
            let path = tempfile::Builder::new().prefix(&prefix).permissions(mode).tempdir_in(root)?.keep();
            let lock = lock(&path, FlockOperation::NonBlockingLockExclusive)?;
            Ok(Self { path, _lock: lock })
        };
        create().map_err(failed)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a machine's directory.
    ///
    /// # Errors
    /// [`VmmError::System`], also if there is one of that name; [`VmmError::Spec`] if the name is no machine's.
    pub fn machine(&self, id: &str) -> Result<MachineDir, VmmError> {
        spec::check_id(id)?;
        let path = self.path.join(id);
        let made = DirBuilder::new().mode(0o711).create(&path);
        made.map_err(|e| VmmError::system(format!("make the directory {}", path.display()), e))?;
        Ok(MachineDir { path, confinement: Confinement::default() })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// The directory of one machine, in a directory with mode 0700; removed with all in it when dropped, and with the machine's
/// control group, so it has to outlive the machine.
#[derive(Debug)]
pub struct MachineDir {
    path: PathBuf,
    /// Dropped after the directory's removal.
    confinement: Confinement,
}

impl MachineDir {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reserves a user for the machine and makes it a cgroup with limits, as far as the host lets this process.
    ///
    /// # Errors
    /// [`VmmError::System`], also if all users are taken.
    pub fn confine(&mut self, isolation: &Isolation, limits: &Limits) -> Result<(), VmmError> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.confinement = isolation.confine(&name, limits)?;
        if let Some(cgroup) = &self.confinement.cgroup {
            let what = || format!("record the control group of virtual machine `{name}`");
            record_cgroup(&self.path, cgroup).map_err(|e| VmmError::system(what(), e))?;
        }
        Ok(())
    }

    /// The user that was reserved for the machine.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.confinement.identity()
    }

    /// The directory of the machine's cgroup.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Path> {
        self.confinement.cgroup.as_deref()
    }
}

impl Drop for MachineDir {
    fn drop(&mut self) {
        if let Err(error) = cgroup::end(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove what limited a virtual machine");
        }
        remove(&self.path);
    }
}

/// A path to a file in an open directory that always fits a socket address, however long the directory's own path is.
pub(crate) fn path_in(dir: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a directory of virtual machines");
    }
}

/// What [`reap`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Processes that were killed.
    pub processes: Vec<u32>,
    /// Runners' directories that were removed.
    pub dirs: Vec<PathBuf>,
    /// What could not be done, for the log.
    pub problems: Vec<String>,
}

/// Kills what dead runners left below `root` and removes their directories. Living runners are left alone. Blocks
/// for as long as the processes take to end, so it is not for a runtime's own thread.
///
/// # Errors
/// [`VmmError::System`] if `root` itself cannot be read. A missing one is fine.
pub fn reap(root: &Path) -> Result<Reaped, VmmError> {
    let failed = |e: io::Error| VmmError::system(format!("read {}", root.display()), e);
    let mut reaped = Reaped::default();
    if !root.exists() {
        return Ok(reaped);
    }
    let _root = lock(root, FlockOperation::LockExclusive).map_err(failed)?;
    for entry in fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_dir || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        match lock(&path, FlockOperation::NonBlockingLockExclusive) {
            Ok(_lock) => reap_runner(&path, &mut reaped),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => reaped.problems.push(format!("cannot lock {}: {error}", path.display())),
        }
    }
    Ok(reaped)
}

fn reap_runner(path: &Path, reaped: &mut Reaped) {
    for machine in fs::read_dir(path).into_iter().flatten().flatten() {
        let machine = machine.path();
        let killed = record::kill(&machine);
        match killed.and_then(|pid| cgroup::end(&machine).map(|()| pid)) {
            Ok(pid) => reaped.processes.extend(pid),
            Err(error) => {
                // Its record is all that is known of the process: it stays for the next runner.
                reaped.problems.push(format!("cannot end what {} names: {error}", machine.display()));
                return;
            }
        }
    }
    match fs::remove_dir_all(path) {
        Ok(()) => reaped.dirs.push(path.to_owned()),
        Err(error) => reaped.problems.push(format!("cannot remove {}: {error}", path.display())),
    }
}

fn lock(dir: &Path, operation: FlockOperation) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
    flock(&file, operation)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
