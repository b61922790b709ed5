//! Tar in zstd, as caches and artifacts in the form `tarzstd` are.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};
use zstd::{Decoder, Encoder};

use crate::error::{at, shown};
use crate::extract::Extracted;
use crate::files::{open, ordinary};
use crate::target::Target;
use crate::{ArchiveError, Level, Selection};

/// Writes a tar, compressed with zstd, of the selection: what [`crate::write_zip`] would write. A file that grows while
/// it is read is cut at the size it had, and one that shrinks is filled with zeros. Returns how many entries were
/// written.
pub fn write_tar_zstd(
    selection: &Selection,
    level: Level,
    out: &mut impl Write,
) -> Result<u64, ArchiveError> {
    let encoder = Encoder::new(&mut *out, level.zstd()).map_err(ArchiveError::Output)?;
    let mut tar = Builder::new(encoder);
    let mut entries = 0;
    for path in selection.paths() {
        let Some(metadata) = ordinary(selection.root(), path)? else { continue };
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        let name = Path::new(OsStr::from_bytes(path));
        let written = if metadata.is_file() {
            let file = open(selection, path).map_err(|error| at(path)(error.into()))?;
            let mut content = Content { file, failed: None };
            let filled = (&mut content).chain(io::repeat(0)).take(metadata.len());
            let written = tar.append_data(&mut header, name, filled);
            if let Some(error) = content.failed {
                return Err(at(path)(error));
            }
            written
        } else {
            header.set_size(0);
            if metadata.is_dir() {
                tar.append_data(&mut header, name, io::empty())
            } else {
                let target = fs::read_link(selection.absolute(path)).map_err(at(path))?;
                tar.append_link(&mut header, name, target)
            }
        };
        written.map_err(ArchiveError::Output)?;
        entries += 1;
    }
    tar.into_inner().and_then(Encoder::finish).map_err(ArchiveError::Output)?;
    out.flush().map_err(ArchiveError::Output)?;
    Ok(entries)
}

/// A file, whose errors are told from those of the archive.
struct Content {
    file: File,
    failed: Option<io::Error>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|error| {
            let again = io::Error::from(error.kind());
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            again
        })
    }
}

/// Takes a tar in zstd apart into `directory`, as [`crate::extract_zip`] does. Devices and pipes are left out; links
/// between files (hard links) are an error.
pub fn extract_tar_zstd(archive: impl Read, directory: &Path) -> Result<Extracted, ArchiveError> {
    let mut target = Target::open(directory)?;
    let mut archive = Archive::new(Decoder::new(archive).map_err(|error| damaged(&error))?);
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let raw = entry.path_bytes().into_owned();
        let (mode, time) = (entry.header().mode().ok(), entry.header().mtime().ok());
        let time = time.and_then(|time| i64::try_from(time).ok());
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                target.file(&raw, &mut entry, mode, time)?;
            }
            EntryType::Directory => target.directory(&raw, mode, time)?,
            EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                target.link(&raw, link, time)?;
            }
            EntryType::Link => {
                return Err(ArchiveError::Damaged { problem: format!("{} is a hard link", shown(&raw)) });
            }
            _ => {}
        }
    }
    target.finish()
}

fn damaged(error: &io::Error) -> ArchiveError {
    ArchiveError::Damaged { problem: error.to_string().escape_debug().to_string() }
}
