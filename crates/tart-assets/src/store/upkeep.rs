//! Listing, checking and removing.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Manifest, Store, StoredFile, entries, objects};
use crate::{
    error::{AssetError, IoContext, Result},
    model::{Entry, Kind, Pruned, Verified},
};

/// A file that no entry names may be a moment away from being named; after this time nobody will.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Path, description and age of an entry.
pub(super) type Found = (PathBuf, Option<Manifest>, Duration);

impl Store {
    /// All entries, by kind and name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn ls(&self) -> Result<Vec<Entry>> {
        let mut list = Vec::new();
        for (_, manifest, unused_for) in self.all_entries()? {
            let Some(manifest) = manifest else { continue };
            let size = manifest.files.iter().map(|file| file.size).sum();
            let Manifest { kind, name, details, .. } = manifest;
            list.push(Entry { kind, name, size, unused_for, details });
        }
        list.sort_by(|a, b| (a.kind, &a.name, &a.details).cmp(&(b.kind, &b.name, &b.details)));
        Ok(list)
    }

    /// Reads every file and compares it with its digest. With `repair`, entries that have a damaged file are removed,
    /// so that they are built again when needed.
    ///
    /// # Errors
    /// If the store cannot be read or, to repair, written.
    pub fn verify(&self, repair: bool) -> Result<Verified> {
        self.forget_checks();
        let _lock = repair.then(|| self.lock()).transpose()?;
        let mut result = Verified::default();
        for (path, manifest, _) in self.all_entries()? {
            let damage = match &manifest {
                Some(manifest) => self.first_damage(manifest)?,
                None => Some(path.clone()),
            };
            let Some(damage) = damage else {
                result.good += 1;
                continue;
            };
            if repair {
                fs::remove_file(&path).at("remove", &path)?;
            }
            let (kind, name) = describe(&path, manifest);
            result.damaged.push((kind, name, damage));
        }
        if repair {
            for (_, _, path) in &result.damaged {
                // The same file may be of several entries.
                let _gone = fs::remove_file(path);
            }
        }
        Ok(result)
    }

    fn first_damage(&self, manifest: &Manifest) -> Result<Option<PathBuf>> {
        for file in &manifest.files {
            match self.check(&file.digest) {
                Ok(_) => {}
                Err(AssetError::Damaged { path }) => return Ok(Some(path)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Removes what was not used for that long, and files that belong to nothing. Images that were imported stay,
    /// since they cannot be built again.
    ///
    /// Machines that run keep the files they have open.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn prune(&self, unused_for: Duration) -> Result<Pruned> {
        let _lock = self.lock()?;
        let mut pruned = Pruned::default();
        let mut used = HashSet::new();
        for (path, manifest, age) in self.all_entries()? {
            let imported = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(entries::NAMED.as_bytes()));
            match manifest {
                Some(manifest) if imported || age < unused_for || self.is_used(&manifest) => {
                    used.extend(manifest.files.into_iter().map(|file| file.digest));
                }
                manifest => {
                    fs::remove_file(&path).at("remove", &path)?;
                    pruned.entries.push(describe(&path, manifest));
                }
            }
        }
        pruned.entries.sort();
        for directory in ["objects", "tmp", "packages", "locks"] {
            for (path, metadata) in files(&self.root.join(directory))? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let keep_for = if directory == "packages" { unused_for } else { ORPHAN_AGE.min(unused_for) };
                if used.contains(name) || age(&metadata) < keep_for {
                    continue;
                }
                let removed =
                    if metadata.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.at("remove", &path)?;
                pruned.files += 1;
                pruned.bytes += if metadata.is_dir() { 0 } else { metadata.len() };
            }
        }
        Ok(pruned)
    }

    /// Whether a job has the image.
    fn is_used(&self, manifest: &Manifest) -> bool {
        let disk = |file: &StoredFile| objects::path(&self.root, &file.digest);
        manifest.kind == Kind::Pulled
            && manifest.files.iter().any(|file| super::images::is_locked(&disk(file)))
    }

    /// Removes an image that was imported.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn remove_image(&self, name: &str) -> Result<()> {
        let key = entries::name_key(name)?;
        let _lock = self.lock()?;
        if self.read_entry(Kind::Image, &key)?.is_none() {
            return Err(AssetError::NoImage { name: name.to_owned(), known: self.image_names() });
        }
        self.remove_entry(Kind::Image, &key)
    }

    pub(super) fn image_names(&self) -> String {
        let mut names: Vec<_> = self.ls().unwrap_or_default();
        names.retain(|entry| entry.kind == Kind::Image && entry.name != super::DEFAULT_IMAGE);
        let names = names.into_iter().map(|entry| entry.name);
        std::iter::once(super::DEFAULT_IMAGE.to_owned()).chain(names).collect::<Vec<_>>().join(", ")
    }

    fn all_entries(&self) -> Result<Vec<Found>> {
        let kinds = Kind::ALL.into_iter().map(|kind| self.entries_of(kind));
        Ok(kinds.collect::<Result<Vec<_>>>()?.concat())
    }

    /// The entries of a kind.
    pub(super) fn entries_of(&self, kind: Kind) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for (path, metadata) in files(&self.root.join("entries").join(kind.as_str()))? {
            let key = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            all.push((path.clone(), self.read_entry(kind, key)?, age(&metadata)));
        }
        Ok(all)
    }
}

fn describe(path: &Path, manifest: Option<Manifest>) -> (Kind, String) {
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match manifest {
        Some(manifest) => (manifest.kind, manifest.name),
        None => {
            let directory = path.parent().map(name).unwrap_or_default();
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == directory).unwrap_or(Kind::Image);
            (kind, name(path))
        }
    }
}

/// A clock that was set back makes files new.
fn age(metadata: &fs::Metadata) -> Duration {
    let modified = metadata.modified().unwrap_or(SystemTime::now());
    SystemTime::now().duration_since(modified).unwrap_or_default()
}

fn files(directory: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        let entry = entry.at("list", directory)?;
        match entry.metadata() {
            Ok(metadata) => list.push((entry.path(), metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("look at", entry.path()),
        }
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(list)
}

/// Digest of inputs, for keys: length-prefixed, so that no two lists look alike.
pub(crate) fn key_of(parts: &[&str]) -> String {
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    objects::digest(&text)
}
