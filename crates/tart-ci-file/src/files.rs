//! Access to the repository's files, and nothing else.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use crate::yaml::MAX_FILE_SIZE;

/// The files of a repository. Paths are relative to its root, with `/`.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    ///
    /// Says why the file cannot be read, to complete "cannot read ...: ".
    fn read(&self, path: &str) -> Result<String, String>;

    /// The paths of all files with the ending `.yml` or `.yaml`.
    ///
    /// # Errors
    ///
    /// Says why the files cannot be listed.
    fn list(&self) -> Result<Vec<String>, String>;
}

/// The most entries that a listing looks at.
const MAX_ENTRIES: usize = 200_000;

/// Files below a directory. Nothing outside of it is read, whatever links lead there.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// Takes the root of a repository.
    ///
    /// # Errors
    ///
    /// If there is no such directory.
    pub fn new(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.canonicalize()? })
    }

    fn resolve(&self, path: &str) -> Result<PathBuf, String> {
        let relative = Path::new(path);
        if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err("the path leaves the repository".into());
        }
        let resolved = self.root.join(relative).canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        })?;
        if !resolved.starts_with(&self.root) {
            return Err("the path leaves the repository by a link".into());
        }
        Ok(resolved)
    }
}

impl Files for Repository {
    fn read(&self, path: &str) -> Result<String, String> {
        let resolved = self.resolve(path)?;
        // A named pipe would block.
        if !resolved.metadata().map_err(|error| error.to_string())?.is_file() {
            return Err("it is not a regular file".into());
        }
        let mut text = String::new();
        let file = File::open(resolved).map_err(|error| error.to_string())?;
        // One byte more than allowed, so that the parser sees that it is too much.
        file.take(MAX_FILE_SIZE as u64 + 1).read_to_string(&mut text).map_err(|error| {
            match error.kind() {
                io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
                _ => error.to_string(),
            }
        })?;
        Ok(text)
    }

    fn list(&self) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let mut directories = vec![self.root.clone()];
        let mut seen = 0_usize;
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).map_err(|error| error.to_string())? {
                let entry = entry.map_err(|error| error.to_string())?;
                seen += 1;
                if seen > MAX_ENTRIES {
                    return Err(format!("the repository has more than {MAX_ENTRIES} files"));
                }
                let kind = entry.file_type().map_err(|error| error.to_string())?;
                let path = entry.path();
                let is_yaml = path.extension().is_some_and(|end| end == "yml" || end == "yaml");
                if kind.is_dir() && entry.file_name() != ".git" {
                    directories.push(path);
                } else if !kind.is_dir()
                    && is_yaml
                    && let Ok(relative) = path.strip_prefix(&self.root)
                    && let Some(relative) = relative.to_str()
                {
                    found.push(relative.to_owned());
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Whether a path matches a pattern in which `*` stands for anything without `/` and `**` for anything.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
    // reachable[j]: the pattern so far matches the first j characters.
    let mut reachable = vec![false; path.len() + 1];
    if let Some(first) = reachable.first_mut() {
        *first = true;
    }
    let mut rest = pattern.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        let deep = *first == '*' && tail.first() == Some(&'*');
        let mut next = vec![false; path.len() + 1];
        let mut open = false;
        for (index, before) in reachable.iter().enumerate() {
            if *first == '*' {
                open = open || *before;
                if let (true, Some(slot)) = (open, next.get_mut(index)) {
                    *slot = true;
                }
                open = open && (deep || path.get(index) != Some(&'/'));
            } else if *before
                && path.get(index) == Some(first)
                && let Some(slot) = next.get_mut(index + 1)
            {
                *slot = true;
            }
        }
        reachable = next;
        rest = if deep { tail.get(1..).unwrap_or_default() } else { tail };
    }
    reachable.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_gitlab() {
        for (pattern, path, expected) in [
            ("ci/*.yml", "ci/a.yml", true),
            ("ci/*.yml", "ci/sub/a.yml", false),
            ("ci/**.yml", "ci/sub/a.yml", true),
            ("ci/**.yml", "ci/a.yml", true),
            ("ci/**/*.yml", "ci/sub/deep/a.yml", true),
            ("ci/**/*.yml", "ci/a.yml", false),
            ("**.yml", "a.yml", true),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn nothing_outside_of_the_repository_is_read() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.yml"), "a: 1").unwrap();
        let root = outside.path().join("repository");
        fs::create_dir_all(root.join("ci")).unwrap();
        fs::write(root.join("ci/a.yml"), "a: 1").unwrap();
        std::os::unix::fs::symlink("../secret.yml", root.join("link.yml")).unwrap();
        std::os::unix::fs::symlink("ci/a.yml", root.join("inner.yml")).unwrap();
        let files = Repository::new(&root).unwrap();
        assert_eq!(files.read("ci/a.yml").as_deref(), Ok("a: 1"));
        assert_eq!(files.read("inner.yml").as_deref(), Ok("a: 1"));
        assert_eq!(files.read("../secret.yml"), Err("the path leaves the repository".into()));
        assert_eq!(files.read("/etc/passwd"), Err("the path leaves the repository".into()));
        assert_eq!(files.read("link.yml"), Err("the path leaves the repository by a link".into()));
        assert_eq!(files.read("none.yml"), Err("there is no such file".into()));
        assert_eq!(files.read("ci"), Err("it is not a regular file".into()));
        assert_eq!(files.list().unwrap(), ["ci/a.yml", "inner.yml", "link.yml"]);
    }
}
