//! Files of guests' memory.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use rustix::{fs::SeekFrom as Find, io::Errno};

/// Copies what a file has data for; holes stay holes.
pub(super) fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, Find::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(from, Find::Hole(start))?;
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), &mut to)?;
        at = end;
    }
}
