//! The writable disk of one job.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    error::{IoContext, Result},
    program::MKE2FS,
};

/// A job's own disk: an empty ext4 file system in a sparse file, which is gone when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

/// One inode per this many bytes: builds make many small files.
const BYTES_PER_INODE: &str = "16384";

impl Scratch {
    /// The smallest disk, in bytes.
    pub const MIN_SIZE: u64 = 16 << 20;

    /// The file system's name for `mount`.
    pub const FSTYPE: &str = "ext4";

    /// Makes the file and the file system, which takes about 20 ms and 0.3 MB whatever its size. There is no
    /// journal: nobody reads the disk after a crash.
    ///
    /// # Errors
    /// If the file exists, its directory cannot be written, or mke2fs is missing or fails.
    pub fn create(path: &Path, bytes: u64) -> Result<Self> {
        let file = File::options().write(true).create_new(true).open(path).at("make", path)?;
        let scratch = Self { path: path.to_owned() };
        // Only the runner and its machine need it.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        file.set_permissions(private).at("protect", path)?;
        file.set_len(bytes.max(Self::MIN_SIZE)).at("make", path)?;
        MKE2FS.output(MKE2FS.command(arguments(path)))?;
        Ok(scratch)
    }

    /// The disk's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the disk takes on the host so far.
    ///
    /// # Errors
    /// If it is gone.
    pub fn used(&self) -> io::Result<u64> {
        Ok(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&self.path)?) * 512)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a job's disk");
        }
    }
}

fn arguments(path: &Path) -> Vec<std::ffi::OsString> {
    let fixed = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal,^resize_inode",
        "-m",
        "0",
        "-i",
        BYTES_PER_INODE,
        "-E",
        "lazy_itable_init=1,nodiscard,packed_meta_blocks=1",
        "--",
    ];
    fixed.into_iter().map(Into::into).chain([path.into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_takes_little_until_it_is_used_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scratch");
        let scratch = Scratch::create(&path, 10 << 30).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 10 << 30);
        assert!(scratch.used().unwrap() < 4 << 20, "{}", scratch.used().unwrap());
        assert!(Scratch::create(&path, 1 << 30).is_err(), "one that exists is another job's");
        drop(scratch);
        assert!(!path.exists());
    }
}
