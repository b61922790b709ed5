//! Which files go into an archive.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::ArchiveError;
use crate::error::at;
use crate::glob::{Pattern, is_pattern};

/// What bounds the memory that a selection takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many paths.
    pub paths: usize,
    /// How many bytes all of them have together.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { paths: 1_000_000, text: 128 << 20 }
    }
}

/// Files and directories of a job's directory, sorted and each of them once.
#[derive(Debug)]
pub struct Selection {
    root: PathBuf,
    exclude: Vec<Pattern>,
    limits: Limits,
    text: usize,
    excluded: usize,
    paths: BTreeSet<Vec<u8>>,
}

impl Selection {
    /// An empty selection in `root`, which is absolute. What matches `exclude` never gets in.
    pub fn new(root: impl Into<PathBuf>, exclude: Vec<Pattern>, limits: Limits) -> Self {
        Self { root: root.into(), exclude, limits, text: 0, excluded: 0, paths: BTreeSet::new() }
    }

    /// The directory that paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The paths, relative to the root, sorted by bytes.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.paths.iter().map(Vec::as_slice)
    }

    /// How many paths matched and were excluded.
    pub fn excluded(&self) -> usize {
        self.excluded
    }

    /// The path relative to the root that a path of a job means; `None` if it is outside of the root. Nothing is
    /// looked up: `..` takes the name before it away.
    pub fn relative(&self, path: &str) -> Option<String> {
        let root = self.root.to_str()?.trim_end_matches('/');
        let inner = match path.strip_prefix('/') {
            None => path,
            Some(_) => match path.strip_prefix(root)? {
                "" => "",
                rest => rest.strip_prefix('/')?,
            },
        };
        let mut names = Vec::new();
        for name in inner.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()?),
                _ => names.push(name),
            }
        }
        Some(names.join("/"))
    }

    /// Adds what a relative path or pattern means: each match, and all that is in it. Links are taken as links.
    /// Returns how many files and directories that were, excluded ones not counted.
    ///
    /// A directory that cannot be read, or is gone meanwhile, is an error only if the path names it itself.
    pub fn add(&mut self, path: &str) -> Result<usize, ArchiveError> {
        if !is_pattern(path) {
            return self.add_tree(path.as_bytes().to_vec());
        }
        let pattern = Pattern::new(path)?;
        // The names before the first pattern need no search.
        let plain: Vec<&str> =
            path.split('/').take_while(|name| !is_pattern(name) && !name.contains('\\')).collect();
        let mut found = 0;
        let mut pending = vec![plain.join("/").into_bytes()];
        while let Some(next) = pending.pop() {
            if !next.is_empty() && pattern.matches(&next) {
                found += self.add_tree(next)?;
            } else {
                self.children(&next, &mut pending)?;
            }
        }
        Ok(found)
    }

    /// Adds single files, such as the ones that git does not track. Returns how many there were.
    pub fn add_files(&mut self, paths: impl IntoIterator<Item = Vec<u8>>) -> Result<usize, ArchiveError> {
        let mut found = 0;
        for path in paths {
            found += usize::from(self.insert(path)?);
        }
        Ok(found)
    }

    fn add_tree(&mut self, path: Vec<u8>) -> Result<usize, ArchiveError> {
        let mut found = 0;
        let mut pending = vec![path];
        while let Some(next) = pending.pop() {
            match fs::symlink_metadata(self.absolute(&next)) {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(at(&next)(error)),
                Ok(_) => {}
            }
            self.children(&next, &mut pending)?;
            if !next.is_empty() {
                found += usize::from(self.insert(next)?);
            }
        }
        Ok(found)
    }

    fn insert(&mut self, path: Vec<u8>) -> Result<bool, ArchiveError> {
        if self.exclude.iter().any(|pattern| pattern.matches(&path)) {
            self.excluded += 1;
            return Ok(false);
        }
        let length = path.len();
        if self.paths.insert(path) {
            self.text += length;
            self.check(self.paths.len(), self.text)?;
        }
        Ok(true)
    }

    fn check(&self, paths: usize, text: usize) -> Result<(), ArchiveError> {
        let limit = if paths > self.limits.paths {
            format!("{} paths", self.limits.paths)
        } else if text > self.limits.text {
            format!("{} bytes of paths", self.limits.text)
        } else {
            return Ok(());
        };
        Err(ArchiveError::TooMany { limit })
    }

    /// Adds a directory's content to `pending`; nothing if it is no directory.
    fn children(&self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<(), ArchiveError> {
        let absolute = self.absolute(path);
        if !fs::symlink_metadata(&absolute).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(());
        }
        let entries = match fs::read_dir(&absolute) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(at(path))?,
        };
        let mut text: usize = 0;
        for entry in entries {
            let name = entry.map_err(at(path))?.file_name();
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(name.as_bytes());
            text += child.len();
            pending.push(child);
            self.check(pending.len(), text)?;
        }
        Ok(())
    }

    /// Where a relative path is.
    pub(crate) fn absolute(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}
