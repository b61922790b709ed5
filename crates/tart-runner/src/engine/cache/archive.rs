//! Archives of caches: in the store of the host, or on their way from and to an object store.

use std::fs::File;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, try_unfold};
use futures::{StreamExt, TryStreamExt};
use tart_objects::{ObjectError, Transfer};

use super::keys::Key;
use crate::cache::{NewArchive, blocking, pieces};
use crate::{CachePlace, CacheStore};

/// How long a request takes at most if a job asks for no limit.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);

const MISSING: &str = "file does not exist";

/// The bytes of an archive.
pub(super) type Archive = BoxStream<'static, io::Result<Bytes>>;

/// What the tries of a job have to do with archives.
pub(super) struct Archives {
    pub(super) store: CacheStore,
    pub(super) place: CachePlace,
    /// How long a request to an object store may take; zero is no limit.
    pub(super) limit: Duration,
    /// How archives come from an object store.
    pub(super) transfer: Transfer,
}

/// An archive that is written, and kept nowhere yet.
pub(super) enum Pending {
    Host(NewArchive),
    Object { file: File, name: String },
}

impl Archives {
    fn limit(&self) -> Duration {
        if self.limit.is_zero() { NO_LIMIT } else { self.limit }
    }

    /// Where an object is, if there are any and it may be said.
    pub(super) fn address(&self, key: &Key) -> Option<String> {
        match &self.place {
            CachePlace::Objects(objects) if objects.shown => {
                objects.object(&key.name).map(|name| objects.store.address(&name))
            }
            CachePlace::Objects(_) | CachePlace::Host(_) => None,
        }
    }

    /// How often an archive that breaks off is asked for. A file of this host does not get better.
    pub(super) fn tries(&self) -> u32 {
        match self.place {
            CachePlace::Objects(_) => 3,
            CachePlace::Host(_) => 1,
        }
    }

    /// Opens the archive of a key. The error is for the job's log.
    pub(super) async fn open(&self, key: &Key) -> Result<Archive, String> {
        match &self.place {
            CachePlace::Host(scope) => {
                let (store, scope, name) = (self.store.clone(), scope.clone(), key.name.clone());
                match blocking(move || store.find(&scope, &name)).await {
                    Ok(Some(file)) => Ok(pieces(file).boxed()),
                    Ok(None) => Err(MISSING.to_owned()),
                    Err(error) => Err(format!("the cache cannot be read: {error}")),
                }
            }
            CachePlace::Objects(objects) => {
                let name = objects.object(&key.name).ok_or_else(|| MISSING.to_owned())?;
                let download = objects.store.get(&name, self.transfer, self.limit()).await;
                let download = download.map_err(|error| error.to_string())?;
                let pieces = try_unfold(download, |mut download| async move {
                    Ok::<_, ObjectError>(download.chunk().await?.map(|piece| (piece, download)))
                });
                Ok(pieces.map_err(io::Error::other).boxed())
            }
        }
    }

    /// A file for the archive of a key.
    pub(super) async fn create(&self, key: &Key) -> io::Result<(File, Pending)> {
        let (store, place, name) = (self.store.clone(), self.place.clone(), key.name.clone());
        let created = blocking(move || match place {
            CachePlace::Host(scope) => {
                let archive = store.create(&scope, &name)?;
                Ok((archive.writer()?, Pending::Host(archive)))
            }
            CachePlace::Objects(objects) => {
                let name = objects.object(&name).ok_or(io::ErrorKind::InvalidFilename)?;
                let file = store.nameless()?;
                Ok((file.try_clone()?, Pending::Object { file, name }))
            }
        });
        created.await
    }

    /// Makes what was written the archive of its key. The error is for the job's log.
    pub(super) async fn keep(&self, pending: Pending, key: &Key) -> Result<(), String> {
        match (pending, &self.place) {
            (Pending::Object { file, name }, CachePlace::Objects(objects)) => {
                let put = objects.store.put(&name, &key.shown, &file, self.limit());
                put.await.map_err(|error| error.to_string())
            }
            (Pending::Host(archive), _) => blocking(move || archive.keep())
                .await
                .map_err(|error| format!("the cache cannot be kept: {error}")),
            (Pending::Object { .. }, CachePlace::Host(_)) => Err("there is no object store".to_owned()),
        }
    }
}
