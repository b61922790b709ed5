//! Control groups (cgroup v2) of machines, which are gone when their directories are.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// File in a machine's directory that names its control group.
const RECORD: &str = "cgroup";

/// How long killed processes may take to be gone, in seconds.
const END_LIMIT: i64 = 30;

/// Writes down which control group is a machine's.
pub(super) fn record_cgroup(machine: &Path, cgroup: &Path) -> io::Result<()> {
    fs::write(machine.join(RECORD), cgroup.as_os_str().as_bytes())
}

/// Kills what is in the control group that a machine's directory names, and removes the group.
pub(super) fn end(machine: &Path) -> io::Result<()> {
    let cgroup = match fs::read(machine.join(RECORD)) {
        Ok(path) => PathBuf::from(OsString::from_vec(path)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    remove(&cgroup)
}

/// Kills what is in a control group, and removes it. One that is gone is fine.
pub(crate) fn remove(cgroup: &Path) -> io::Result<()> {
    match kill(cgroup).and_then(|()| fs::remove_dir(cgroup)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("control group {}: {error}", cgroup.display())))
        }
        _ => Ok(()),
    }
}

fn kill(cgroup: &Path) -> io::Result<()> {
    match File::options().write(true).open(cgroup.join("cgroup.kill")) {
        Ok(mut kill) => kill.write_all(b"1")?,
        // Before Linux 5.14; the process that was recorded is killed anyway.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut events = File::open(cgroup.join("cgroup.events"))?;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let mut changed = [PollFd::new(&events, PollFlags::PRI)];
        if poll(&mut changed, Some(&Timespec { tv_sec: END_LIMIT, tv_nsec: 0 }))? == 0 {
            let text = "its processes were killed but do not end";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_control_group_or_whose_is_gone_ends() {
        let dir = tempfile::tempdir().unwrap();
        end(dir.path()).unwrap();
        record_cgroup(dir.path(), &dir.path().join("gone")).unwrap();
        end(dir.path()).unwrap();
    }

    #[test]
    fn what_is_no_control_group_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("precious");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "").unwrap();
        record_cgroup(dir.path(), &other).unwrap();
        end(dir.path()).unwrap();
        assert!(other.join("file").exists());
    }
}
