//! Building the guest's file trees, step by step as the host says.

mod disk;
mod namespace;
mod plan;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
    process::{Gid, Uid},
};
use tart_proto::message::{Failure, MountStep, Root};

use crate::{
    failure,
    machine::Machine,
    network,
    tree::{self, Tree},
};
use plan::{Action, MountPlan};

/// Makes the steps in order; the first that fails ends them.
pub(crate) async fn make(machine: &Machine, steps: &[MountStep]) -> Result<(), Failure> {
    for step in steps {
        let device = match step {
            MountStep::Disk { disk, .. } => Some(disk::find(disk).await?),
            _ => None,
        };
        let (etc, read_only) = match step {
            MountStep::System { root } => {
                let etc = machine.etc_of(*root);
                if let Root::Service(_) = root {
                    network::create_names(&etc)
                        .map_err(|e| failure::system("cannot make the names of a service", e))?;
                }
                (etc, machine.trees.open(*root)?.is_read_only())
            }
            _ => (PathBuf::new(), false),
        };
        for action in plan::actions(step, &machine.trees, &etc, device.as_deref(), read_only)? {
            perform(machine, &action)?;
        }
        match step {
            MountStep::Disk { target, read_only: false, .. } => machine.add_scratch(Path::new(target)),
            MountStep::System { root: root @ (Root::Job | Root::Service(_)) }
                if machine.namespace_of(*root).is_none() =>
            {
                let namespace = namespace::create(&machine.trees.path(*root))
                    .map_err(|e| failure::system("cannot make a mount namespace", e))?;
                machine.set_namespace(*root, namespace);
            }
            _ => {}
        }
    }
    Ok(())
}

fn perform(machine: &Machine, action: &Action) -> Result<(), Failure> {
    match action {
        Action::Mount(mount) => {
            let target = Place::directory(machine, &mount.target)?;
            mount_at(mount, &target)?;
            machine.mounted(target.real()?);
        }
        Action::Bind { source, target } => {
            let source = Place::directory(machine, source)?;
            let target = Place::directory(machine, target)?;
            target.is_of_its_tree()?;
            bind(&source.path(), &target)?;
            machine.mounted(target.real()?);
        }
        Action::Volume { source, target } => {
            let target = Place::directory(machine, target)?;
            if target.is_empty()? {
                let source = Place::directory(machine, source)?;
                target.lend_looks(&source)?;
                bind(&source.path(), &target)?;
                machine.mounted(target.real()?);
            }
        }
        Action::BindFile { source, target, required } => match Place::file(machine, target, *required)? {
            Some(target) => {
                bind(source, &target)?;
                machine.mounted(target.real()?);
            }
            None if !required => {}
            None => crate::console::say(format_args!("no `{target}` in a read-only tree: it keeps its own")),
        },
        Action::Directory { path, mode } => {
            let place = Place::directory(machine, path)?;
            // The kernel has no chmod for an O_PATH descriptor but through its name.
            rustix::fs::chmod(place.path(), Mode::from_raw_mode(mode & 0o7777))
                .map_err(|e| failure::system(format!("cannot set the mode of `{path}`"), e))?;
        }
        Action::Node { path, kind, major, minor, mode } => {
            let failed = |e| failure::system(format!("cannot make the device `{path}`"), e);
            let (directory, name) = parent(machine, path)?;
            // A second time is no error, nor is the umask a reason for another mode.
            match rustix::fs::mknodat(
                &directory.fd,
                &name,
                *kind,
                Mode::from_raw_mode(*mode),
                rustix::fs::makedev(*major, *minor),
            ) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            rustix::fs::chmodat(
                &directory.fd,
                &name,
                Mode::from_raw_mode(*mode),
                rustix::fs::AtFlags::empty(),
            )
            .map_err(failed)?;
        }
        Action::Link { path, to } => {
            let (directory, name) = parent(machine, path)?;
            match rustix::fs::symlinkat(*to, &directory.fd, &name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failure::system(format!("cannot make the link `{path}`"), errno)),
            }
        }
    }
    Ok(())
}

fn mount_at(mount: &MountPlan, target: &Place) -> Result<(), Failure> {
    let data = std::ffi::CString::new(mount.data.as_str())
        .map_err(|_| failure::invalid(format!("the options of `{}` have a NUL byte", mount.target)))?;
    rustix::mount::mount(&mount.source, target.path(), &mount.fstype, mount.flags, data.as_c_str()).map_err(
        |e| {
            failure::system(
                format!("cannot mount {} on `{}` ({})", mount.source, mount.target, mount.fstype),
                e,
            )
        },
    )
}

fn bind(source: &Path, target: &Place) -> Result<(), Failure> {
    rustix::mount::mount_bind_recursive(source, target.path())
        .map_err(|e| failure::system(format!("cannot bind `{}` to `{}`", source.display(), target.asked), e))
}

/// Takes everything that was mounted on request away, as far as nothing uses it.
pub(crate) fn unmount_all(machine: &Machine) {
    for point in machine.take_mounts() {
        let _busy = rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW);
    }
}

/// File systems of the kernel's own (linux/magic.h): proc, sysfs, cgroup2, devpts.
const KERNELS: [i64; 4] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x1cd1];

/// A resolved place in one of the trees, made if it was missing.
struct Place {
    fd: OwnedFd,
    tree: Tree,
    tree_path: PathBuf,
    asked: String,
}

impl Place {
    fn directory(machine: &Machine, path: &str) -> Result<Self, Failure> {
        let (root, within) = machine.trees.containing(path);
        // A tree's own mount point is reached from outside: it need not be a mounted tree yet.
        let (root, within) = if within == "/" { (Root::Agent, path) } else { (root, within) };
        let tree = machine.trees.open(root)?;
        let owner = (Uid::ROOT, Gid::ROOT);
        let fd = tree
            .directory(within, owner)
            .map_err(|e| failure::system(format!("cannot make the directory `{path}`"), e))?;
        Ok(Self { fd, tree, tree_path: machine.trees.path(root).into_owned(), asked: path.to_owned() })
    }

    /// A file to bind over: made if missing and `make`, unless the tree is read-only.
    fn file(machine: &Machine, path: &str, make: bool) -> Result<Option<Self>, Failure> {
        let (root, within) = machine.trees.containing(path);
        let tree = machine.trees.open(root)?;
        let failed = |e| failure::system(format!("cannot make the file `{path}`"), e);
        let fd = match tree.open(within, OFlags::PATH) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) if !make => return Ok(None),
            Err(Errno::NOENT) => match make_file(&tree, within) {
                Ok(()) => tree.open(within, OFlags::PATH).map_err(failed)?,
                Err(Errno::ROFS) => return Ok(None),
                Err(errno) => return Err(failed(errno)),
            },
            Err(errno) => return Err(failed(errno)),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(failed)?.st_mode) == FileType::Directory {
            return Ok(None);
        }
        Ok(Some(Self { fd, tree, tree_path: machine.trees.path(root).into_owned(), asked: path.to_owned() }))
    }

    /// A name of the place that the kernel resolves without any link of the tree.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// A link of an image may lead to what the kernel shows in the tree, which nothing is to cover.
    fn is_of_its_tree(&self) -> Result<(), Failure> {
        let asked = format!("cannot make the directory `{}`", self.asked);
        let about = rustix::fs::fstatfs(&self.fd).map_err(|e| failure::system(asked.clone(), e))?;
        if KERNELS.contains(&about.f_type) {
            return Err(failure::system(asked, io::Error::other("it leads to files of the kernel")));
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool, Failure> {
        let mut entries = std::fs::read_dir(self.path())
            .map_err(|e| failure::system(format!("cannot look into `{}`", self.asked), e))?;
        Ok(entries.next().is_none())
    }

    /// Gives another directory this one's owner and mode.
    fn lend_looks(&self, other: &Self) -> Result<(), Failure> {
        let lend = || {
            let stat = rustix::fs::fstat(&self.fd)?;
            let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chown(other.path(), Some(owner), Some(group))?;
            rustix::fs::chmod(other.path(), Mode::from_raw_mode(stat.st_mode & 0o7777))
        };
        lend().map_err(|e| failure::system(format!("cannot prepare the volume `{}`", self.asked), e))
    }

    /// Its path in the agent's namespace.
    fn real(&self) -> Result<PathBuf, Failure> {
        let within = self
            .tree
            .real_path(self.fd.as_fd())
            .map_err(|e| failure::system(format!("cannot find `{}` again", self.asked), e))?;
        Ok(self.tree_path.join(within.trim_start_matches('/')))
    }
}

/// Makes an empty file. A link that leads nowhere, as `/etc/resolv.conf` of an image made by systemd, gives way.
fn make_file(tree: &Tree, path: &str) -> rustix::io::Result<()> {
    let (directory, name) = tree::split(path).ok_or(Errno::INVAL)?;
    let directory = tree.directory(directory, (Uid::ROOT, Gid::ROOT))?;
    match rustix::fs::unlinkat(&directory, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}

fn parent(machine: &Machine, path: &str) -> Result<(Place, String), Failure> {
    let (directory, name) =
        tree::split(path).ok_or_else(|| failure::invalid(format!("`{path}` has no name at its end")))?;
    Ok((Place::directory(machine, directory)?, name.to_owned()))
}

/// Mounts a kernel file system on a directory of the agent's own, which is made if missing.
pub(crate) fn mount_own(fstype: &str, target: &str, flags: MountFlags, data: &str) -> std::io::Result<()> {
    match rustix::fs::mkdirat(CWD, target, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let data = std::ffi::CString::new(data)?;
    match rustix::mount::mount(fstype, target, fstype, flags, data.as_c_str()) {
        // The kernel mounted it before us.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
