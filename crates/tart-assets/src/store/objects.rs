//! Files named after their content.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{Store, StoredFile};
use crate::error::{AssetError, IoContext, Result};

/// Where a file with this digest is.
pub(crate) fn path(root: &Path, digest: &str) -> PathBuf {
    root.join("objects").join(digest)
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A file whose content was checked: any change of it changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file that is being written; it is gone if it is not stored.
#[derive(Debug)]
pub(crate) struct Draft {
    file: NamedTempFile,
}

impl Draft {
    /// Its path, for a program that writes it.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens a file that is there to be locked.
pub(super) fn open_lock(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).at("open", path)
}

impl Store {
    /// Waits until no other process builds or removes anything here. The lock ends with the returned file.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = open_lock(&path)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            self.progress().step("waiting for another process that builds assets");
            rustix::fs::flock(&file, FlockOperation::LockExclusive).at("lock", &path)?;
        }
        Ok(file)
    }

    pub(crate) fn draft(&self) -> Result<Draft> {
        let directory = self.temporary();
        let file = NamedTempFile::new_in(&directory).at("make a file in", directory)?;
        Ok(Draft { file })
    }

    /// Where unfinished files are.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// Stores bytes as a file.
    pub(crate) fn add_bytes(&self, role: &str, bytes: &[u8]) -> Result<StoredFile> {
        let mut draft = self.draft()?;
        draft.write_all(bytes).at("write", draft.path())?;
        self.add(role, draft)
    }

    /// Stores a finished file.
    pub(crate) fn add(&self, role: &str, draft: Draft) -> Result<StoredFile> {
        let temporary = draft.file.path().to_owned();
        // A program may have replaced the file by another one, so it is opened again.
        let file = File::open(&temporary).at("open", &temporary)?;
        let (digest, size) = hash(&file).at("read", &temporary)?;
        file.set_permissions(fs::Permissions::from_mode(0o444)).at("protect", &temporary)?;
        file.sync_all().at("write", &temporary)?;
        let path = path(&self.root, &digest);
        if self.check(&digest).is_ok() {
            // Somebody may have a lease on the file that is there.
            return Ok(StoredFile { role: role.to_owned(), digest, size });
        }
        fs::rename(&temporary, &path).at("store", &path)?;
        // Its name is another file's now, or nobody's.
        drop(draft.file.keep());
        let metadata = file.metadata().at("look at", &path)?;
        self.remember(&path, Stamp::of(&metadata));
        Ok(StoredFile { role: role.to_owned(), digest, size })
    }

    /// Checks the content of a stored file, unless this process did and it has not changed since.
    pub(crate) fn check(&self, wanted: &str) -> Result<PathBuf> {
        let path = path(&self.root, wanted);
        let damaged = || AssetError::Damaged { path: path.clone() };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged()),
            Err(error) => return Err(error).at("open", &path),
        };
        let stamp = Stamp::of(&file.metadata().at("look at", &path)?);
        if self.is_checked(&path, stamp) {
            return Ok(path);
        }
        if hash(&file).at("read", &path)?.0 != wanted {
            return Err(damaged());
        }
        self.remember(&path, stamp);
        Ok(path)
    }

    fn is_checked(&self, path: &Path, stamp: Stamp) -> bool {
        self.checked.lock().is_ok_and(|checked| checked.get(path) == Some(&stamp))
    }

    fn remember(&self, path: &Path, stamp: Stamp) {
        if let Ok(mut checked) = self.checked.lock() {
            checked.insert(path.to_owned(), stamp);
        }
    }

    pub(super) fn forget_checks(&self) {
        if let Ok(mut checked) = self.checked.lock() {
            checked.clear();
        }
    }
}

/// Digest and size of the rest of a file.
pub(crate) fn hash(mut file: &File) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size = 0;
    loop {
        let length = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        size += length as u64;
    }
    Ok((hex::encode(hasher.finalize()), size))
}
