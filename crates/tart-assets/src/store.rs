//! The directory of assets.
//!
//! ```text
//! objects/<sha256>        files, read-only, each named after its content
//! entries/<kind>/<key>    what they are: small JSON files; the time of change is that of the last use
//! packages/<file>         downloaded packages
//! tmp/                    unfinished files
//! locks/                  held while an image is fetched
//! lock                    held while anything is built or removed
//! ```

mod entries;
mod images;
mod objects;
mod upkeep;

use std::{
    collections::HashMap,
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub(crate) use entries::{Manifest, StoredFile};
pub use images::{Evicted, ImageName, Lease, LocalImage, NewImage, PulledImage};
pub(crate) use objects::{digest, hash};
pub(crate) use upkeep::key_of;

use crate::{
    agent,
    error::{AssetError, IoContext, Result},
    initramfs, kernel,
    model::{BootAssets, BootRequest, ImageDisk, Kind},
    progress::{Progress, Silent},
    rootfs::{self, Recipe},
    squashfs,
};
use objects::Stamp;

/// Name of the image that jobs without one run in.
pub const DEFAULT_IMAGE: &str = "default";

/// Assets below one directory. Clones share what they have verified.
#[derive(Clone)]
pub struct Store {
    root: PathBuf,
    progress: Arc<dyn Progress>,
    /// Files whose content was checked by this process, as they were then.
    checked: Arc<Mutex<HashMap<PathBuf, Stamp>>>,
    /// Another store to take finished entries from: the machine's, for a user's own.
    shared: Option<Box<Self>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.root)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// The directory of assets if nothing else is configured: `TART_ASSETS_DIR`, else `/var/lib/tart/assets` for root,
/// else `tart/assets` below the user's data directory.
#[must_use]
pub fn default_root() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = from("TART_ASSETS_DIR") {
        return root;
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(SYSTEM_ROOT);
    }
    let data = from("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let home = || from("HOME").map(|home| home.join(".local/share"));
    data.or_else(home).map_or_else(|| PathBuf::from(SYSTEM_ROOT), |data| data.join("tart/assets"))
}

/// Root's store, which any user may read.
const SYSTEM_ROOT: &str = "/var/lib/tart/assets";

impl Store {
    /// The store below a directory, which is made if missing. An ordinary user's store takes finished assets from
    /// the machine's, if there is one.
    ///
    /// # Errors
    /// If the directory cannot be made or written.
    pub fn open(root: &Path) -> Result<Self> {
        for directory in ["", "objects", "entries", "packages", "tmp", "locks"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).at("make the directory", &path)?;
        }
        for kind in Kind::ALL {
            let path = root.join("entries").join(kind.as_str());
            fs::create_dir_all(&path).at("make the directory", &path)?;
        }
        let root = fs::canonicalize(root).at("find", root)?;
        let system = Path::new(SYSTEM_ROOT);
        let shares =
            !rustix::process::geteuid().is_root() && root != system && system.join("entries").is_dir();
        let shared = shares.then(|| Box::new(Self::at(system.to_owned())));
        Ok(Self { shared, ..Self::at(root) })
    }

    fn at(root: PathBuf) -> Self {
        Self { root, progress: Arc::new(Silent), checked: Arc::default(), shared: None }
    }

    /// The same store with someone who hears of long steps.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its own directory, then the machine's.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.root()).chain(self.shared.as_deref().map(Self::root))
    }

    pub(crate) fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    /// What a machine boots from: built if missing, else as it is, verified.
    ///
    /// # Errors
    /// If an input is missing or unusable, a program that builds fails, or the store cannot be written.
    pub fn boot_assets(&self, request: &BootRequest) -> Result<BootAssets> {
        let agent = agent::load(&request.agent)?;
        let kernel = self.entry(Kind::Kernel, &kernel::key(self, &request.kernel)?, |store, key| {
            kernel::build(store, key, &request.kernel)
        })?;
        let initrd = self.entry(Kind::Initrd, &initramfs::key(&kernel.manifest, &agent), |store, key| {
            initramfs::build(store, key, &kernel, &agent)
        })?;
        let helper = self.recipe(&Recipe::helper())?;
        let digests = [
            kernel.digest("kernel")?,
            kernel.digest("vmlinux")?,
            initrd.digest("initrd")?,
            helper.digest("disk")?,
        ];
        Ok(BootAssets {
            kernel: kernel.path("kernel")?,
            vmlinux: kernel.path("vmlinux")?,
            initrd: initrd.path("initrd")?,
            helper: helper.path("disk")?,
            release: kernel.manifest.detail("release").unwrap_or_default().to_owned(),
            digest: objects::digest(digests.join("\n").as_bytes()),
        })
    }

    /// An image of the store by its name, or the root file system in a tarball or directory, which is stored first.
    /// [`DEFAULT_IMAGE`] is built if missing.
    ///
    /// # Errors
    /// If there is no such image, or it cannot be made.
    pub fn image(&self, name_or_path: &str) -> Result<ImageDisk> {
        if name_or_path == DEFAULT_IMAGE || name_or_path.is_empty() {
            return self.recipe(&Recipe::default_image())?.image();
        }
        if name_or_path.starts_with(['/', '.']) && Path::new(name_or_path).exists() {
            return self.image_at(Path::new(name_or_path));
        }
        match self.find(Kind::Image, &entries::name_key(name_or_path)?)? {
            Some(found) => found.image(),
            None => Err(AssetError::NoImage { name: name_or_path.to_owned(), known: self.image_names() }),
        }
    }

    /// The root file system at a path. A tarball that has not changed since is not read again.
    fn image_at(&self, path: &Path) -> Result<ImageDisk> {
        let path = fs::canonicalize(path).at("find", path)?;
        let metadata = fs::metadata(&path).at("look at", &path)?;
        let name = path.display().to_string();
        let build = |store: &Self, _: &str| {
            let disk = rootfs::import(store, &path)?;
            Ok(Manifest { kind: Kind::Image, name: name.clone(), files: vec![disk], ..Manifest::default() })
        };
        if metadata.is_dir() {
            let _lock = self.lock()?;
            let manifest = build(self, "")?;
            self.save(&key_of(&["directory", &name]), &manifest)?;
            return self.open_entry(manifest)?.image();
        }
        let state = [
            metadata.ino(),
            metadata.size(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
        ];
        self.entry(Kind::Image, &key_of(&["tarball", &name, &format!("{state:?}")]), build)?.image()
    }

    /// Stores a root file system as an image: a tarball, compressed or not, or a directory. An image of that name is
    /// replaced. Nothing is unpacked on the way.
    ///
    /// # Errors
    /// If the name is not one, or the source cannot be read or is no root file system.
    pub fn import_rootfs(&self, name: &str, source: &Path) -> Result<ImageDisk> {
        let key = entries::name_key(name)?;
        let _lock = self.lock()?;
        let disk = rootfs::import(self, source)?;
        let details = vec![("source".to_owned(), source.display().to_string())];
        let manifest = Manifest {
            kind: Kind::Image,
            name: name.to_owned(),
            files: vec![disk],
            details,
            ..Manifest::default()
        };
        self.save(&key, &manifest)?;
        self.open_entry(manifest)?.image()
    }

    /// Builds everything that jobs without special wishes need, and says which kernel package is used. `update` looks
    /// for newer packages first.
    ///
    /// # Errors
    /// As [`Self::boot_assets`] and [`Self::image`].
    pub fn build(&self, request: &BootRequest, update: bool) -> Result<BootAssets> {
        if update {
            let _lock = self.lock()?;
            kernel::forget_choice(self)?;
            for recipe in [Recipe::helper(), Recipe::default_image()] {
                self.remove_entry(recipe.kind, &recipe.key())?;
            }
        }
        let assets = self.boot_assets(request)?;
        self.image(DEFAULT_IMAGE)?;
        Ok(assets)
    }

    fn recipe(&self, recipe: &Recipe) -> Result<Opened> {
        self.entry(recipe.kind, &recipe.key(), |store, _| rootfs::build(store, recipe))
    }

    /// The entry, built under the store's lock if missing or damaged.
    fn entry(
        &self,
        kind: Kind,
        key: &str,
        build: impl FnOnce(&Self, &str) -> Result<Manifest>,
    ) -> Result<Opened> {
        if let Some(found) = self.find(kind, key)? {
            return Ok(found);
        }
        let _lock = self.lock()?;
        // Another process may have built it while this one waited.
        if let Some(found) = self.find(kind, key)? {
            return Ok(found);
        }
        let manifest = build(self, key)?;
        self.save(key, &manifest)?;
        self.open_entry(manifest)
    }

    /// The entry if it is there and whole, here or in the machine's store.
    fn find(&self, kind: Kind, key: &str) -> Result<Option<Opened>> {
        if let Some(manifest) = self.read_entry(kind, key)? {
            match self.open_entry(manifest) {
                Ok(found) => {
                    self.touch(kind, key);
                    return Ok(Some(found));
                }
                // Nobody can build it again.
                Err(AssetError::Damaged { path }) if key.starts_with(entries::NAMED) => {
                    return Err(AssetError::Damaged { path });
                }
                Err(AssetError::Damaged { path }) => {
                    tracing::warn!(path = %path.display(), "a stored file is missing or damaged");
                }
                Err(error) => return Err(error),
            }
        }
        match &self.shared {
            Some(shared) => Ok(shared.find(kind, key).unwrap_or_else(|error| {
                tracing::debug!(%error, "the machine's store cannot be used");
                None
            })),
            None => Ok(None),
        }
    }

    /// Checks every file of an entry.
    fn open_entry(&self, manifest: Manifest) -> Result<Opened> {
        for file in &manifest.files {
            self.check(&file.digest)?;
        }
        Ok(Opened { root: self.root.clone(), manifest })
    }
}

/// A verified entry.
#[derive(Debug)]
pub(crate) struct Opened {
    root: PathBuf,
    pub(crate) manifest: Manifest,
}

impl Opened {
    fn file(&self, role: &str) -> Result<&StoredFile> {
        self.manifest.files.iter().find(|file| file.role == role).ok_or_else(|| {
            AssetError::malformed(
                format!("the stored {} `{}`", self.manifest.kind.as_str(), self.manifest.name),
                format!("it has no {role}"),
            )
        })
    }

    fn digest(&self, role: &str) -> Result<&str> {
        Ok(&self.file(role)?.digest)
    }

    fn path(&self, role: &str) -> Result<PathBuf> {
        Ok(self.path_of(self.file(role)?))
    }

    pub(crate) fn path_of(&self, file: &StoredFile) -> PathBuf {
        objects::path(&self.root, &file.digest)
    }

    fn image(self) -> Result<ImageDisk> {
        let (path, digest) = (self.path("disk")?, self.digest("disk")?.to_owned());
        Ok(ImageDisk { path, fstype: squashfs::FSTYPE, digest, config: self.manifest.image })
    }
}

#[cfg(test)]
mod tests;
