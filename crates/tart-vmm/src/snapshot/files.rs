//! Snapshots in a directory, for runners to come.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use rustix::{fs::SeekFrom as Find, io::Errno};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{MAX_STATE, Snapshot, Unsealed, reopen};
use crate::VmmError;

pub(super) const MEMORY: &str = "memory";
pub(super) const STATE: &str = "state";

/// Written last: what is without it is not complete.
const CONTENTS: &str = "snapshot.json";

/// Longest description, in bytes.
const MAX_CONTENTS: u64 = 4096;

/// Bytes that are copied at once.
const CHUNK: usize = 256 * 1024;

/// What the files must be.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    memory_bytes: u64,
    state_bytes: u64,
    /// Of both, and of where the memory has data.
    sha256: String,
}

impl Snapshot {
    /// Takes over the files that a monitor wrote. Blocks.
    pub(crate) fn take_over(memory: &File, state: &File, memory_bytes: u64) -> Result<Self, VmmError> {
        let taken = || {
            let size = memory.metadata()?.len();
            if size != memory_bytes || state.metadata()?.len() > MAX_STATE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a file has an unexpected size"));
            }
            let unsealed = Unsealed::create(memory_bytes).map_err(io::Error::other)?;
            fill(&unsealed, memory, state)?;
            Ok(unsealed)
        };
        taken().map_err(|e| VmmError::system("read a saved machine", e))?.seal()
    }

    /// Writes it into a directory, which must exist. Holes of the memory stay holes. Blocks.
    ///
    /// # Errors
    /// [`VmmError::System`]; what was written is then refused by [`Snapshot::read`].
    pub fn write(&self, dir: &Path) -> Result<(), VmmError> {
        self.write_from(&self.contents(), dir)
    }

    pub(super) fn write_from(&self, from: &super::Contents, dir: &Path) -> Result<(), VmmError> {
        let write = || -> io::Result<()> {
            let mut hash = Sha256::new();
            let memory = create(&dir.join(MEMORY))?;
            memory.set_len(self.memory_bytes())?;
            copy(&from.memory, &memory, &mut hash)?;
            let state = create(&dir.join(STATE))?;
            let state_bytes = copy(&from.state, &state, &mut hash)?;
            state.set_len(state_bytes)?;
            let sha256 = hex::encode(hash.finalize());
            let contents = Contents { memory_bytes: self.memory_bytes(), state_bytes, sha256 };
            create(&dir.join(CONTENTS))?.write_all(&serde_json::to_vec(&contents)?)
        };
        write().map_err(|e| VmmError::system(format!("write a snapshot to {}", dir.display()), e))
    }

    /// Reads it from a directory and verifies it. `None` if there is none, or if it is damaged, which is logged. Blocks.
    ///
    /// # Errors
    /// [`VmmError::System`] if this host has no memory for it.
    pub fn read(dir: &Path) -> Result<Option<Self>, VmmError> {
        let Ok(contents) = File::open(dir.join(CONTENTS)) else { return Ok(None) };
        let mut text = Vec::new();
        let contents: Contents = match contents
            .take(MAX_CONTENTS)
            .read_to_end(&mut text)
            .and_then(|_| Ok(serde_json::from_slice(&text)?))
        {
            Ok(contents) => contents,
            Err(error) => return Ok(damaged(dir, &error)),
        };
        if contents.state_bytes > MAX_STATE {
            return Ok(damaged(dir, &"its state is too long"));
        }
        let unsealed = Unsealed::create(contents.memory_bytes)?;
        match restore(&unsealed, dir, &contents) {
            Ok(true) => unsealed.seal().map(Some),
            Ok(false) => Ok(damaged(dir, &"it is not what was written")),
            Err(error) => Ok(damaged(dir, &error)),
        }
    }
}

fn damaged(dir: &Path, why: &dyn std::fmt::Display) -> Option<Snapshot> {
    tracing::warn!(dir = %dir.display(), %why, "A snapshot is damaged and is made anew");
    None
}

/// Copies the files of a directory into memory; whether they are what was written.
fn restore(unsealed: &Unsealed, dir: &Path, wanted: &Contents) -> io::Result<bool> {
    let memory = File::open(dir.join(MEMORY))?;
    let state = File::open(dir.join(STATE))?;
    if memory.metadata()?.len() != wanted.memory_bytes || state.metadata()?.len() != wanted.state_bytes {
        return Ok(false);
    }
    Ok(fill(unsealed, &memory, &state)? == wanted.sha256)
}

/// Copies files into memory; the digest of what they are.
fn fill(unsealed: &Unsealed, memory: &File, state: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let writer = |fd: &std::os::fd::OwnedFd| fd.try_clone().map(File::from);
    copy(memory, &writer(&unsealed.memory)?, &mut hash)?;
    copy(state, &writer(&unsealed.state)?, &mut hash)?;
    rustix::fs::ftruncate(&unsealed.state, state.metadata()?.len())?;
    Ok(hex::encode(hash.finalize()))
}

/// Copies the data of a file to the same places of another; bytes up to the end of its data. Zeros are no data: file
/// systems keep holes in different ways.
fn copy(from: &impl AsFd, mut to: &File, hash: &mut Sha256) -> io::Result<u64> {
    let mut from = File::from(reopen(from)?);
    let mut buffer = vec![0; CHUNK];
    let (mut at, mut end) = (0, 0);
    loop {
        at = match rustix::fs::seek(&from, Find::Data(at)) {
            // Holes before it count in whole chunks, so that chunks lie where they lay.
            Ok(data) => data - data % CHUNK as u64,
            Err(Errno::NXIO) => return Ok(end),
            Err(errno) => return Err(errno.into()),
        };
        from.seek(SeekFrom::Start(at))?;
        let len = read_full(&mut from, &mut buffer)?;
        if len == 0 {
            return Ok(end);
        }
        let data = &buffer[..len];
        if data.iter().any(|byte| *byte != 0) {
            hash.update(at.to_le_bytes());
            hash.update(data);
            to.seek(SeekFrom::Start(at))?;
            to.write_all(data)?;
        }
        at += len as u64;
        end = at;
    }
}

fn read_full(from: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Snapshot {
        let unsealed = Unsealed::create(8 << 20).unwrap();
        rustix::io::pwrite(&unsealed.memory, b"page", 5 << 20).unwrap();
        rustix::io::pwrite(&unsealed.memory, b"x", 4096).unwrap();
        rustix::io::pwrite(&unsealed.state, b"state of devices", 0).unwrap();
        unsealed.seal().unwrap()
    }

    fn at(snapshot: &Snapshot, offset: u64, len: usize) -> Vec<u8> {
        let mut read = vec![0; len];
        rustix::io::pread(&*snapshot.memory(), &mut read, offset).unwrap();
        read
    }

    #[test]
    fn a_snapshot_is_the_same_after_it_was_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Snapshot::read(dir.path()).unwrap().is_none());
        saved().write(dir.path()).unwrap();
        let read = Snapshot::read(dir.path()).unwrap().unwrap();
        assert_eq!(read.memory_bytes(), 8 << 20);
        assert_eq!((at(&read, 5 << 20, 4), at(&read, 4096, 1)), (b"page".to_vec(), b"x".to_vec()));
        let mut state = String::new();
        File::from(read.state().unwrap()).read_to_string(&mut state).unwrap();
        assert_eq!(state, "state of devices");
        // What has no data takes no memory.
        assert!(read.resident_bytes() < 2 << 20, "{}", read.resident_bytes());
        assert!(fs::metadata(dir.path().join(MEMORY)).unwrap().len() == 8 << 20);
    }

    #[test]
    fn nobody_changes_a_snapshot() {
        let snapshot = saved();
        assert_eq!(rustix::io::pwrite(&*snapshot.memory(), b"evil", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&*snapshot.memory(), 0), Err(Errno::PERM));
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*snapshot.memory()));
        let again = File::options().read(true).write(true).open(path).unwrap();
        assert!((&again).write_all(b"evil").is_err());
    }

    #[test]
    fn a_damaged_snapshot_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let damage = |name: &str, with: &dyn Fn(&Path)| {
            saved().write(dir.path()).unwrap();
            with(&dir.path().join(name));
            assert!(Snapshot::read(dir.path()).unwrap().is_none(), "{name}");
        };
        let poke = |offset: u64| {
            move |path: &Path| {
                let file = File::options().write(true).open(path).unwrap();
                rustix::io::pwrite(&file, b"!", offset).unwrap();
            }
        };
        damage(MEMORY, &poke(5 << 20));
        damage(MEMORY, &poke(7 << 20));
        damage(MEMORY, &|path| File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap());
        damage(STATE, &poke(3));
        damage(STATE, &|path| fs::remove_file(path).unwrap());
        damage(CONTENTS, &|path| fs::write(path, "{").unwrap());
        damage(CONTENTS, &|path| fs::write(path, vec![b' '; 10_000]).unwrap());
        let huge = r#"{"memory_bytes":8388608,"state_bytes":999999999999,"sha256":""}"#;
        damage(CONTENTS, &|path| fs::write(path, huge).unwrap());
        saved().write(dir.path()).unwrap();
        assert!(Snapshot::read(dir.path()).unwrap().is_some());
    }
}
