//! A root directory that has a monitor's own files and the system's programs, and nothing else.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, mkdir, open},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
        mount_remount, move_mount, open_tree, unmount,
    },
    process::{chdir, pivot_root},
};

use crate::confine::{Place, PlaceAccess};

/// The new root's own file system, in which there are mount points only.
const OPTIONS: &CStr = c"size=1m,mode=755";

/// What is done to make a root directory: the plan, as system calls only, for a process between fork and exec.
#[derive(Debug)]
pub(crate) struct Jail {
    /// An empty directory that the new root is mounted on.
    root: CString,
    /// Directories to make, parents first.
    directories: Vec<CString>,
    /// Files to make.
    files: Vec<CString>,
    /// What is mounted where, outer ones first.
    binds: Vec<Bind>,
    /// Where the process is afterwards.
    working: CString,
}

#[derive(Debug)]
struct Bind {
    /// A copy of the mount, not attached anywhere: a path would be of no use in another mount namespace if it leads to a
    /// descriptor of this one.
    from: OwnedFd,
    to: CString,
    flags: MountFlags,
}

impl Jail {
    /// Plans a root at an empty directory in which every place stands where the process finds it.
    pub(crate) fn plan(root: &Path, places: &[Place], working: &Path) -> io::Result<Self> {
        let mut places: Vec<_> = places.iter().filter(|place| place.from.exists()).collect();
        places.sort_by_key(|place| place.path.components().count());
        let (mut directories, mut files, mut binds) = (BTreeSet::new(), Vec::new(), Vec::new());
        for Place { from, path, access } in places {
            let path = std::path::absolute(path)?;
            let to = inside(root, &path)?;
            let parents = if from.is_dir() { to.as_path() } else { to.parent().unwrap_or(root) };
            let below = |directory: &&Path| directory.starts_with(root) && *directory != root;
            directories.extend(parents.ancestors().take_while(below).map(Path::to_owned));
            if !from.is_dir() {
                files.push(c_path(&to)?);
            }
            let flags = match access {
                PlaceAccess::System => MountFlags::RDONLY | MountFlags::NODEV,
                PlaceAccess::Kernel | PlaceAccess::Read => {
                    MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOEXEC
                }
                PlaceAccess::Write => MountFlags::NODEV | MountFlags::NOEXEC,
                PlaceAccess::Device => MountFlags::NOEXEC,
            };
            let mut copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            if *access != PlaceAccess::Kernel {
                copy |= OpenTreeFlags::AT_RECURSIVE;
            }
            let from = open_tree(CWD, std::path::absolute(from)?, copy)?;
            binds.push(Bind { from, to: c_path(&to)?, flags: flags | MountFlags::NOSUID });
        }
        let directories = directories.iter().map(|path| c_path(path)).collect::<io::Result<_>>()?;
        let (root, working) = (c_path(root)?, c_path(&std::path::absolute(working)?)?);
        Ok(Self { root, directories, files, binds, working })
    }

    /// Makes it the calling process's root directory. The process has a mount namespace of its own, and is root.
    pub(crate) fn enter(&self) -> io::Result<()> {
        mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(c"tart", &*self.root, c"tmpfs", plain, OPTIONS)?;
        // Before anything is mounted, so that nothing is made in what is.
        for directory in &self.directories {
            made(mkdir(&**directory, Mode::from_raw_mode(0o755)))?;
        }
        for file in &self.files {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            made(open(&**file, flags, Mode::from_raw_mode(0o644)).map(drop))?;
        }
        for Bind { from, to, flags } in &self.binds {
            move_mount(from, c"", CWD, &**to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            remount(to, *flags)?;
        }
        remount(&self.root, plain | MountFlags::RDONLY)?;
        chdir(&*self.root)?;
        // The old root is on top of the new one then, and is taken away.
        pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        Ok(chdir(&*self.working)?)
    }
}

/// Sets the flags of one mount, not of its file system.
fn remount(at: &CStr, flags: MountFlags) -> io::Result<()> {
    Ok(mount_remount(at, flags | MountFlags::BIND, c"")?)
}

fn made(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Where an absolute path is in the new root.
fn inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut to = root.to_owned();
    for component in path.components() {
        match component {
            Component::Normal(name) => to.push(name),
            Component::RootDir => {}
            _ => {
                let reason = format!("`{}` has parts that go upwards", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
        }
    }
    Ok(to)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests;
