//! The kernel file systems of the agent's own tree.

use std::{fs, io, path::Path};

use rustix::{mount::MountFlags, thread::UnshareFlags};

use crate::mounts::mount_own;

/// The whole hierarchy of cgroups.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts everything that the agent itself needs.
pub(super) fn kernel_file_systems() -> io::Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (fstype, target, flags, data) in [
        ("proc", "/proc", safe, ""),
        ("sysfs", "/sys", safe, ""),
        ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755"),
        ("devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, "ptmxmode=0666,mode=0620,gid=5"),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755"),
        ("cgroup2", CGROUPS, safe, ""),
    ] {
        mount_own(fstype, target, flags, data)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot mount {target}: {e}")))?;
    }
    Ok(())
}

/// Makes `root` the root of the cgroups that jobs see: a container engine in a job then finds a hierarchy that it
/// may manage, and what it makes stays within the limits of all jobs.
///
/// A process gets the cgroup it is in as the root of its new namespace, so the agent visits `root`. Its own mount
/// still shows the whole hierarchy. That must be before `root` has controllers for its children: from then on the
/// kernel refuses processes in it.
pub(super) fn enter_cgroup_namespace(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    fs::write(root.join("cgroup.procs"), "0")?;
    #[expect(unsafe_code, reason = "rustix marks every unshare unsafe because of file descriptor tables")]
    // SAFETY: only the cgroup namespace changes.
    let entered = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) };
    fs::write(Path::new(CGROUPS).join("cgroup.procs"), "0")?;
    Ok(entered?)
}
