//! Records of processes that outlive the memory of their numbers.

use std::{fs, io, path::Path};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::host;

/// File in a machine's directory that names its process.
const RECORD: &str = "process";

/// How long a killed process may take to be gone, in seconds.
const END_LIMIT: i64 = 30;

/// Writes down which process serves a machine: its number, and what tells it from a later one of the same number. Nothing
/// about one that has ended already, which another than its parent sees as gone.
pub(crate) fn record(machine: &Path, pid: u32) -> io::Result<()> {
    let started = match start_time(pid) {
        Ok(started) => started,
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    fs::write(machine.join(RECORD), format!("{pid} {started} {}\n", host::boot_id()))
}

/// The process ended between the opening of its file and the reading.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Kills the process that a machine's directory names, if it still is that one, and waits for its end.
pub(super) fn kill(machine: &Path) -> io::Result<Option<u32>> {
    let text = match fs::read_to_string(machine.join(RECORD)) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let Some((pid, started)) = parse(&text, &host::boot_id()) else { return Ok(None) };
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    // Opened before its identity is checked, so that both are of one process.
    let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if start_time(pid).ok() != Some(started) {
        return Ok(None);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Ok(None),
        // The root helper kills what it started as soon as its runner is gone.
        Err(Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    if poll(&mut ended, Some(&Timespec { tv_sec: END_LIMIT, tv_nsec: 0 }))? == 0 {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("process {pid} was killed but does not end"),
        ));
    }
    Ok(Some(pid))
}

/// Number and start time, if the record is of this boot.
fn parse(text: &str, boot_id: &str) -> Option<(u32, u64)> {
    let mut words = text.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let started = words.next()?.parse().ok()?;
    (words.next()? == boot_id).then_some((pid, started))
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/pid/stat`, proc(5)).
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed /proc/pid/stat");
    // The name before may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(malformed)?;
    fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_another_boot_name_nobody() {
        assert_eq!(parse("12 34 boot\n", "boot"), Some((12, 34)));
        assert_eq!(parse("12 34 boot\n", "other"), None);
        for text in ["", "12", "12 34", "a b boot", "-1 2 boot"] {
            assert_eq!(parse(text, "boot"), None, "{text}");
        }
    }

    #[test]
    fn a_process_that_is_gone_needs_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = std::process::Command::new("/bin/true").spawn().unwrap();
        gone.wait().unwrap();
        record(dir.path(), gone.id()).unwrap();
        assert_eq!(kill(dir.path()).unwrap(), None);
        assert!(record(Path::new("/nonexistent"), std::process::id()).is_err());
    }

    #[test]
    fn a_process_has_a_start_time() {
        assert!(start_time(std::process::id()).unwrap() > 0);
    }
}
