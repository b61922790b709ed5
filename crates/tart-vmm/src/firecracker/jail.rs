//! The jail that Firecracker's jailer puts it into (microvm.md 1.6). What it is made of is pure; `put` makes it.
//!
//! The jailer's base is the machine's directory, or that of the root helper for it, so the jail is gone with that, also after
//! the runner was killed. Below it the jailer wants `<name of the program>/<id>/root`, and gives that directory to the jailed user. What is put there
//! before is found by Firecracker at the same names, relative to its working directory, whether it is jailed or not.
//!
//! The jailer becomes Firecracker, so the process that was launched is the machine's. It is in the network namespace
//! already, which the jailer keeps. The change of the user takes away the signal that it would get when the runner dies:
//! see [`crate::Guard`].

mod put;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Identity, MachineSpec, VmmError};
pub(super) use put::{make, open, put, refuse_mount};

/// Where the API is reached, in the jail: the jailed program's own default.
pub(super) const API_SOCKET: &str = "run/firecracker.socket";

/// What the jailer itself writes, which its limit must allow: the number of its process.
const SMALLEST_LIMIT: u64 = 64 * 1024;

/// How machines are jailed.
#[derive(Debug)]
pub(super) struct Jailer {
    pub(super) program: PathBuf,
    /// Firecracker, without symbolic links: the jailer names the jail after that.
    pub(super) exec_file: PathBuf,
    exec_name: String,
}

impl Jailer {
    /// The jailer takes no program that is not called Firecracker.
    pub(super) fn new(program: PathBuf, exec_file: PathBuf) -> Result<Self, VmmError> {
        let name = exec_file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !name.contains("firecracker") {
            let reason = "the jailer runs only programs with `firecracker` in their names: rename it, or set `jailer = \"none\"`";
            return Err(VmmError::Program { program: exec_file, reason: reason.to_owned() });
        }
        Ok(Self { program, exec_file, exec_name: name })
    }
}

/// The name of a file that a jail is given, the same in all machines: a saved machine looks for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Name {
    /// What the guest boots from.
    Kernel,
    Initrd,
    /// A saved machine.
    Memory,
    State,
    /// The image of the disk at a position.
    Disk(u8),
}

impl Name {
    fn disk(position: usize) -> Self {
        Self::Disk(u8::try_from(position).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("kernel"),
            Self::Initrd => f.write_str("initrd"),
            Self::Memory => f.write_str("snapshot.memory"),
            Self::State => f.write_str("snapshot.state"),
            Self::Disk(position) => write!(f, "disk{position}"),
        }
    }
}

/// What a file of the jail is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Source<F> {
    /// A file that others use too: it may be read.
    Shared(F),
    /// A file of this machine alone: it becomes the jailed user's.
    Own(F),
    /// A few sectors of zeros, for a disk that gets its image later.
    Empty {
        /// Whether the disk can be written to.
        writable: bool,
    },
}

/// A file of the jail: where its contents are, or the open file of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Furnishing<F = PathBuf> {
    pub(super) name: Name,
    pub(super) source: Source<F>,
}

impl Furnishing {
    /// The image of the disk at a position.
    pub(super) fn disk(position: usize, image: &Path, read_only: bool) -> Self {
        let image = image.to_owned();
        let source = if read_only { Source::Shared(image) } else { Source::Own(image) };
        Self { name: Name::disk(position), source }
    }

    /// A file that others use too.
    pub(super) fn shared(name: Name, file: &Path) -> Self {
        Self { name, source: Source::Shared(file.to_owned()) }
    }
}

impl<F> Furnishing<F> {
    /// The same with what is made of its file.
    pub(super) fn map<G, E>(&self, make: impl FnOnce(&F) -> Result<G, E>) -> Result<Furnishing<G>, E> {
        let source = match &self.source {
            Source::Shared(file) => Source::Shared(make(file)?),
            Source::Own(file) => Source::Own(make(file)?),
            Source::Empty { writable } => Source::Empty { writable: *writable },
        };
        Ok(Furnishing { name: self.name, source })
    }

    /// Where its contents are, unless it is empty.
    pub(super) fn file(&self) -> Option<&F> {
        match &self.source {
            Source::Shared(file) | Source::Own(file) => Some(file),
            Source::Empty { .. } => None,
        }
    }
}

/// A machine as its jailed program sees it, and the files that its jail is given for that. `saved` are those of the machine
/// that it is to go on from.
pub(super) fn furnish(spec: &MachineSpec, saved: Option<Vec<Furnishing>>) -> (MachineSpec, Vec<Furnishing>) {
    let restored = saved.is_some();
    let mut inside = spec.clone();
    let mut files = Vec::new();
    match saved {
        Some(saved) => files.extend(saved),
        None => {
            for (name, file, within) in [
                (Name::Kernel, &spec.kernel, &mut inside.kernel),
                (Name::Initrd, &spec.initrd, &mut inside.initrd),
            ] {
                files.push(Furnishing::shared(name, file));
                *within = name.to_string().into();
            }
        }
    }
    for (position, (disk, within)) in spec.disks.iter().zip(&mut inside.disks).enumerate() {
        let name = Name::disk(position);
        files.push(match &disk.path {
            Some(image) => Furnishing::disk(position, image, disk.read_only),
            None => Furnishing { name, source: Source::Empty { writable: !disk.read_only } },
        });
        // A saved machine knows its empty disks already.
        if disk.path.is_some() || !restored {
            within.path = Some(name.to_string().into());
        }
    }
    (inside, files)
}

/// What a jail is for.
#[derive(Debug)]
pub(super) struct Inmate<'a> {
    /// The machine's name.
    pub(super) id: &'a str,
    /// The directory that the jail is in.
    pub(super) dir: &'a Path,
    /// Whom it runs as.
    pub(super) identity: Identity,
    /// Its control group below the mount of cgroup v2.
    pub(super) cgroup: Option<&'a Path>,
    /// The largest file that it may write, in bytes.
    pub(super) max_file: u64,
}

/// A jail to make.
#[derive(Debug)]
pub(super) struct JailPlan {
    /// The directory that holds all of it, to be removed at the end.
    pub(super) top: PathBuf,
    /// The jailed program's root directory.
    pub(super) root: PathBuf,
    pub(super) identity: Identity,
    /// The jailer's.
    pub(super) arguments: Vec<OsString>,
}

/// Plans a jail.
pub(super) fn plan(jailer: &Jailer, inmate: &Inmate<'_>) -> Result<JailPlan, VmmError> {
    let Inmate { id, dir, identity, .. } = *inmate;
    if identity.uid == 0 || identity.gid == 0 {
        return Err(VmmError::Jail { id: id.to_owned(), reason: "its user or group is root".to_owned() });
    }
    let top = dir.join(&jailer.exec_name);
    let root = top.join(id).join("root");
    Ok(JailPlan { top, root, identity, arguments: arguments(jailer, inmate) })
}

fn arguments(jailer: &Jailer, inmate: &Inmate<'_>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--id".into(), inmate.id.into()];
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    add("--exec-file", jailer.exec_file.clone().into());
    add("--uid", inmate.identity.uid.to_string().into());
    add("--gid", inmate.identity.gid.to_string().into());
    add("--chroot-base-dir", inmate.dir.into());
    if let Some(cgroup) = inmate.cgroup {
        // Version 1 unless it is told. Without `--cgroup` it goes into the parent itself.
        add("--cgroup-version", "2".into());
        add("--parent-cgroup", cgroup.into());
    }
    add("--resource-limit", format!("fsize={}", inmate.max_file.max(SMALLEST_LIMIT)).into());
    arguments
}

/// A control group's path below the mount of cgroup v2, by `/proc/mounts`: the jailer takes the first.
pub(super) fn below_mount(mounts: &str, cgroup: &Path) -> Option<PathBuf> {
    let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = words.find(|words| words.get(2) == Some(&"cgroup2"))?;
    let below = cgroup.strip_prefix(mount.get(1)?).ok()?;
    (!below.as_os_str().is_empty()).then(|| below.to_owned())
}

#[cfg(test)]
mod tests;
