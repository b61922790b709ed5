//! A machine's state that any number of machines go on from.
//!
//! Memory and device state are in sealed memory files: those who start from them map the memory privately, so they
//! share what they do not change, and none can change what the others get, whatever becomes of its monitor.

mod files;
mod linked;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use tempfile::TempDir;

use crate::VmmError;

/// Longest device state, in bytes. QEMU's is a few MiB, mostly firmware.
pub(crate) const MAX_STATE: u64 = 64 << 20;

/// What a machine was when it was saved. Clones are the same.
#[derive(Debug, Clone)]
pub struct Snapshot {
    contents: Arc<Mutex<Contents>>,
    memory_bytes: u64,
}

/// Where memory and state are.
#[derive(Debug)]
struct Contents {
    memory: Arc<OwnedFd>,
    state: Arc<OwnedFd>,
    /// Of files with names; memory files have none.
    dir: Option<TempDir>,
}

impl Snapshot {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest's memory in bytes: that of the machines that start from it.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Host memory that it holds, or disk space if it is in files with names, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let blocks =
            |fd: &OwnedFd| rustix::fs::fstat(fd).map_or(0, |stat| stat.st_blocks.unsigned_abs() * 512);
        let contents = self.contents();
        blocks(&contents.memory) + blocks(&contents.state)
    }

    /// The memory file. It is sealed, or only root can write to it: it can only be mapped privately.
    pub(crate) fn memory(&self) -> Arc<OwnedFd> {
        self.contents().memory.clone()
    }

    /// The memory file with a position of its own.
    pub(crate) fn memory_reader(&self) -> io::Result<OwnedFd> {
        reopen(&self.contents().memory)
    }

    /// The device state, from its beginning, for one reader.
    pub(crate) fn state(&self) -> io::Result<OwnedFd> {
        reopen(&self.contents().state)
    }
}

/// Where a machine that is to be saved has its memory, and puts its state.
#[derive(Debug)]
pub(crate) struct Unsealed {
    pub(crate) memory: Arc<OwnedFd>,
    pub(crate) state: Arc<OwnedFd>,
    memory_bytes: u64,
}

impl Unsealed {
    pub(crate) fn create(memory_bytes: u64) -> Result<Self, VmmError> {
        let create = || -> io::Result<Self> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let memory = rustix::fs::memfd_create("tart-memory", flags)?;
            rustix::fs::ftruncate(&memory, memory_bytes)?;
            let state = rustix::fs::memfd_create("tart-state", flags)?;
            Ok(Self { memory: Arc::new(memory), state: Arc::new(state), memory_bytes })
        };
        create().map_err(|e| VmmError::system("make files for a machine's memory", e))
    }

    /// Makes it final. No process may have it mapped for writing any more.
    pub(crate) fn seal(self) -> Result<Snapshot, VmmError> {
        let failed = |e| VmmError::system("seal a saved machine", e);
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        for fd in [&self.memory, &self.state] {
            rustix::fs::fcntl_add_seals(fd, seals).map_err(failed)?;
        }
        let Self { memory, state, memory_bytes } = self;
        let contents = Arc::new(Mutex::new(Contents { memory, state, dir: None }));
        Ok(Snapshot { contents, memory_bytes })
    }
}

/// The same file with a position of its own.
fn reopen(fd: &impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
