//! The store of caches of one host: archives that survive the guests that made them.
//!
//! Archives are opaque: the host neither makes nor reads one. Their names are digests of whose they are and of their
//! keys, so that no key leads to another project's or out of the store. An archive appears when it is complete, and
//! replaces the one before; who reads that one keeps it. Those that were not used for longest go when the store is full.

mod place;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio_util::io::ReaderStream;

pub(crate) use place::object_store;
pub use place::{CachePlace, ObjectCaches};

/// How the names of archives that are being written begin.
const UNFINISHED: &str = ".unfinished-";

/// One that is not written to for so long has lost its runner.
const LOST: Duration = Duration::from_secs(24 * 3600);

/// The lock of whoever removes archives.
const LOCK: &str = "lock";

/// Bytes of an archive that are read at once.
const PIECE: usize = 64 * 1024;

/// An archive, piece by piece.
pub(crate) fn pieces(file: File) -> ReaderStream<tokio::fs::File> {
    ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE)
}

/// Does what blocks in a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

/// The caches of all runners of a host.
#[derive(Debug, Clone)]
pub struct CacheStore(Arc<Store>);

#[derive(Debug)]
struct Store {
    root: PathBuf,
    /// Bytes of all archives.
    quota: u64,
}

/// Whose a cache is: nobody else reads or writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheScope(String);

impl CacheScope {
    /// A project's on a server, of one runner or of all if `shared`.
    #[must_use]
    pub fn project(server: &str, runner: &str, shared: bool, project: i64) -> Self {
        let runner = if shared { String::new() } else { format!("runner/{runner}/") };
        Self(format!("{server}\0{runner}project/{project}"))
    }

    /// A directory's, for jobs that no server sent.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        Self(format!("directory\0{}", path.display()))
    }

    /// One job's of a directory.
    pub(crate) fn job(path: &Path, name: &str) -> Self {
        Self(format!("directory\0{}\0job\0{name}", path.display()))
    }
}

impl CacheStore {
    /// Below a directory, which is made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(root: &Path, quota: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        Ok(Self(Arc::new(Store { root: root.to_owned(), quota })))
    }

    fn directory(&self, scope: &CacheScope) -> PathBuf {
        self.0.root.join(digest(&scope.0))
    }

    /// An archive, which counts as used now. Blocks.
    pub(crate) fn find(&self, scope: &CacheScope, key: &str) -> io::Result<Option<File>> {
        let file = match File::open(self.directory(scope).join(digest(key))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        file.set_modified(SystemTime::now())?;
        Ok(Some(file))
    }

    /// An archive to be written. Blocks.
    pub(crate) fn create(&self, scope: &CacheScope, key: &str) -> io::Result<NewArchive> {
        let directory = self.directory(scope);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&directory)?;
        Ok(NewArchive { store: self.clone(), file, place: directory.join(digest(key)) })
    }

    /// A file without a name, for an archive that is on its way elsewhere. Blocks.
    pub(crate) fn nameless(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.0.root)
    }

    /// The most bytes that an archive may have.
    pub(crate) fn quota(&self) -> u64 {
        self.0.quota
    }

    /// Removes all archives of somebody. Blocks.
    pub(crate) fn clear(&self, scope: &CacheScope) -> io::Result<()> {
        let directory = self.directory(scope);
        if !directory.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for entry in fs::read_dir(directory)?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<File> {
        let lock = File::options().create(true).truncate(false).write(true).open(self.0.root.join(LOCK))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    /// Removes what was not used for longest until the rest fits.
    fn evict(&self, newest: &Path) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut archives = Vec::new();
        for directory in fs::read_dir(&self.0.root)?.flatten().filter(|entry| entry.path().is_dir()) {
            for entry in fs::read_dir(directory.path())?.flatten() {
                let Ok(about) = entry.metadata() else { continue };
                let used = about.modified()?;
                if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                    archives.push((used, about.len(), entry.path()));
                } else if used.elapsed().is_ok_and(|age| age > LOST) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        archives.sort();
        let mut bytes: u64 = archives.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in archives {
            if bytes <= self.0.quota {
                break;
            }
            if path != newest {
                fs::remove_file(&path)?;
                bytes = bytes.saturating_sub(len);
            }
        }
        Ok(())
    }
}

/// An archive that is being written; nothing is left of it unless it is kept.
#[derive(Debug)]
pub(crate) struct NewArchive {
    store: CacheStore,
    file: NamedTempFile,
    place: PathBuf,
}

impl NewArchive {
    /// To write to.
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.as_file().try_clone()
    }

    /// Makes it the archive of its key. Blocks.
    pub(crate) fn keep(self) -> io::Result<()> {
        let Self { store, file, place } = self;
        file.persist(&place).map_err(|error| error.error)?;
        store.evict(&place)
    }
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn scope(project: i64) -> CacheScope {
        CacheScope::project("https://gitlab.test", "abc", false, project)
    }

    fn put(store: &CacheStore, scope: &CacheScope, key: &str, contents: &[u8]) {
        let archive = store.create(scope, key).unwrap();
        archive.writer().unwrap().write_all(contents).unwrap();
        archive.keep().unwrap();
    }

    fn get(store: &CacheStore, scope: &CacheScope, key: &str) -> Option<String> {
        let mut text = String::new();
        store.find(scope, key).unwrap()?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn no_project_sees_the_caches_of_another() {
        let root = tempfile::tempdir().unwrap();
        let store = CacheStore::open(root.path(), 1 << 20).unwrap();
        put(&store, &scope(1), "key", b"of one");
        put(&store, &scope(1), "../../../2/key", b"no way out");
        assert_eq!(get(&store, &scope(1), "key").as_deref(), Some("of one"));
        assert_eq!(get(&store, &scope(2), "key"), None);
        let others = [
            CacheScope::project("https://other.test", "abc", false, 1),
            CacheScope::project("https://gitlab.test", "abd", false, 1),
            CacheScope::project("https://gitlab.test", "abc", true, 1),
            CacheScope::directory(Path::new("/1")),
        ];
        assert!(others.iter().all(|other| get(&store, other, "key").is_none()));
        assert!(fs::read_dir(root.path()).unwrap().count() <= 2, "one directory, and the lock");
    }

    #[test]
    fn a_reader_keeps_what_is_replaced_and_nothing_is_left_of_what_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let store = CacheStore::open(root.path(), 1 << 20).unwrap();
        put(&store, &scope(1), "key", b"old");
        let mut reader = store.find(&scope(1), "key").unwrap().unwrap();
        put(&store, &scope(1), "key", b"new");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), get(&store, &scope(1), "key").as_deref()), ("old", Some("new")));
        let given_up = store.create(&scope(1), "key").unwrap();
        given_up.writer().unwrap().write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(get(&store, &scope(1), "key").as_deref(), Some("new"));
        assert_eq!(fs::read_dir(store.directory(&scope(1))).unwrap().count(), 1);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let root = tempfile::tempdir().unwrap();
        let store = CacheStore::open(root.path(), 25).unwrap();
        let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        for (key, seconds) in [("a", 300), ("b", 200)] {
            put(&store, &scope(1), key, &[b'x'; 10]);
            store.find(&scope(1), key).unwrap().unwrap().set_modified(ago(seconds)).unwrap();
        }
        assert!(get(&store, &scope(1), "a").is_some(), "it is used now");
        put(&store, &scope(2), "c", &[b'x'; 10]);
        let there = |project, key| get(&store, &scope(project), key).is_some();
        assert_eq!((there(1, "a"), there(1, "b"), there(2, "c")), (true, false, true));
        let lost = store.directory(&scope(1)).join(format!("{UNFINISHED}x"));
        File::create(&lost).unwrap().set_modified(ago(2 * 24 * 3600)).unwrap();
        put(&store, &scope(2), "c", &[b'x'; 10]);
        assert!(!lost.exists());
    }
}
