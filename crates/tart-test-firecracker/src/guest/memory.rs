//! Files of guests' memory.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use rustix::{
    fs::{MemfdFlags, SeekFrom as Find, memfd_create},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Makes a file for memory of this size, and fills it. Firecracker's is in none, so the limit of files does not hold for it.
pub(super) fn create(bytes: u64, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<File> {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
    let limit = getrlimit(Resource::Fsize);
    let above = |most: Option<u64>| most.map(|most| most.max(bytes));
    setrlimit(Resource::Fsize, Rlimit { current: above(limit.current), maximum: above(limit.maximum) })?;
    file.set_len(bytes)?;
    fill(&file)?;
    setrlimit(Resource::Fsize, limit)?;
    Ok(file)
}

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
