//! Archives taken apart, without ever leaving the directory they go into.

use std::collections::BTreeSet;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use zip::{ExtraField, ZipArchive};

use crate::error::at;
use crate::target::{LONGEST_TARGET, Target};
use crate::{ArchiveError, extract_tar_zstd};

/// How zstd's frames and gzip's members begin (RFC 8878 3.1.1, RFC 1952 2.3.1).
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// What was taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Their paths, sorted, each of them once; `None` if there are more than [`crate::Limits`] has.
    pub paths: Option<BTreeSet<Vec<u8>>>,
}

/// Takes an archive apart into `directory`: a zip, or a tar in zstd, as its first bytes say. `keep` gets those that
/// cannot be taken apart as they come, and gives them back to be read from any place.
pub fn extract<R: Read, S: Read + Seek>(
    mut archive: R,
    directory: &Path,
    keep: impl FnOnce(&mut dyn Read) -> Result<S, ArchiveError>,
) -> Result<Extracted, ArchiveError> {
    let mut start = Vec::new();
    archive.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start).map_err(ArchiveError::Input)?;
    let mut all = Cursor::new(start.clone()).chain(archive);
    if start == ZSTD {
        return extract_tar_zstd(all, directory);
    }
    if start.starts_with(&GZIP) {
        let problem = "it is gzip, which has files without their paths".to_owned();
        return Err(ArchiveError::Damaged { problem });
    }
    extract_zip(BufReader::new(keep(&mut all)?), directory)
}

/// Takes a zip apart into `directory`. What is there already is replaced, but for directories. Permissions and times
/// are restored, owners are those of the process. The archive's directory is held in memory.
pub fn extract_zip(archive: impl Read + Seek, directory: &Path) -> Result<Extracted, ArchiveError> {
    let mut archive = ZipArchive::new(archive).map_err(|error| damaged(&error))?;
    let mut target = Target::open(directory)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = entry.name_raw().to_vec();
        let mode = entry.unix_mode();
        let time = modified(entry.extra_data_fields());
        if entry.is_symlink() {
            let mut link = Vec::new();
            // One byte more, which is an error.
            (&mut entry).take(LONGEST_TARGET as u64 + 1).read_to_end(&mut link).map_err(at(&name))?;
            target.link(&name, link, time)?;
        } else if entry.is_dir() {
            target.directory(&name, mode, time)?;
        } else {
            target.file(&name, &mut entry, mode, time)?;
        }
    }
    target.finish()
}

fn damaged(error: &zip::result::ZipError) -> ArchiveError {
    ArchiveError::Damaged { problem: error.to_string().escape_debug().to_string() }
}

fn modified<'a>(fields: impl Iterator<Item = &'a ExtraField>) -> Option<i64> {
    let mut time = None;
    for field in fields {
        if let ExtraField::ExtendedTimestamp(times) = field {
            // Seconds since 1970 with a sign.
            time = times.mod_time().map(|seconds| i64::from(seconds.cast_signed()));
        }
    }
    time
}
