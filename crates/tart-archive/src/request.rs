//! What the guest's helper is asked to archive, in words and lines of the official runner.
//!
//! A request is a list of `key=value` that end with a null byte each, so that paths of all kinds fit in and nothing of
//! it is an argument that others see: `root`, `path` and `exclude` (any number), `untracked` (paths that git does not
//! track, found by the caller), `format`, `level`, `purpose`, `known`,
//! `statement-name` and `statement`.

use std::io::Write;

use crate::{
    ArchiveError, Format, Level, Limits, Method, Packing, Pattern, Selection, Statement, write_gzip,
    write_raw, write_tar_zstd, write_zip,
};

/// What an archive is for: what is said if nothing goes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Artifacts.
    #[default]
    Artifacts,
    /// A cache.
    Cache,
}

/// What to archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The directory of the project, absolute.
    pub root: String,
    /// Files, directories and patterns, after expansion of variables.
    pub paths: Vec<String>,
    /// Patterns of what stays out.
    pub exclude: Vec<String>,
    /// Whether files that git does not track go in.
    pub untracked: bool,
    /// The form.
    pub format: Format,
    /// How hard to compress.
    pub level: Level,
    /// What it is for.
    pub purpose: Purpose,
    /// The fingerprint of what need not be archived again; empty if there is none.
    pub known: String,
    /// What a zip says of its files; nothing if it has no name.
    pub statement: Statement,
}

impl Request {
    /// Writes the request as the helper reads it.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut put = |key: &str, value: &str| {
            text.extend_from_slice(format!("{key}={}\0", value.replace('\0', "")).as_bytes());
        };
        put("root", &self.root);
        self.paths.iter().for_each(|path| put("path", path));
        self.exclude.iter().for_each(|pattern| put("exclude", pattern));
        put("untracked", if self.untracked { "true" } else { "false" });
        put("format", self.format.name());
        put("level", self.level.name());
        put("purpose", if self.purpose == Purpose::Cache { "cache" } else { "artifacts" });
        put("known", &self.known);
        put("statement-name", &self.statement.name);
        put("statement", &self.statement.text);
        text
    }

    /// Reads a request. Errors say what is not known.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "the request is no text")?;
        let mut request = Self::default();
        for field in text.split_terminator('\0') {
            let (key, value) = field.split_once('=').ok_or("a field without a value")?;
            match key {
                "root" => value.clone_into(&mut request.root),
                "path" => request.paths.push(value.to_owned()),
                "exclude" => request.exclude.push(value.to_owned()),
                "untracked" => request.untracked = value == "true",
                "format" => {
                    request.format =
                        Format::from_name(value).ok_or(format!("the format {value:?} is not known"))?;
                }
                "level" => {
                    request.level =
                        Level::from_name(value).ok_or(format!("the level {value:?} is not known"))?;
                }
                "purpose" => {
                    request.purpose = if value == "cache" { Purpose::Cache } else { Purpose::Artifacts };
                }
                "statement-name" => value.clone_into(&mut request.statement.name),
                "statement" => value.clone_into(&mut request.statement.text),
                "known" => value.clone_into(&mut request.known),
                _ => return Err(format!("the field {key:?} is not known")),
            }
        }
        Ok(request)
    }

    /// Chooses the files. `log` gets a line for each path; `untracked` are the paths that git does not track.
    pub fn select(
        &self,
        untracked: impl IntoIterator<Item = Vec<u8>>,
        log: &mut dyn FnMut(String),
    ) -> Result<Selection, ArchiveError> {
        let relative = Selection::new(&self.root, Vec::new(), Limits::default());
        let mut exclude = Vec::new();
        for pattern in &self.exclude {
            match relative.relative(pattern) {
                Some(pattern) => exclude.push(Pattern::new(&pattern)?),
                None => log(format!(
                    "WARNING: {pattern}: is outside of the project's directory and excludes nothing"
                )),
            }
        }
        let mut selection = Selection::new(&self.root, exclude, Limits::default());
        for path in &self.paths {
            let Some(inner) = relative.relative(path).filter(|_| !path.is_empty()) else {
                let why = if path.is_empty() {
                    "the path is empty"
                } else {
                    "is outside of the project's directory"
                };
                log(format!("WARNING: {path}: {why}; it is skipped"));
                continue;
            };
            let found = selection.add(&inner)?;
            log(if found == 0 {
                format!(
                    "WARNING: {path}: no matching files. Ensure that the artifact path is relative to the working \
                     directory ({})",
                    self.root
                )
            } else {
                format!("{path}: found {found} matching artifact files and directories")
            });
        }
        if self.untracked {
            match selection.add_files(untracked)? {
                0 => log("WARNING: untracked: no files".to_owned()),
                found => log(format!("untracked: found {found} files")),
            }
        }
        if selection.excluded() > 0 {
            log(format!("excluded {} files and directories", selection.excluded()));
        }
        Ok(selection)
    }

    /// Writes the archive of a selection.
    pub fn write(&self, selection: &Selection, out: &mut impl Write) -> Result<(), ArchiveError> {
        let statement = Some(&self.statement).filter(|statement| !statement.name.is_empty());
        let zip = |method| Packing { method, level: self.level, statement };
        match self.format {
            Format::Zip => write_zip(selection, &zip(Method::Deflate), out).map(drop),
            Format::ZipZstd => write_zip(selection, &zip(Method::Zstd), out).map(drop),
            Format::TarZstd => write_tar_zstd(selection, self.level, out).map(drop),
            Format::Gzip => write_gzip(selection, self.level, out),
            Format::Raw => write_raw(selection, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let request = Request {
            root: "/builds/p".to_owned(),
            paths: vec!["a=b".to_owned(), "line\nfeed".to_owned()],
            exclude: vec!["**/x".to_owned()],
            untracked: true,
            format: Format::Gzip,
            level: Level::Slowest,
            purpose: Purpose::Cache,
            known: "0".to_owned(),
            statement: Statement { name: "a-metadata.json".to_owned(), text: "{}".to_owned() },
        };
        assert_eq!(Request::decode(&request.encode()), Ok(request));
        assert!(Request::decode(b"format=rar\0").is_err());
    }

    #[test]
    fn each_path_has_its_line() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("out")).unwrap();
        fs::write(directory.path().join("out/a"), "").unwrap();
        fs::write(directory.path().join("out/b"), "").unwrap();
        let root = directory.path().to_str().unwrap().to_owned();
        let request = Request {
            root: root.clone(),
            paths: ["out", "missing", "../x", ""].map(str::to_owned).to_vec(),
            exclude: vec!["out/b".to_owned()],
            untracked: true,
            ..Request::default()
        };
        let mut lines = Vec::new();
        request.select([b"out/a".to_vec()], &mut |line| lines.push(line.replace(&root, "ROOT"))).unwrap();
        insta::assert_snapshot!(lines.join("\n"), @r"
        out: found 2 matching artifact files and directories
        WARNING: missing: no matching files. Ensure that the artifact path is relative to the working directory (ROOT)
        WARNING: ../x: is outside of the project's directory; it is skipped
        WARNING: : the path is empty; it is skipped
        untracked: found 1 files
        excluded 1 files and directories
        ");
    }
}
