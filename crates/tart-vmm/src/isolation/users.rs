//! Users that monitors run as: each for one machine at a time.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::fs::{FlockOperation, flock};

use super::IsolationOptions;
use crate::VmmError;

/// Capabilities (linux/capability.h) that starting a process as another user in namespaces of its own takes.
const NEEDED: [(u32, &str); 5] =
    [(0, "CAP_CHOWN"), (6, "CAP_SETGID"), (7, "CAP_SETUID"), (21, "CAP_SYS_ADMIN"), (27, "CAP_MKNOD")];

/// What putting files into a jail that is another user's, connecting to that user's sockets, and naming files there takes besides.
const NEEDED_FOR_JAILS: [(u32, &str); 3] =
    [(1, "CAP_DAC_OVERRIDE"), (2, "CAP_DAC_READ_SEARCH"), (3, "CAP_FOWNER")];

/// Whom a monitor runs as. No other process has the same user or group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Why monitors cannot have users of their own, if they cannot.
pub(super) fn missing(count: u32) -> Option<String> {
    if count == 0 {
        return Some("`uid_count` is 0".to_owned());
    }
    without(&NEEDED)
}

/// Why this process cannot jail them, if it can have them run as users of their own.
pub(super) fn missing_for_jails() -> Option<String> {
    without(&NEEDED_FOR_JAILS)
}

fn without(needed: &[(u32, &'static str)]) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lacking: Vec<_> = lacking(&status, needed).collect();
    (!lacking.is_empty()).then(|| format!("it takes root (here, {} is missing)", lacking.join(", ")))
}

/// The capabilities that a process's status (proc(5)) does not have.
fn lacking(status: &str, needed: &[(u32, &'static str)]) -> impl Iterator<Item = &'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    needed.iter().copied().filter(move |(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| name)
}

/// The users.
#[derive(Debug)]
pub(super) struct Users {
    base: u32,
    count: u32,
    locks: PathBuf,
    /// What was not used for longest comes next.
    next: AtomicU32,
}

impl Users {
    pub(super) fn open(options: &IsolationOptions) -> Result<Self, VmmError> {
        let IsolationOptions { uid_base, uid_count, locks, .. } = options;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(locks)
            .map_err(|e| VmmError::system(format!("make the directory {}", locks.display()), e))?;
        let count = (*uid_count).min(u32::MAX - 1 - uid_base);
        Ok(Self { base: *uid_base, count, locks: locks.clone(), next: AtomicU32::new(0) })
    }

    /// Reserves one that nobody has.
    pub(super) fn reserve(&self) -> Result<Reserved, VmmError> {
        let failed = |e| VmmError::system(format!("reserve a user in {}", self.locks.display()), e);
        for _ in 0..self.count {
            let uid = self.base + self.next.fetch_add(1, Ordering::Relaxed) % self.count;
            let path = self.locks.join(uid.to_string());
            let lock = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Reserved { identity: Identity { uid, gid: uid }, _lock: lock }),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        let all = format!("all of {self} have machines; raise `uid_count`");
        Err(failed(io::Error::new(io::ErrorKind::ResourceBusy, all)))
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "users {} to {}", self.base, self.base + self.count.saturating_sub(1))
    }
}

/// A user that is one machine's.
#[derive(Debug)]
pub(super) struct Reserved {
    identity: Identity,
    _lock: File,
}

impl Reserved {
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(count: u32, locks: PathBuf) -> Users {
        Users::open(&IsolationOptions { uid_base: 700_000, uid_count: count, locks, cgroup_parent: None })
            .unwrap()
    }

    #[test]
    fn no_two_machines_have_a_user_at_a_time_whoever_runs_them() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (users(3, dir.path().join("uids")), users(3, dir.path().join("uids")));
        let first = one.reserve().unwrap();
        let second = other.reserve().unwrap();
        let third = one.reserve().unwrap();
        let uids = [&first, &second, &third].map(|user| user.identity().uid);
        assert_eq!(uids, [700_000, 700_001, 700_002]);
        let error = other.reserve().unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.contains("users 700000 to 700002 have machines; raise `uid_count`"), "{error}");
        drop(second);
        assert_eq!(one.reserve().unwrap().identity(), Identity { uid: 700_001, gid: 700_001 });
    }

    #[test]
    fn root_without_its_capabilities_is_told_what_is_missing() {
        let names = |status: &str| lacking(status, &NEEDED).collect::<Vec<_>>().join(" ");
        assert_eq!(names("Name:\tx\nCapEff:\t000001ffffffffff\n"), "");
        assert_eq!(names("CapEff:\t00000000a80425fb\n"), "CAP_SYS_ADMIN");
        for none in ["CapEff:\t0\n", "", "CapEff:\tx\n"] {
            assert_eq!(names(none), "CAP_CHOWN CAP_SETGID CAP_SETUID CAP_SYS_ADMIN CAP_MKNOD");
        }
        assert_eq!(missing(0).unwrap(), "`uid_count` is 0");
    }
}
