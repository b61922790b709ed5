//! Removing images and layers: those that are in use stay.

use std::{collections::HashMap, fs::File, io, time::Duration};

use rustix::fs::FlockOperation;

use super::{PulledImage, digits, is_locked, key, remove};
use crate::{
    error::{AssetError, IoContext, Result},
    model::Kind,
    store::{Store, objects, upkeep::Found},
};

/// What an eviction removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Manifests of images.
    pub images: Vec<String>,
    /// How many layers.
    pub layers: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes of images and layers that are left.
    pub left: u64,
}

impl Evicted {
    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.left = self.left.saturating_sub(bytes);
    }
}

impl Store {
    /// Removes layers, then images, those first that were not used for longest, until all of them take no more than
    /// `quota` bytes together. Images in use and those of `keep` (manifest digests) stay.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn evict(&self, quota: u64, keep: &[String]) -> Result<Evicted> {
        let _lock = self.images_lock()?;
        let mut evicted = Evicted { left: self.pulled_bytes()?, ..Evicted::default() };
        let mut layers = self.entries_of(Kind::Layer)?;
        layers.sort_by_key(|(_, _, age)| std::cmp::Reverse(*age));
        for layer in layers {
            if evicted.left <= quota {
                return Ok(evicted);
            }
            self.evict_layer(layer, &mut evicted)?;
        }
        for image in self.all_pulled()?.into_iter().rev() {
            if evicted.left <= quota {
                break;
            }
            if !keep.contains(&image.manifest) {
                self.evict_image(image, &mut evicted)?;
            }
        }
        Ok(evicted)
    }

    /// Removes layers and images that were not used for that long and are not in use now.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn prune_pulled(&self, unused_for: Duration) -> Result<Evicted> {
        let _lock = self.images_lock()?;
        let mut evicted = Evicted::default();
        for layer in self.entries_of(Kind::Layer)?.into_iter().filter(|(_, _, age)| *age >= unused_for) {
            self.evict_layer(layer, &mut evicted)?;
        }
        for image in self.all_pulled()?.into_iter().filter(|image| image.unused_for >= unused_for) {
            self.evict_image(image, &mut evicted)?;
        }
        evicted.left = self.pulled_bytes()?;
        Ok(evicted)
    }

    fn evict_layer(&self, (path, manifest, _): Found, evicted: &mut Evicted) -> Result<()> {
        let hex = key(&path);
        if !is_locked(&objects::path(self.root(), &hex)) {
            self.remove_layer(&hex)?;
            evicted.layers += 1;
            let files = manifest.map(|manifest| manifest.files).unwrap_or_default();
            evicted.count(files.iter().map(|file| file.size).sum());
        }
        Ok(())
    }

    fn evict_image(&self, image: PulledImage, evicted: &mut Evicted) -> Result<()> {
        if self.remove_unless_used(&image)? {
            evicted.count(image.size);
            evicted.images.push(image.manifest);
        }
        Ok(())
    }

    /// Removes an image with its names. False if it is in use.
    ///
    /// # Errors
    /// If it is not here or cannot be removed.
    pub fn remove_pulled(&self, manifest: &str) -> Result<bool> {
        let _lock = self.images_lock()?;
        let wanted = format!("sha256:{}", digits(manifest)?);
        match self.all_pulled()?.into_iter().find(|image| image.manifest == wanted) {
            Some(image) => self.remove_unless_used(&image),
            None => Err(AssetError::NoImage { name: wanted, known: self.image_names() }),
        }
    }

    fn remove_unless_used(&self, image: &PulledImage) -> Result<bool> {
        let file = match File::open(&image.disk.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("open", &image.disk.path),
        };
        if let Some(file) = &file
            && rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            return Ok(false);
        }
        for name in self.references()?.into_iter().filter(|name| name.manifest == image.manifest) {
            self.remove_reference(&name.name, &name.platform)?;
        }
        self.remove_entry(Kind::Pulled, digits(&image.manifest)?)?;
        // Two images may have the same files.
        let mut others = self.entries_of(Kind::Pulled)?;
        others.extend(self.entries_of(Kind::Image)?);
        let files =
            others.into_iter().filter_map(|(_, manifest, _)| manifest).flat_map(|manifest| manifest.files);
        let shared = files.into_iter().any(|file| file.digest == image.disk.digest);
        if !shared {
            remove(&image.disk.path)?;
        }
        drop(file);
        Ok(true)
    }

    /// Bytes of all images and layers; what they share counts once.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn pulled_bytes(&self) -> Result<u64> {
        let mut sizes = HashMap::new();
        for kind in [Kind::Pulled, Kind::Layer] {
            for (_, manifest, _) in self.entries_of(kind)? {
                for file in manifest.map(|manifest| manifest.files).unwrap_or_default() {
                    sizes.insert(file.digest, file.size);
                }
            }
        }
        Ok(sizes.values().sum())
    }

    /// Nobody else evicts meanwhile. Not the store's own lock: builds hold that for minutes.
    fn images_lock(&self) -> Result<File> {
        let path = self.root().join("images.lock");
        let file = objects::open_lock(&path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).at("lock", &path)?;
        Ok(file)
    }
}
