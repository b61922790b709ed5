//! Images from registries and archives: found by the digest of their manifest, kept as long as there is room.
//!
//! ```text
//! entries/pulled/<manifest>     an image: its disk is an object
//! entries/layer/<digest>        a compressed layer, an object named by its own digest, kept for other images
//! entries/reference/<key>       a name and a platform, and the manifest they stood for when last looked up
//! locks/<digest>                held by the process that fetches a manifest or a layer
//! tmp/layer-<digest>            the beginning of a layer
//! ```
//!
//! Whoever uses an image has a shared lock on its disk ([`Lease`]). Eviction removes a disk only with an exclusive
//! lock, which it does not wait for, so an image in use stays whatever process uses it and however that process ends.

mod eviction;
mod layers;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::fs::FlockOperation;

pub use eviction::Evicted;

use super::{Manifest, Opened, Store, entries, key_of};
use crate::{
    error::{AssetError, IoContext, Result},
    model::{ImageConfig, ImageDisk, Kind},
    program::SQFS2TAR,
    squashfs,
};

/// Role of an image's file.
const DISK: &str = "disk";

/// A disk in use: it is not evicted as long as this lives.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// An image that was fetched or imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// Digest of its manifest, `sha256:...`.
    pub manifest: String,
    /// Digest of its configuration, `sha256:...`: what Docker calls its ID.
    pub id: String,
    /// Its disk.
    pub disk: ImageDisk,
    /// Bytes of its disk.
    pub size: u64,
    /// How long it was not used.
    pub unused_for: Duration,
    /// More about it, such as its platform.
    pub details: Vec<(String, String)>,
}

impl PulledImage {
    fn new(hex: &str, found: Opened, unused_for: Duration) -> Result<Self> {
        let size = found.manifest.files.iter().map(|file| file.size).sum();
        let (id, details) = (found.manifest.name.clone(), found.manifest.details.clone());
        Ok(Self { manifest: format!("sha256:{hex}"), id, disk: found.image()?, size, unused_for, details })
    }
}

/// An image of the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: ImageDisk,
    /// Bytes of its disk.
    pub size: u64,
    /// How long it was not used.
    pub unused_for: Duration,
}

/// An image that is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewImage {
    /// Digest of its manifest, `sha256:...`.
    pub manifest: String,
    /// Digest of its configuration, `sha256:...`.
    pub id: String,
    /// What it says about running commands in it.
    pub config: ImageConfig,
    /// More about it, for people.
    pub details: Vec<(String, String)>,
}

/// A name that stood for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// The full name with its tag or digest.
    pub name: String,
    /// The platform it was asked for, such as `linux/amd64`.
    pub platform: String,
    /// Digest of the manifest, `sha256:...`.
    pub manifest: String,
}

/// The hexadecimal digits of a digest.
fn digits(digest: &str) -> Result<&str> {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(hex);
    }
    Err(AssetError::malformed(format!("the digest `{}`", digest.escape_debug()), "only SHA-256 is supported"))
}

impl Store {
    /// The image with that manifest, if it is here and whole. It counts as used now.
    ///
    /// # Errors
    /// If the digest is none, or the store cannot be read.
    pub fn pulled(&self, manifest: &str) -> Result<Option<PulledImage>> {
        let hex = digits(manifest)?;
        let found = self.find(Kind::Pulled, hex)?;
        found.map(|found| PulledImage::new(hex, found, Duration::ZERO)).transpose()
    }

    /// All images that were fetched or imported, the one that was used last first. No disk is read.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn all_pulled(&self) -> Result<Vec<PulledImage>> {
        let mut images = Vec::new();
        for (path, manifest, unused_for) in self.entries_of(Kind::Pulled)? {
            let Some(manifest) = manifest else { continue };
            let unchecked = Opened { root: self.root.clone(), manifest };
            images.extend(PulledImage::new(&key(&path), unchecked, unused_for).ok());
        }
        images.sort_by_key(|image| image.unused_for);
        Ok(images)
    }

    /// All images that [`Self::local_image`] finds by a name, by name; of several versions, the one that was used last
    /// first. No disk is read, and none of them counts as used.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn all_local(&self) -> Result<Vec<LocalImage>> {
        let mut images = Vec::new();
        for (path, manifest, unused_for) in self.entries_of(Kind::Image)? {
            let Some(manifest) = manifest else { continue };
            if !key(&path).starts_with(entries::NAMED) && manifest.name != super::DEFAULT_IMAGE {
                continue;
            }
            let (name, size) = (manifest.name.clone(), manifest.files.iter().map(|file| file.size).sum());
            let unchecked = Opened { root: self.root.clone(), manifest };
            let local = unchecked.image().map(|disk| LocalImage { name, disk, size, unused_for });
            images.extend(local.ok());
        }
        images.sort_by(|a, b| (&a.name, a.unused_for).cmp(&(&b.name, b.unused_for)));
        Ok(images)
    }

    /// Makes the disk of an image from the tar stream that `write` writes, and stores it. If it fails, nothing is left.
    ///
    /// # Errors
    /// What `write` says, or why there is no disk.
    pub fn add_pulled<E: From<AssetError>>(
        &self,
        image: NewImage,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<PulledImage, E> {
        let hex = digits(&image.manifest)?.to_owned();
        let disk = squashfs::write(self, DISK, write)?;
        let manifest = Manifest {
            kind: Kind::Pulled,
            name: image.id.clone(),
            files: vec![disk],
            details: image.details,
            image: image.config,
        };
        self.save(&hex, &manifest)?;
        let stored = self.pulled(&hex)?;
        Ok(stored.ok_or_else(|| AssetError::malformed("the stored image", "it is gone at once"))?)
    }

    /// What a name stood for when it was last looked up.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn reference(&self, name: &str, platform: &str) -> Result<Option<String>> {
        let key = key_of(&[name, platform]);
        for root in self.stores() {
            if let Some(manifest) = root.read_entry(Kind::Reference, &key)? {
                root.touch(Kind::Reference, &key);
                return Ok(manifest.detail("manifest").map(str::to_owned));
            }
        }
        Ok(None)
    }

    /// Notes what a name stands for.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn set_reference(&self, name: &ImageName) -> Result<()> {
        digits(&name.manifest)?;
        let entry = Manifest {
            kind: Kind::Reference,
            name: name.name.clone(),
            details: vec![
                ("platform".to_owned(), name.platform.clone()),
                ("manifest".to_owned(), name.manifest.clone()),
            ],
            ..Manifest::default()
        };
        self.save(&key_of(&[&name.name, &name.platform]), &entry)
    }

    /// All names.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn references(&self) -> Result<Vec<ImageName>> {
        let mut names = Vec::new();
        for (_, manifest, _) in self.entries_of(Kind::Reference)? {
            let Some(entry) = manifest else { continue };
            let detail = |name: &str| entry.detail(name).unwrap_or_default().to_owned();
            names.push(ImageName {
                platform: detail("platform"),
                manifest: detail("manifest"),
                name: entry.name.clone(),
            });
        }
        names.sort_by(|a, b| (&a.name, &a.platform).cmp(&(&b.name, &b.platform)));
        Ok(names)
    }

    /// Keeps a disk from being evicted. Nothing if it has just been. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be opened.
    pub fn lease(&self, disk: &ImageDisk) -> Result<Option<Lease>> {
        self.lease_file(&disk.path)
    }

    /// The same for a layer's file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn lease_file(&self, path: &Path) -> Result<Option<Lease>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("open", path),
        };
        // Who has it exclusively is about to remove it, or only looks whether it is in use: that takes no time.
        rustix::fs::flock(&file, FlockOperation::LockShared).at("lock", path)?;
        let inode = file.metadata().at("look at", path)?.ino();
        let same = fs::metadata(path).is_ok_and(|now| now.ino() == inode);
        Ok(same.then_some(Lease { _file: file }))
    }

    /// An image that the administrator put here under exactly that name, or [`super::DEFAULT_IMAGE`].
    ///
    /// # Errors
    /// If it is damaged, or the default image cannot be built.
    pub fn local_image(&self, name: &str) -> Result<Option<ImageDisk>> {
        if name == super::DEFAULT_IMAGE || name.is_empty() {
            return self.image(name).map(Some);
        }
        let Ok(key) = entries::name_key(name) else { return Ok(None) };
        self.find(Kind::Image, &key)?.map(Opened::image).transpose()
    }

    /// Makes an image of the administrator from the tar stream that `write` writes. An image of that name is replaced.
    ///
    /// # Errors
    /// If the name is not one, what `write` says, or why there is no disk.
    pub fn add_named<E: From<AssetError>>(
        &self,
        name: &str,
        image: NewImage,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<ImageDisk, E> {
        let key = entries::name_key(name)?;
        let disk = squashfs::write(self, DISK, write)?;
        let manifest = Manifest {
            kind: Kind::Image,
            name: name.to_owned(),
            files: vec![disk],
            details: image.details,
            image: image.config,
        };
        self.save(&key, &manifest)?;
        Ok(self.open_entry(manifest)?.image()?)
    }

    /// Writes the files of a disk as a tar archive.
    ///
    /// # Errors
    /// If the disk cannot be read, or `out` takes no more.
    pub fn unpack(&self, disk: &ImageDisk, out: &mut dyn Write) -> Result<()> {
        let mut command = SQFS2TAR.command([disk.path.as_os_str()]);
        command.stdout(Stdio::piped());
        let mut running = SQFS2TAR.start(self, command)?;
        let Some(mut tar) = running.child.stdout.take() else {
            return Err(AssetError::malformed("sqfs2tar", "it has no standard output"));
        };
        io::copy(&mut tar, out).at("write", "the archive")?;
        running.finish()
    }

    /// Forgets a name; its image stays. False if there is none.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_reference(&self, name: &str, platform: &str) -> Result<bool> {
        let key = key_of(&[name, platform]);
        let there = self.read_entry(Kind::Reference, &key)?.is_some();
        self.remove_entry(Kind::Reference, &key)?;
        Ok(there)
    }

    /// Whether a disk is in use, by any process.
    #[must_use]
    pub fn is_leased(&self, disk: &ImageDisk) -> bool {
        is_locked(&disk.path)
    }

    /// This store, then the machine's.
    fn stores(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.shared.as_deref())
    }
}

/// Whether anybody has a lease on a file.
pub(super) fn is_locked(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// The key of an entry: its file's name.
fn key(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
