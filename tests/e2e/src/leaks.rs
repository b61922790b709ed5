//! Finding what a runner left behind on the host.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What refers to a directory although nothing should.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Processes that run in it, have files of it open or name it: their numbers and command lines.
    pub processes: Vec<(i32, String)>,
    /// Unix sockets, loop devices and mounts.
    pub kernel: Vec<String>,
    /// Files of machines and temporary files.
    pub files: Vec<PathBuf>,
}

impl Leftovers {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.kernel.is_empty() && self.files.is_empty()
    }

    /// Waits for the end of the processes, and returns those that do not end.
    #[must_use]
    pub fn wait_for_processes(&self, limit: Duration) -> Vec<i32> {
        let open = |(pid, _): &(i32, String)| Some((*pid, pidfd(*pid)?));
        let limit = Timespec::try_from(tart_proto::time::scaled(limit)).expect("limits of tests are small");
        let running = self.processes.iter().filter_map(open).filter(|(_, fd)| {
            let mut ended = [PollFd::new(fd, PollFlags::IN)];
            !matches!(poll(&mut ended, Some(&limit)), Ok(1..))
        });
        running.map(|(pid, _)| pid).collect()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (pid, command) in &self.processes {
            writeln!(f, "process {pid}: {command}")?;
        }
        for text in &self.kernel {
            writeln!(f, "{text}")?;
        }
        for path in &self.files {
            writeln!(f, "file {}", path.display())?;
        }
        Ok(())
    }
}

/// What is left of runners whose state and temporary files are in `state` and `temporary`, both below `directory`.
#[must_use]
pub fn left_of(directory: &Path, state: &Path, temporary: &Path) -> Leftovers {
    let text = directory.to_string_lossy();
    let mut left = Leftovers { processes: processes(&text), ..Leftovers::default() };
    for (list, kind) in [("/proc/net/unix", "socket"), ("/proc/self/mounts", "mount")] {
        let lines = fs::read_to_string(list).unwrap_or_default();
        let named = lines.lines().filter(|line| line.contains(&*text));
        left.kernel.extend(named.map(|line| format!("{kind}: {line}")));
    }
    for device in entries(Path::new("/sys/block")) {
        let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        if file.contains(&*text) {
            left.kernel.push(format!("loop device: {}", device.display()));
        }
    }
    // The lock of the directory itself stays, as it must for those who wait for it.
    left.files.extend(entries(&state.join("run")).filter(|path| !path.ends_with("lock")));
    left.files.extend(entries(temporary));
    left
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn processes(directory: &str) -> Vec<(i32, String)> {
    let own = i32::try_from(std::process::id()).ok();
    let mut found = Vec::new();
    for process in entries(Path::new("/proc")) {
        let pid = process.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        let Some(pid) = pid.filter(|pid| Some(*pid) != own) else { continue };
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let links = entries(&process.join("fd")).chain([process.join("cwd")]);
        let named = links.filter_map(|link| fs::read_link(link).ok());
        if command.contains(directory) || named.into_iter().any(|path| path.starts_with(directory)) {
            found.push((pid, command));
        }
    }
    found
}

fn pidfd(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}
