//! Cgroups of monitors, in version 2 of the hierarchy: what a machine may use of the host, whatever its guest makes of
//! the monitor. Facts are the kernel's (Documentation/admin-guide/cgroup-v2.rst).

use std::{
    fmt,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::process::MAX_THREADS;

/// Controllers that limit something of a machine.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// Where root's machines are, if nobody says where.
const DEFAULT_PARENT: &str = "tart";

/// Where a service that has its cgroup to itself puts its own processes: a cgroup with controllers has none.
const OWN_LEAF: &str = "runner";

/// What systemd marks cgroups with that are a service's own.
const DELEGATED: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// Period that processor time is given for, in microseconds.
const PERIOD: u64 = 100_000;

/// What a machine may use of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, the guest's and the monitor's own.
    pub memory: u64,
    /// Threads.
    pub threads: u64,
    /// Processors that may be busy all the time.
    pub processors: u32,
    /// Bytes in a second that are read and that are written, and the file whose device they are counted on.
    pub bandwidth: Option<(u64, PathBuf)>,
}

impl Limits {
    /// Those of a machine with so much memory, in bytes, and a monitor that takes some itself
    /// ([`crate::Driver::own_memory`]), and with so many processors.
    #[must_use]
    pub fn of(memory: u64, own: u64, vcpus: u32) -> Self {
        // The devices have a thread of their own.
        let processors = vcpus.saturating_add(1);
        Self { memory: memory.saturating_add(own), threads: MAX_THREADS, processors, bandwidth: None }
    }
}

/// The cgroup that those of machines are made in.
#[derive(Debug)]
pub(super) struct Cgroups {
    parent: PathBuf,
    /// Those that limit its children.
    controllers: Vec<&'static str>,
}

impl Cgroups {
    /// Finds or makes it.
    pub(super) fn find(wish: Option<&str>) -> io::Result<Self> {
        let unsupported = |reason: &str| io::Error::new(io::ErrorKind::Unsupported, reason);
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mount_point(&mounts)
            .ok_or_else(|| unsupported("no cgroup file system of version 2 is mounted"))?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own_cgroup(&own).map(|path| mount.join(path));
        let delegated = own.filter(|own| {
            DELEGATED
                .iter()
                .any(|name| rustix::fs::getxattr(own, *name, &mut [0_u8; 1]).is_ok_and(|length| length == 1))
        });
        match (wish, delegated) {
            (Some(path), _) => Self::below(&mount, &mount.join(path.trim_start_matches('/'))),
            (None, Some(own)) => {
                let leaf = own.join(OWN_LEAF);
                make(&leaf)?;
                for process in fs::read_to_string(own.join("cgroup.procs"))?.lines() {
                    fs::write(leaf.join("cgroup.procs"), process)?;
                }
                Self::below(&own, &own)
            }
            (None, None) if rustix::process::geteuid().is_root() => {
                Self::below(&mount, &mount.join(DEFAULT_PARENT))
            }
            (None, None) => Err(unsupported(
                "only root and services with `Delegate=yes` may make them; `cgroup_parent` names one that is this user's",
            )),
        }
    }

    /// Makes `parent` and has every cgroup from `top` down to it give its children what controllers there are.
    fn below(top: &Path, parent: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).create(parent)?;
        let mut levels: Vec<_> = parent.ancestors().take_while(|level| level.starts_with(top)).collect();
        levels.reverse();
        for level in levels {
            let available = words(&level.join("cgroup.controllers"))?;
            for controller in CONTROLLERS.iter().filter(|name| available.iter().any(|word| word == *name)) {
                // One that processes in it forbid is seen below to be missing.
                let _refused = fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let given = words(&parent.join("cgroup.subtree_control"))?;
        let controllers =
            CONTROLLERS.into_iter().filter(|name| given.iter().any(|word| word == name)).collect();
        Ok(Self { parent: parent.to_owned(), controllers })
    }

    /// Makes a cgroup for a machine. There may be others of that name, also those of other runners of this host.
    pub(super) fn create(&self, machine: &str, limits: &Limits) -> io::Result<PathBuf> {
        let names = (0..u32::MAX).map(|number| format!("{machine}-{}-{number}", std::process::id()));
        let made = names.map(|name| self.parent.join(name)).find_map(|path| match fs::create_dir(&path) {
            Ok(()) => Some(Ok(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
            Err(error) => Some(Err(error)),
        });
        let path = made.unwrap_or(Err(io::ErrorKind::AlreadyExists.into()))?;
        let device = limits.bandwidth.as_ref().and_then(|(_, file)| disk_of(file));
        for (name, value) in files(limits, &self.controllers, device) {
            fs::write(path.join(name), value)?;
        }
        Ok(path)
    }
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroups in {} ", self.parent.display())?;
        let missing: Vec<_> =
            CONTROLLERS.into_iter().filter(|name| !self.controllers.contains(name)).collect();
        match (self.controllers.as_slice(), missing.as_slice()) {
            (given, []) => write!(f, "limit {}", given.join(", ")),
            ([], _) => f.write_str("without limits: the host offers no controllers there"),
            (given, missing) => write!(f, "limit {}, not {}", given.join(", "), missing.join(", ")),
        }
    }
}

/// The files of a cgroup that hold its limits; 0 is none.
fn files(limits: &Limits, controllers: &[&str], device: Option<(u32, u32)>) -> Vec<(&'static str, String)> {
    let has = |name: &str| controllers.contains(&name);
    let mut files = Vec::new();
    if has("memory") && limits.memory > 0 {
        files.push(("memory.max", limits.memory.to_string()));
        // All of it or nothing: a monitor without one of its threads would be of no use.
        files.push(("memory.oom.group", "1".to_owned()));
    }
    if has("pids") && limits.threads > 0 {
        files.push(("pids.max", limits.threads.to_string()));
    }
    if has("cpu") && limits.processors > 0 {
        files.push(("cpu.max", format!("{} {PERIOD}", u64::from(limits.processors) * PERIOD)));
    }
    if let (true, Some((bytes, _)), Some((major, minor))) = (has("io"), &limits.bandwidth, device) {
        files.push(("io.max", format!("{major}:{minor} rbps={bytes} wbps={bytes}")));
    }
    files
}

/// The disk that a file is on: limits are those of whole disks. `None` for file systems without one.
fn disk_of(file: &Path) -> Option<(u32, u32)> {
    let device = fs::metadata(file).ok()?.dev();
    let entry =
        PathBuf::from(format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device)));
    let entry = fs::canonicalize(entry).ok()?;
    let disk = if entry.join("partition").exists() { entry.parent()? } else { &entry };
    let text = fs::read_to_string(disk.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn words(file: &Path) -> io::Result<Vec<String>> {
    Ok(fs::read_to_string(file)?.split_whitespace().map(str::to_owned).collect())
}

/// Where version 2 is mounted (proc(5), `mountinfo`).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let line = mounts.lines().find(|line| {
        line.split_once(" - ").is_some_and(|(_, kind)| kind.split(' ').next() == Some("cgroup2"))
    })?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// A process's own cgroup, below the mount (cgroups(7), `/proc/pid/cgroup`).
fn own_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_beside_that_of_version_1() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("41 31 0:38 / /x rw - cgroup cgroup2 rw\nnonsense"), None);
        assert_eq!(
            own_cgroup("4:memory:/a\n0::/system.slice/tart.service\n"),
            Some("system.slice/tart.service")
        );
        assert_eq!(own_cgroup("0::/\n"), Some(""));
        assert_eq!(own_cgroup("4:memory:/a\n"), None);
    }

    #[test]
    fn limits_are_those_that_there_are_controllers_for() {
        let limits = Limits {
            memory: 3 << 30,
            threads: 200,
            processors: 3,
            bandwidth: Some((1 << 20, PathBuf::from("/"))),
        };
        let shown = |controllers: &[&str], device| {
            let files = files(&limits, controllers, device);
            files.into_iter().map(|(name, value)| format!("{name} = {value}\n")).collect::<String>()
        };
        insta::assert_snapshot!(shown(&CONTROLLERS, Some((259, 0))), @r"
        memory.max = 3221225472
        memory.oom.group = 1
        pids.max = 200
        cpu.max = 300000 100000
        io.max = 259:0 rbps=1048576 wbps=1048576
        ");
        assert_eq!(shown(&["io", "pids"], None), "pids.max = 200\n");
        assert_eq!(shown(&[], Some((1, 2))), "");
        assert!(files(&Limits::default(), &CONTROLLERS, None).is_empty());
    }

    #[test]
    fn the_host_is_told_what_is_not_limited() {
        let shown = |controllers: &[&'static str]| {
            Cgroups { parent: "/sys/fs/cgroup/tart".into(), controllers: controllers.to_vec() }.to_string()
        };
        insta::assert_snapshot!(shown(&CONTROLLERS), @"cgroups in /sys/fs/cgroup/tart limit memory, pids, cpu, io");
        insta::assert_snapshot!(shown(&["pids"]), @"cgroups in /sys/fs/cgroup/tart limit pids, not memory, cpu, io");
        insta::assert_snapshot!(shown(&[]), @"cgroups in /sys/fs/cgroup/tart without limits: the host offers no controllers there");
    }
}
