//! Compressed layers: named by their own digest, kept for images that share them.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::SystemTime,
};

use rustix::fs::FlockOperation;

use super::{digits, is_locked, remove};
use crate::{
    error::{IoContext, Result},
    model::Kind,
    store::{Manifest, Store, StoredFile, objects},
};

/// Role of a layer's file.
const LAYER: &str = "layer";

impl Store {
    /// A layer that is here, by the digest of its compressed bytes. It counts as used now.
    ///
    /// # Errors
    /// If the digest is none, or the store cannot be read.
    pub fn layer(&self, digest: &str) -> Result<Option<PathBuf>> {
        let hex = digits(digest)?;
        for store in self.stores() {
            if store.read_entry(Kind::Layer, hex)?.is_some() {
                let path = objects::path(store.root(), hex);
                if path.exists() {
                    store.touch(Kind::Layer, hex);
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    /// Where the beginning of a layer is kept until it is whole.
    ///
    /// # Errors
    /// If the digest is none.
    pub fn partial_layer(&self, digest: &str) -> Result<PathBuf> {
        Ok(self.temporary().join(format!("layer-{}", digits(digest)?)))
    }

    /// Stores a layer that is whole, from [`Self::partial_layer`]. The caller has checked its digest.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn add_layer(&self, digest: &str) -> Result<PathBuf> {
        let (hex, partial) = (digits(digest)?, self.partial_layer(digest)?);
        let file = File::open(&partial).at("open", &partial)?;
        let size = file.metadata().at("look at", &partial)?.len();
        file.sync_all().at("write", &partial)?;
        let path = objects::path(self.root(), hex);
        fs::rename(&partial, &path).at("store", &path)?;
        let file = StoredFile { role: LAYER.to_owned(), digest: hex.to_owned(), size };
        let entry = Manifest {
            kind: Kind::Layer,
            name: format!("sha256:{hex}"),
            files: vec![file],
            ..Manifest::default()
        };
        self.save(hex, &entry)?;
        Ok(path)
    }

    /// Forgets a layer that turned out to be unusable.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_layer(&self, digest: &str) -> Result<()> {
        let hex = digits(digest)?;
        self.remove_entry(Kind::Layer, hex)?;
        for path in [objects::path(self.root(), hex), self.partial_layer(digest)?] {
            remove(&path)?;
        }
        Ok(())
    }

    /// Forgets a layer, also half a one, unless a process fetches or uses it.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn discard_layer(&self, digest: &str) -> Result<()> {
        let hex = digits(digest)?;
        let path = self.root().join("locks").join(hex);
        let file = objects::open_lock(&path)?;
        let fetched = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
        if fetched || is_locked(&objects::path(self.root(), hex)) {
            return Ok(());
        }
        self.remove_layer(digest)
    }

    /// Waits until no other process fetches what has this digest. `waiting` is called if one does. Blocks; the lock
    /// ends with the returned file.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn lock_digest(&self, digest: &str, waiting: impl FnOnce()) -> Result<File> {
        let path = self.root().join("locks").join(digits(digest)?);
        let mut waiting = Some(waiting);
        loop {
            let file = objects::open_lock(&path)?;
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                rustix::fs::flock(&file, FlockOperation::LockExclusive).at("lock", &path)?;
            }
            // Upkeep removes old lock files.
            file.set_modified(SystemTime::now()).at("touch", &path)?;
            let inode = file.metadata().at("look at", &path)?.ino();
            if fs::metadata(&path).is_ok_and(|now| now.ino() == inode) {
                return Ok(file);
            }
        }
    }
}
