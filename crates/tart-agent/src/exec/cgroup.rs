//! cgroups of steps: limits, counters, and killing everything that a step left behind.
//!
//! All commands run below one cgroup, `tart`, whose limits leave the agent memory and process ids whatever a job
//! does. Each step has its own cgroup in it. Version 2 only.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal},
};
use tart_proto::message::{Failure, Limits};
use tokio::io::Interest;

use crate::{console, failure, readiness};

/// Longest name of a step's cgroup.
const MAX_NAME: usize = 64;

/// Depth of cgroups that a step may have made in its own, as far as signals go; a kill has no limit.
const MAX_DEPTH: usize = 16;

/// What steps, and what they make, are limited and counted by.
pub(super) const CONTROLLERS: [&str; 4] = ["+cpu", "+memory", "+pids", "+io"];

/// How often an emptied cgroup is looked at in case the kernel's notice of it was missed.
const RECHECK: Duration = Duration::from_millis(500);

/// The cgroup that all commands run in.
#[derive(Debug, Clone)]
pub struct Cgroups {
    top: PathBuf,
}

impl Cgroups {
    /// Makes `mount`/`name` with the given limits (0 for none) and hands every controller the kernel has down to it.
    ///
    /// # Errors
    /// If the directory cannot be made; a missing controller is no error.
    pub fn create(mount: &Path, name: &str, limits: &Limits) -> io::Result<Self> {
        let top = mount.join(name);
        match fs::create_dir(&top) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        delegate(mount);
        delegate(&top);
        let cgroups = Self { top };
        limit(&cgroups.top, limits).map_err(|(_, error)| error)?;
        Ok(cgroups)
    }

    /// The directory of the cgroup.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.top
    }

    /// The cgroup of a step, with its limits set anew.
    pub(crate) fn step(&self, name: &str, limits: &Limits) -> Result<Step, Failure> {
        let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(legal) {
            return Err(failure::invalid(format!("`{name}` is no name for a cgroup")));
        }
        let dir = self.top.join(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failure::system(format!("cannot make the cgroup `{name}`"), error));
            }
            _ => {}
        }
        limit(&dir, limits)
            .map_err(|(file, e)| failure::system(format!("cannot set {file} of the cgroup `{name}`"), e))?;
        Ok(Step { dir })
    }

    /// Kills every command and everything that commands left.
    pub(crate) fn kill_all(&self) {
        kill(&self.top);
    }

    /// Waits until no process is left.
    pub(crate) async fn emptied(&self) -> io::Result<()> {
        emptied(&self.top).await
    }
}

/// Turns the controllers that steps need on for the children of a cgroup. One by one: a kernel without one of them
/// must not cost the others.
fn delegate(parent: &Path) {
    for controller in CONTROLLERS {
        let _missing = fs::write(parent.join("cgroup.subtree_control"), controller);
    }
}

/// Writes limits; a controller that the kernel does not have is passed over.
fn limit(dir: &Path, limits: &Limits) -> Result<(), (&'static str, io::Error)> {
    for (file, value) in [("memory.max", limits.memory_bytes), ("pids.max", limits.pids)] {
        let text = if value == 0 { "max".to_owned() } else { value.to_string() };
        match fs::write(dir.join(file), text) {
            Err(error)
                if error.kind() != ErrorKind::NotFound && error.kind() != ErrorKind::PermissionDenied =>
            {
                return Err((file, error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn kill(dir: &Path) {
    if let Err(error) = fs::write(dir.join("cgroup.kill"), "1") {
        console::say(format_args!("cannot kill the cgroup {}: {error}", dir.display()));
    }
}

/// Counters of a cgroup since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) oom_kills: u64,
    pub(super) cpu_usec: u64,
    pub(super) memory_peak_bytes: u64,
}

/// The cgroup of one step.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    dir: PathBuf,
}

impl Step {
    /// The file that moves a process in, open for writing.
    pub(super) fn entrance(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(self.dir.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// The same for a service, whose processes are below the cgroup that they see as the top: there they can make
    /// cgroups with limits, as a container engine does.
    pub(super) fn service_entrance(&self) -> io::Result<ServiceEntrance> {
        let inner = self.dir.join("init");
        match fs::create_dir(&inner) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let open = |path: PathBuf| {
            rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)
        };
        Ok(ServiceEntrance {
            inner: open(inner.join("cgroup.procs"))?,
            controllers: open(self.dir.join("cgroup.subtree_control"))?,
        })
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |file: &str| fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        Usage {
            oom_kills: field(&read("memory.events"), "oom_kill").unwrap_or(0),
            cpu_usec: field(&read("cpu.stat"), "usage_usec").unwrap_or(0),
            memory_peak_bytes: read("memory.peak").trim().parse().unwrap_or(0),
        }
    }

    /// Signals every process. One that is being forked meanwhile may be missed.
    pub(super) fn signal_all(&self, signal: Signal) {
        signal_tree(&self.dir, signal, 0);
    }

    /// Kills every process; none can escape by forking.
    pub(super) fn kill(&self) {
        kill(&self.dir);
    }

    /// Waits until no process is left.
    pub(super) async fn emptied(&self) -> io::Result<()> {
        emptied(&self.dir).await
    }
}

/// Files of a service's cgroup, open for writing.
#[derive(Debug)]
pub(super) struct ServiceEntrance {
    /// Moves a process below the top.
    pub(super) inner: OwnedFd,
    /// Hands controllers down from the top, once no process is in it.
    pub(super) controllers: OwnedFd,
}

async fn emptied(dir: &Path) -> io::Result<()> {
    let events = readiness::watch_for(fs::File::open(dir.join("cgroup.events"))?, Interest::PRIORITY)?;
    loop {
        let mut text = [0; 256];
        let read = rustix::io::pread(events.get_ref(), &mut text, 0)?;
        let text = String::from_utf8_lossy(text.get(..read).unwrap_or_default());
        if field::<u64>(&text, "populated") != Some(1) {
            return Ok(());
        }
        // Reading takes the kernel's notice back, so one that came just before is seen only by looking again.
        if let Ok(guard) = tokio::time::timeout(RECHECK, events.ready(Interest::PRIORITY)).await {
            guard?.clear_ready();
        }
    }
}

fn signal_tree(dir: &Path, signal: Signal, depth: usize) {
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        // It may have ended since.
        let _gone = rustix::process::kill_process(pid, signal);
    }
    if depth == MAX_DEPTH {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            signal_tree(&entry.path(), signal, depth + 1);
        }
    }
}

/// A value of a file of `key value` lines.
fn field<T: FromStr>(text: &str, key: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_key() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), Some(3));
        assert_eq!(field::<u64>(text, "max"), None);
        assert_eq!(field::<u64>("oom_kill x\n", "oom_kill"), None);
    }

    #[test]
    fn a_name_cannot_leave_the_cgroup() {
        let cgroups = Cgroups { top: PathBuf::from("/nonexistent") };
        for name in ["", "..", "a/b", "A", "a.b", &"x".repeat(65)] {
            let failure = cgroups.step(name, &Limits::default()).unwrap_err();
            assert_eq!(failure.kind, tart_proto::message::FailureKind::Invalid, "{name}");
        }
    }
}
