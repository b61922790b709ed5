//! Making the jail and going into it, in the jailer's order.

use std::{
    convert::Infallible,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change,
        mount_remount, unmount,
    },
    process::{Resource, Rlimit, geteuid, pivot_root, setrlimit},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::{
    arguments::Jail,
    plan::{Plan, Stage},
};

/// Directories of the jail that belong to its user.
const DIRECTORIES: [&str; 4] = ["/", "/dev", "/dev/net", "/run"];

/// Devices, with their numbers.
const DEVICES: [(&str, u32, u32); 3] =
    [("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)];

/// Number of devices that have none of their own, such as `userfaultfd`.
const MISC: u32 = 10;

/// Version since which the copy of the program belongs to the jailed user.
const OWN_COPY: u32 = 15;

/// Where the fake Firecracker has its libraries, and the stand-in QEMU and its firmware.
const LIBRARIES: [&str; 7] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/bin", "/usr/share/qemu", "/usr/share/seabios"];

/// Closes everything but the standard descriptors.
pub(crate) fn close_descriptors() -> Result<(), String> {
    let failed = |e: io::Error| format!("Failed to close descriptors: {e}");
    // The directory's own is among them, and gone with its entries.
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .map_err(failed)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let still_open = |number: &i32| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    for number in open.into_iter().filter(|number| *number > 2).filter(still_open) {
        #[expect(unsafe_code, reason = "descriptors that the parent left open have no owner here")]
        // SAFETY: nothing in this process has opened a file that it still uses.
        unsafe {
            rustix::io::close(number);
        }
    }
    Ok(())
}

/// The device of `userfaultfd` by `/proc/misc`, as the jailer reads it: it sees no number of less than three digits.
fn userfault(misc: &str) -> Option<u64> {
    let numbers = misc.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let number = words.next()?;
        (words.next() == Some("userfaultfd")).then_some(number)
    });
    let minor = numbers.filter_map(|number| number.parse().ok()).next()?;
    Some(makedev(MISC, minor))
}

impl Jail {
    /// Becomes the jailed program, or tells why not.
    pub(crate) fn enter(&self, plan: &Plan) -> Result<Infallible, String> {
        if !geteuid().is_root() {
            return Err("Failed to set up the jail: it must be started as root".to_owned());
        }
        if self.daemonize || self.new_pid_ns {
            return Err("the fake has neither `--daemonize` nor `--new-pid-ns`".to_owned());
        }
        // Into a group that is there already, it goes first of all.
        let into_parent = self.cgroup_version == 2 && self.cgroups.is_empty();
        if into_parent && !plan.stays {
            self.join_cgroup()?;
        }
        let root = &self.root;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| format!("Failed to create directory {}: {e}", root.display()))?;
        self.copy_program(plan.minor() >= OWN_COPY)?;
        plan.reach(Stage::Copied)?;
        if let Some(netns) = &self.netns {
            let failed = |e: io::Error| format!("Failed to join network namespace: netns: {e}");
            let netns = File::open(netns).map_err(failed)?;
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| failed(e.into()))?;
        }
        // Its number is another on each host.
        let userfault = fs::read_to_string("/proc/misc").ok().and_then(|misc| userfault(&misc));
        self.limit()?;
        plan.reach(Stage::Limited)?;
        if !into_parent && !plan.stays {
            self.join_cgroup()?;
        }
        self.change_root().map_err(|e| format!("Failed to change the root directory: {e}"))?;
        plan.reach(Stage::Chrooted)?;
        self.furnish(userfault)?;
        plan.reach(Stage::Devices)?;
        self.record()?;
        plan.reach(Stage::Recorded)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros().to_string();
        let error = Command::new(Path::new("/").join(&self.exec_name))
            .args(["--id", &self.id, "--start-time-us", &now])
            .args(["--start-time-cpu-us", "0", "--parent-cpu-time-us", "0"])
            .args(&self.extra)
            .env_clear()
            .uid(self.uid)
            .gid(self.gid)
            .exec();
        Err(format!("Failed to exec into Firecracker: {error}"))
    }

    /// Refuses whatever is there already, as the real one does links. Without `own`, the copy is root's.
    fn copy_program(&self, own: bool) -> Result<(), String> {
        let to = self.root.join(&self.exec_name);
        let failed =
            |e: io::Error| format!("Failed to copy {} to {}: {e}", self.exec_file.display(), to.display());
        let mut from = File::open(&self.exec_file).map_err(failed)?;
        let mode = from.metadata().map_err(failed)?.permissions().mode();
        let mut copy = File::options().write(true).create_new(true).mode(mode).open(&to).map_err(failed)?;
        if own {
            fchown(&copy, Some(self.uid), Some(self.gid)).map_err(failed)?;
        } else {
            copy.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        }
        io::copy(&mut from, &mut copy).map_err(failed)?;
        Ok(())
    }

    fn limit(&self) -> Result<(), String> {
        let set = |resource, most: u64, maximum| {
            let limit = Rlimit { current: Some(most), maximum };
            setrlimit(resource, limit).map_err(|e| format!("Failed to set limit for resource: {e}"))
        };
        if let Some(fsize) = self.fsize {
            // The stand-in's guest has its memory in a file, for which it lifts the limit.
            let maximum = Some(fsize).filter(|_| !self.exec_name.starts_with("standin"));
            set(Resource::Fsize, fsize, maximum)?;
        }
        set(Resource::Nofile, self.no_file, Some(self.no_file))
    }

    /// With values, into a group of its own; with a parent alone, into that one, if there is such a one.
    fn join_cgroup(&self) -> Result<(), String> {
        if self.cgroup_version == 1 {
            let known = if self.cgroups.is_empty() { Ok(()) } else { Err("the fake has no cgroup v1") };
            return known.map_err(str::to_owned);
        }
        let mounts = fs::read_to_string("/proc/mounts").map_err(|e| e.to_string())?;
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let unified =
            lines.find(|words| words.get(2) == Some(&"cgroup2")).and_then(|words| words.get(1).copied());
        let unified = unified.ok_or("Hierarchy not found: No hierarchy found for this cgroup version.")?;
        let parent = self.parent_cgroup.clone().unwrap_or_else(|| PathBuf::from(&self.exec_name));
        let parent = Path::new(unified).join(parent);
        let write = |path: PathBuf, value: &str| {
            fs::write(&path, format!("{value}\n"))
                .map_err(|e| format!("Failed to write to {}: {e}", path.display()))
        };
        let own = std::process::id().to_string();
        if self.cgroups.is_empty() {
            let procs = parent.join("cgroup.procs");
            return if procs.exists() { write(procs, &own) } else { Ok(()) };
        }
        let group = parent.join(&self.id);
        fs::create_dir_all(&group)
            .map_err(|e| format!("Failed to create directory {}: {e}", group.display()))?;
        for (file, value) in &self.cgroups {
            write(group.join(file), value)?;
        }
        write(group.join("cgroup.procs"), &own)
    }

    fn change_root(&self) -> io::Result<()> {
        let root = &self.root;
        #[expect(unsafe_code, reason = "a namespace is left for another")]
        // SAFETY: this process has one thread, and the flag shares no memory and no descriptors in a new way.
        unsafe {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
        }
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        mount_bind_recursive(root, root)?;
        for library in LIBRARIES.iter().map(Path::new) {
            if library.is_dir() {
                let inside = root.join(library.strip_prefix("/").unwrap_or(library));
                fs::create_dir_all(&inside)?;
                mount_bind(library, &inside)?;
                let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
                mount_remount(&inside, flags, c"")?;
            }
        }
        std::env::set_current_dir(root)?;
        DirBuilder::new().mode(0o600).create("old_root")?;
        pivot_root(".", "old_root")?;
        std::env::set_current_dir("/")?;
        unmount("old_root", UnmountFlags::DETACH)?;
        fs::remove_dir("old_root")
    }

    /// Directories and devices, which belong to the user.
    fn furnish(&self, userfault: Option<u64>) -> Result<(), String> {
        let own = |path: &str| {
            chown(path, Some(self.uid), Some(self.gid))
                .map_err(|e| format!("Failed to change owner for {path}: {e}"))
        };
        for path in DIRECTORIES {
            let made = fs::create_dir_all(path)
                .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)));
            made.map_err(|e| format!("Failed to create directory {path}: {e}"))?;
            own(path)?;
        }
        let devices = DEVICES.map(|(path, major, minor)| (path, makedev(major, minor)));
        for (path, device) in devices.into_iter().chain(userfault.map(|device| ("/dev/userfaultfd", device)))
        {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, path, FileType::CharacterDevice, mode, device)
                .map_err(|e| format!("Failed to create {path} via mknod inside the jail: {e}"))?;
            own(path)?;
        }
        Ok(())
    }

    fn record(&self) -> Result<(), String> {
        let path = PathBuf::from(format!("/{}.pid", self.exec_name));
        let failed = |e: io::Error| format!("Failed to write to {}: {e}", path.display());
        let mut file = File::options().write(true).create_new(true).open(&path).map_err(failed)?;
        write!(file, "{}", std::process::id()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_for_served_memory_is_found_by_its_number() {
        assert_eq!(userfault("232 kvm\n126 userfaultfd\n"), Some(makedev(10, 126)));
        assert_eq!(userfault(" 58 userfaultfd\n"), None, "the jailer reads the first word");
        assert_eq!(userfault("126 other\n"), None);
    }
}
