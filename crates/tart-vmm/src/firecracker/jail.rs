//! The jail that Firecracker's jailer puts it into (microvm.md 1.6). What it is made of is pure; `put` makes it.
//!
//! The jailer's base is the machine's directory, so the jail is gone with that, also after the runner was killed. Below
//! it the jailer wants `<name of the program>/<id>/root`, and gives that directory to the jailed user. What is put there
//! before is found by Firecracker at the same names, relative to its working directory, whether it is jailed or not.
//!
//! The jailer becomes Firecracker, so the process that was launched is the machine's. It is in the network namespace
//! already, which the jailer keeps. The change of the user takes away the signal that it would get when the runner dies:
//! see [`crate::Guard`].

mod put;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{Identity, MachineSpec, VmmError};
pub(super) use put::{make, put, refuse_mount};

/// Where the API is reached, in the jail: the jailed program's own default.
pub(super) const API_SOCKET: &str = "run/firecracker.socket";

/// Names of a saved machine's files, in the jail.
pub(super) const MEMORY: &str = "snapshot.memory";
pub(super) const STATE: &str = "snapshot.state";

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

/// What a file of the jail is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file that others use too: it may be read.
    Shared(PathBuf),
    /// A file of this machine alone: it becomes the jailed user's.
    Own(PathBuf),
    /// A few sectors of zeros, for a disk that gets its image later.
    Empty {
        /// Whether the disk can be written to.
        writable: bool,
    },
}

/// A file of the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Furnishing {
    pub(super) name: String,
    pub(super) source: Source,
}

impl Furnishing {
    /// The image of the disk at a position.
    pub(super) fn disk(position: usize, image: &Path, read_only: bool) -> Self {
        let image = image.to_owned();
        let source = if read_only { Source::Shared(image) } else { Source::Own(image) };
        Self { name: disk(position), source }
    }

    /// A file that others use too.
    pub(super) fn shared(name: &str, file: &Path) -> Self {
        Self { name: name.to_owned(), source: Source::Shared(file.to_owned()) }
    }
}

/// The name of a disk's image, the same in all machines: a saved machine looks for it again.
fn disk(position: usize) -> String {
    format!("disk{position}")
}

/// A jail to make.
#[derive(Debug)]
pub(super) struct JailPlan {
    /// The directory that holds all of it, to be removed at the end.
    pub(super) top: PathBuf,
    /// The jailed program's root directory.
    pub(super) root: PathBuf,
    pub(super) identity: Identity,
    pub(super) files: Vec<Furnishing>,
    /// The jailer's.
    pub(super) arguments: Vec<OsString>,
    /// The machine as the jailed program sees it.
    pub(super) inside: MachineSpec,
}

/// Plans a jail. `cgroup` is [`MachineSpec::cgroup`] below the mount of cgroup v2, `saved` the files of the machine that it
/// is to go on from, `max_file` the largest file that it may write.
pub(super) fn plan(
    jailer: &Jailer,
    spec: &MachineSpec,
    cgroup: Option<&Path>,
    saved: Option<Vec<Furnishing>>,
    max_file: u64,
) -> Result<JailPlan, VmmError> {
    let refuse = |reason: &str| VmmError::Jail { id: spec.id.clone(), reason: reason.to_owned() };
    let identity =
        spec.identity.ok_or_else(|| refuse("it has no user of its own; or set `jailer = \"none\"`"))?;
    if identity.uid == 0 || identity.gid == 0 {
        return Err(refuse("its user or group is root"));
    }
    let restored = saved.is_some();
    let mut inside = spec.clone();
    let mut files = Vec::new();
    match saved {
        Some(saved) => files.extend(saved),
        None => {
            files.push(Furnishing::shared("kernel", &spec.kernel));
            files.push(Furnishing::shared("initrd", &spec.initrd));
            (inside.kernel, inside.initrd) = ("kernel".into(), "initrd".into());
        }
    }
    for (position, (disk_spec, within)) in spec.disks.iter().zip(&mut inside.disks).enumerate() {
        files.push(match &disk_spec.path {
            Some(image) => Furnishing::disk(position, image, disk_spec.read_only),
            None => {
                Furnishing { name: disk(position), source: Source::Empty { writable: !disk_spec.read_only } }
            }
        });
        // A saved machine knows its empty disks already.
        if disk_spec.path.is_some() || !restored {
            within.path = Some(disk(position).into());
        }
    }
    let top = spec.run_dir.join(&jailer.exec_name);
    let root = top.join(&spec.id).join("root");
    let arguments = arguments(jailer, spec, identity, cgroup, max_file);
    Ok(JailPlan { top, root, identity, files, arguments, inside })
}

fn arguments(
    jailer: &Jailer,
    spec: &MachineSpec,
    identity: Identity,
    cgroup: Option<&Path>,
    max_file: u64,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--id".into(), spec.id.clone().into()];
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    add("--exec-file", jailer.exec_file.clone().into());
    add("--uid", identity.uid.to_string().into());
    add("--gid", identity.gid.to_string().into());
    add("--chroot-base-dir", spec.run_dir.clone().into());
    if let Some(cgroup) = cgroup {
        // Version 1 unless it is told. Without `--cgroup` it goes into the parent itself.
        add("--cgroup-version", "2".into());
        add("--parent-cgroup", cgroup.into());
    }
    add("--resource-limit", format!("fsize={}", max_file.max(SMALLEST_LIMIT)).into());
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
