//! From a step to what has to be done for it: no system calls, so that it is tested anywhere.

use std::path::{Path, PathBuf};

use rustix::{fs::FileType, mount::MountFlags};
use tart_proto::message::{Failure, MountStep, Root};

use crate::{failure, network, tree::Trees};

/// Group that owns terminals, by convention `tty` of all distributions.
const DEVPTS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";

/// `mount(2)` takes one page of options, with its final NUL.
const MAX_OPTIONS: usize = 4095;

/// Devices every program expects: name, mode, major, minor.
const DEVICES: [(&str, u32, u32, u32); 10] = [
    ("null", 0o666, 1, 3),
    ("zero", 0o666, 1, 5),
    ("full", 0o666, 1, 7),
    ("random", 0o666, 1, 8),
    ("urandom", 0o666, 1, 9),
    ("tty", 0o666, 5, 0),
    ("kmsg", 0o600, 1, 11),
    ("fuse", 0o666, 10, 229),
    ("net/tun", 0o666, 10, 200),
    ("loop-control", 0o660, 10, 237),
];

/// Loop devices for jobs that build disk images.
const LOOP_DEVICES: u32 = 8;
const LOOP_MAJOR: u32 = 7;

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// One thing to do. Paths are absolute in the agent's namespace; missing directories are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Mount(MountPlan),
    Bind {
        source: String,
        target: String,
    },
    /// Nothing if the target has files.
    Volume {
        source: String,
        target: String,
    },
    /// `required`: the target is made if missing, as far as the tree can be written.
    BindFile {
        source: PathBuf,
        target: String,
        required: bool,
    },
    Directory {
        path: String,
        mode: u32,
    },
    Node {
        path: String,
        kind: FileType,
        major: u32,
        minor: u32,
        mode: u32,
    },
    Link {
        path: String,
        to: &'static str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPlan {
    pub(super) source: String,
    pub(super) target: String,
    pub(super) fstype: String,
    pub(super) flags: MountFlags,
    pub(super) data: String,
}

/// What a step needs. `device` is the found disk of a disk step; `read_only` says that the tree of a system step is.
pub(super) fn actions(
    step: &MountStep,
    trees: &Trees,
    etc: &Path,
    device: Option<&str>,
    read_only: bool,
) -> Result<Vec<Action>, Failure> {
    Ok(match step {
        MountStep::Disk { target, fstype, read_only, options, .. } => {
            let writable_ext4 = fstype == "ext4" && !read_only;
            let mut options = options.clone();
            // Writing the unused inode tables of a disk that lives for minutes would be for nothing.
            if writable_ext4 && !options.contains("init_itable") {
                options.push_str(if options.is_empty() { "noinit_itable" } else { ",noinit_itable" });
            }
            let flags = if *read_only { MountFlags::RDONLY } else { MountFlags::NOATIME };
            vec![mount(device.unwrap_or_default(), &absolute(target)?, fstype, flags, options)?]
        }
        MountStep::Overlay { lower, upper, work, target } => overlay(lower, upper, work, target)?,
        MountStep::Bind { source, target } => {
            vec![Action::Bind { source: absolute(source)?, target: absolute(target)? }]
        }
        MountStep::Volume { source, target } => {
            vec![Action::Volume { source: absolute(source)?, target: absolute(target)? }]
        }
        MountStep::Tmpfs { target, mode, size_bytes } => {
            let size = if *size_bytes == 0 { String::new() } else { format!(",size={size_bytes}") };
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            vec![mount(
                "tmpfs",
                &absolute(target)?,
                "tmpfs",
                flags,
                format!("mode={:o}{size}", mode & 0o7777),
            )?]
        }
        MountStep::Directory { path, mode } => {
            vec![Action::Directory { path: absolute(path)?, mode: *mode }]
        }
        MountStep::System { root: Root::Agent } => {
            return Err(failure::invalid("the agent's own tree needs no system mounts"));
        }
        MountStep::System { root } => system(&trees.path(*root), etc, read_only)?,
    })
}

fn overlay(lower: &[String], upper: &str, work: &str, target: &str) -> Result<Vec<Action>, Failure> {
    let (upper, work, target) = (absolute(upper)?, absolute(work)?, absolute(target)?);
    if lower.is_empty() {
        return Err(failure::invalid(format!("the overlay on `{target}` has no layer")));
    }
    let lower = lower.iter().map(|path| Ok(escape(&absolute(path)?))).collect::<Result<Vec<_>, Failure>>()?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), escape(&upper), escape(&work));
    Ok(vec![
        Action::Directory { path: upper, mode: 0o755 },
        Action::Directory { path: work, mode: 0o755 },
        mount("overlay", &target, "overlay", MountFlags::NOATIME, options)?,
    ])
}

/// Overlay's options are separated by commas and its layers by colons.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:")
}

fn system(tree: &Path, etc: &Path, read_only: bool) -> Result<Vec<Action>, Failure> {
    let tree = tree.to_str().ok_or_else(|| failure::invalid("the tree's path is not UTF-8"))?;
    let at = |path: &str| format!("{tree}/{path}");
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let no_options = String::new;
    let mut actions = vec![
        mount("proc", &at("proc"), "proc", safe, no_options())?,
        mount("sysfs", &at("sys"), "sysfs", safe, no_options())?,
        mount("cgroup2", &at("sys/fs/cgroup"), "cgroup2", safe, no_options())?,
        mount("tmpfs", &at("dev"), "tmpfs", MountFlags::NOSUID, "mode=755".to_owned())?,
    ];
    let node = |name: &str, mode, kind, major, minor| Action::Node {
        path: at(&format!("dev/{name}")),
        kind,
        major,
        minor,
        mode,
    };
    for (name, mode, major, minor) in DEVICES {
        actions.push(node(name, mode, FileType::CharacterDevice, major, minor));
    }
    for minor in 0..LOOP_DEVICES {
        actions.push(node(&format!("loop{minor}"), 0o660, FileType::BlockDevice, LOOP_MAJOR, minor));
    }
    for (name, to) in LINKS {
        actions.push(Action::Link { path: at(&format!("dev/{name}")), to });
    }
    let not_executed = MountFlags::NOSUID | MountFlags::NOEXEC;
    actions.extend([
        mount("devpts", &at("dev/pts"), "devpts", not_executed, DEVPTS.to_owned())?,
        mount(
            "tmpfs",
            &at("dev/shm"),
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            "mode=1777".to_owned(),
        )?,
        mount("mqueue", &at("dev/mqueue"), "mqueue", safe, no_options())?,
    ]);
    // A writable tree keeps the /run of its image, as in a container: images of services have directories there.
    if read_only {
        actions.push(mount(
            "tmpfs",
            &at("run"),
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            "mode=755".to_owned(),
        )?);
    }
    for name in [network::HOSTNAME, network::HOSTS, network::RESOLV_CONF, network::MACHINE_ID] {
        let required = name != network::MACHINE_ID;
        actions.push(Action::BindFile {
            source: etc.join(name),
            target: at(&format!("etc/{name}")),
            required,
        });
    }
    Ok(actions)
}

fn mount(
    source: &str,
    target: &str,
    fstype: &str,
    flags: MountFlags,
    data: String,
) -> Result<Action, Failure> {
    if data.len() > MAX_OPTIONS {
        return Err(failure::invalid(format!(
            "the options of `{target}` have {} bytes, more than the kernel's {MAX_OPTIONS}",
            data.len()
        )));
    }
    Ok(Action::Mount(MountPlan {
        source: source.to_owned(),
        target: target.to_owned(),
        fstype: fstype.to_owned(),
        flags,
        data,
    }))
}

fn absolute(path: &str) -> Result<String, Failure> {
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(failure::invalid(format!("the path `{path}` is not absolute")))
    }
}

#[cfg(test)]
mod tests;
