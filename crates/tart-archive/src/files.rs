//! Files of a selection, looked at and opened.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::at;
use crate::{ArchiveError, Selection};

/// What goes into an archive: a file, a directory or a link. `None` for sockets, pipes and devices, and for what is
/// gone.
pub(crate) fn ordinary(root: &Path, path: &[u8]) -> Result<Option<Metadata>, ArchiveError> {
    let metadata = match fs::symlink_metadata(root.join(OsStr::from_bytes(path))) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.map_err(at(path))?,
    };
    let kind = metadata.file_type();
    Ok((kind.is_file() || kind.is_dir() || kind.is_symlink()).then_some(metadata))
}

/// Opens a file; links are not followed, and a pipe does not wait for a writer.
pub(crate) fn open(selection: &Selection, path: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(selection.absolute(path), flags, Mode::empty()).map(File::from)
}
