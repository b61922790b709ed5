//! The formats without a directory: gzip and raw.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use flate2::GzBuilder;

use crate::error::{at, shown};
use crate::files::open;
use crate::{ArchiveError, Level, Selection};

/// Writes a gzip member for each file, one after the other. Directories are an error, as is all that is no file.
/// The header has the file's name, its path as the comment, and its time. Characters that gzip's headers do not have
/// are written as `e:` and the path with escapes, as the official runner does.
pub fn write_gzip(selection: &Selection, level: Level, out: &mut impl Write) -> Result<(), ArchiveError> {
    for path in selection.paths() {
        let file = open_regular(selection, path)?;
        let metadata = file.metadata().map_err(at(path))?;
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let time = u32::try_from(metadata.mtime()).unwrap_or(0);
        let builder = GzBuilder::new().filename(header_text(name)).comment(header_text(path)).mtime(time);
        let mut member = builder.write(&mut *out, level.deflate());
        io::copy(&mut &file, &mut member).map_err(at(path))?;
        member.finish().map_err(ArchiveError::Output)?;
    }
    out.flush().map_err(ArchiveError::Output)
}

/// Writes the one file as it is.
pub fn write_raw(selection: &Selection, out: &mut impl Write) -> Result<(), ArchiveError> {
    let mut paths = selection.paths();
    let (count, path) = (paths.len(), paths.next());
    let (1, Some(path)) = (count, path) else { return Err(ArchiveError::NotOne { count }) };
    let mut file = open_regular(selection, path)?;
    io::copy(&mut file, out).map_err(at(path))?;
    out.flush().map_err(ArchiveError::Output)
}

fn open_regular(selection: &Selection, path: &[u8]) -> Result<File, ArchiveError> {
    let not_regular = || ArchiveError::NotRegular { path: shown(path) };
    let file = match open(selection, path) {
        Err(rustix::io::Errno::LOOP) => return Err(not_regular()),
        other => other.map_err(|error| at(path)(error.into()))?,
    };
    if !file.metadata().map_err(at(path))?.is_file() {
        return Err(not_regular());
    }
    Ok(file)
}

fn header_text(path: &[u8]) -> Vec<u8> {
    if path.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_control() && *byte != b'%') {
        return path.to_vec();
    }
    let mut text = b"e:".to_vec();
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+=:@".contains(&byte) {
            text.push(byte);
        } else {
            text.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    text
}
