//! Descriptions of what the files are.

use std::{
    fs::{self, File, FileTimes},
    io::{self, Write},
    path::PathBuf,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::{
    error::{AssetError, IoContext, Result},
    model::{ImageConfig, Kind},
};

/// Largest description that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Keys of entries that a person named begin so; all others are digests of inputs.
pub(super) const NAMED: &str = "named-";

/// An entry of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// In an order that means something, as that of modules.
    pub(crate) files: Vec<StoredFile>,
    pub(crate) details: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) image: ImageConfig,
}

/// A file of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    /// What it is for within the entry.
    pub(crate) role: String,
    /// SHA-256 in hexadecimal digits.
    pub(crate) digest: String,
    /// Bytes.
    pub(crate) size: u64,
}

impl Manifest {
    pub(crate) fn detail(&self, name: &str) -> Option<&str> {
        self.details.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// Files come from disk: a digest that is none must not lead out of the store.
    fn is_sound(&self, kind: Kind) -> bool {
        let is_digest =
            |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        self.kind == kind && self.files.iter().all(|file| is_digest(&file.digest))
    }
}

/// The key of an entry that a person named. Slashes, as in `registry/name:tag`, cannot be in file names.
pub(crate) fn name_key(name: &str) -> Result<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    let first_ok = !name.starts_with(['.', '-', '/']);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) || !first_ok {
        return Err(AssetError::ImageName { name: name.to_owned() });
    }
    Ok(format!("{NAMED}{}", name.replace('/', "%")))
}

impl Store {
    pub(super) fn entry_path(&self, kind: Kind, key: &str) -> PathBuf {
        self.root.join("entries").join(kind.as_str()).join(key)
    }

    /// The description, if there is one that makes sense. What does not, as of another version, is built again.
    pub(crate) fn read_entry(&self, kind: Kind, key: &str) -> Result<Option<Manifest>> {
        let path = self.entry_path(kind, key);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_SIZE => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("look at", path),
        }
        let text = fs::read(&path).at("read", &path)?;
        let manifest = serde_json::from_slice::<Manifest>(&text).ok();
        Ok(manifest.filter(|manifest| manifest.is_sound(kind)))
    }

    /// Writes a description in one step.
    pub(crate) fn save(&self, key: &str, manifest: &Manifest) -> Result<()> {
        let path = self.entry_path(manifest.kind, key);
        let text = serde_json::to_vec_pretty(manifest).map_err(io::Error::from).at("describe", &path)?;
        self.replace(&path, &text)
    }

    /// Replaces a small file in one step. Other users may read it.
    pub(crate) fn replace(&self, path: &std::path::Path, text: &[u8]) -> Result<()> {
        let mut draft = self.draft()?;
        draft.write_all(text).at("write", draft.path())?;
        let file = File::open(draft.path()).at("open", draft.path())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.set_permissions(mode).at("protect", draft.path())?;
        file.sync_all().at("write", draft.path())?;
        fs::rename(draft.path(), path).at("write", path)
    }

    /// Notes that an entry is used, for [`Store::prune`].
    pub(super) fn touch(&self, kind: Kind, key: &str) {
        let path = self.entry_path(kind, key);
        let times = FileTimes::new().set_modified(SystemTime::now());
        if let Err(error) = File::open(&path).and_then(|file| file.set_times(times)) {
            tracing::debug!(path = %path.display(), %error, "cannot note the use of an asset");
        }
    }

    pub(super) fn remove_entry(&self, kind: Kind, key: &str) -> Result<()> {
        let path = self.entry_path(kind, key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
            _ => Ok(()),
        }
    }
}
