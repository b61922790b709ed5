//! The lock beside the file, and its replacement in one step.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::EditError;
use crate::problem::LoadError;

/// How long to wait for another editor.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> EditError {
    let path = path.to_owned();
    move |source| EditError::File { action, path: path.clone(), source }
}

/// The file itself if `path` is a link to it, so that the link stays.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, EditError> {
    path.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LoadError::NotFound(path.to_owned()).into(),
        _ => LoadError::Read { path: path.to_owned(), source }.into(),
    })
}

/// Makes the directory of a file, for its owner only.
pub(super) fn make_directory(path: &Path) -> Result<(), EditError> {
    let directory = parent(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("make the directory", directory))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Locks `.NAME.lock` beside the file. The file itself cannot carry the lock, as it is replaced.
pub(super) fn lock(path: &Path) -> Result<File, EditError> {
    lock_within(path, LOCK_TIMEOUT)
}

fn lock_within(path: &Path, timeout: Duration) -> Result<File, EditError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lock_path = parent(path).join(format!(".{name}.lock"));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(failed("open the lock file", &lock_path))?;
    let deadline = Instant::now() + timeout;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => return Err(EditError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
    }
}

/// Replaces a file's content: after a crash there is either the old text or the new one.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), EditError> {
    let directory = parent(path);
    let mut file = tempfile::Builder::new()
        .prefix(".config-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(failed("write into", directory))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed("write", path))?;
    file.persist(path).map_err(|error| failed("replace", path)(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("write into", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_reported_and_a_released_one_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let held = lock_within(&path, Duration::ZERO).unwrap();
        assert!(matches!(lock_within(&path, Duration::ZERO), Err(EditError::Locked(_))));
        drop(held);
        lock_within(&path, Duration::ZERO).unwrap();
    }
}
