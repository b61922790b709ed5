//! The directory that an archive is taken apart into, and that nothing of it leaves.
//!
//! Archives come from other jobs and are hostile. Names with `..`, absolute ones and such that lead out through a
//! link are refused: the kernel resolves each name beneath the directory (`openat2`), so that no race helps. Links of
//! the archive are made after all files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat, openat2,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::{at, shown};
use crate::extract::Extracted;
use crate::{ArchiveError, Limits};

/// The longest target of a link, in bytes, as the kernel has it.
pub(crate) const LONGEST_TARGET: usize = 4095;

/// Zeros that are worth a hole, in bytes: a block of the file system.
const SMALLEST_HOLE: usize = 4096;

/// What is read at once, if it is a hole: slices are compared faster than bytes are looked at.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The directory, and what is done at the end.
pub(crate) struct Target {
    root: OwnedFd,
    links: Vec<(Name, Vec<u8>, Option<i64>)>,
    directories: Vec<(Name, Option<u32>, Option<i64>)>,
    text: usize,
    done: Extracted,
}

impl Target {
    /// Opens a directory that is there.
    pub(crate) fn open(directory: &Path) -> Result<Self, ArchiveError> {
        let shown_directory = directory.as_os_str().as_encoded_bytes();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|error| at(shown_directory)(error.into()))?;
        let done = Extracted { paths: Some(BTreeSet::new()), ..Extracted::default() };
        Ok(Self { root, links: Vec::new(), directories: Vec::new(), text: 0, done })
    }

    /// Makes a file, in place of what has its name.
    pub(crate) fn file(
        &mut self,
        raw: &[u8],
        content: &mut impl Read,
        mode: Option<u32>,
        time: Option<i64>,
    ) -> Result<(), ArchiveError> {
        let name = checked(raw)?;
        let Some((parent, base)) = name.split_last_name() else { return Ok(()) };
        let parent = self.make_directory(parent)?;
        remove(&parent, base, &name.0)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&parent, base, flags, Mode::from_raw_mode(0o666));
        let mut file = File::from(opened.map_err(|error| at(&name.0)(error.into()))?);
        self.done.bytes += fill(&mut file, content).map_err(at(&name.0))?;
        restore(&file, mode, time).map_err(|error| at(&name.0)(error.into()))?;
        self.count(&name);
        Ok(())
    }

    /// Makes a directory now, and gives it its permissions at the end.
    pub(crate) fn directory(
        &mut self,
        raw: &[u8],
        mode: Option<u32>,
        time: Option<i64>,
    ) -> Result<(), ArchiveError> {
        let name = checked(raw)?;
        if !name.0.is_empty() {
            drop(self.make_directory(&name.0)?);
            self.count(&name);
            self.directories.push((name, mode, time));
        }
        Ok(())
    }

    /// Makes a link at the end.
    pub(crate) fn link(
        &mut self,
        raw: &[u8],
        target: Vec<u8>,
        time: Option<i64>,
    ) -> Result<(), ArchiveError> {
        let name = checked(raw)?;
        if target.len() > LONGEST_TARGET {
            return Err(ArchiveError::Damaged { problem: format!("the link {} is too long", shown(raw)) });
        }
        if !name.0.is_empty() {
            self.count(&name);
            self.links.push((name, target, time));
        }
        Ok(())
    }

    /// Does what was left for the end, and says what was done.
    pub(crate) fn finish(mut self) -> Result<Extracted, ArchiveError> {
        for (name, target, time) in std::mem::take(&mut self.links) {
            let Some((parent, base)) = name.split_last_name() else { continue };
            let parent = self.make_directory(parent)?;
            remove(&parent, base, &name.0)?;
            symlinkat(target.as_slice(), &parent, base).map_err(|error| at(&name.0)(error.into()))?;
            if let Some(time) = time {
                utimensat(&parent, base, &times(time), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| at(&name.0)(error.into()))?;
            }
        }
        // The deepest first: times change with the content, and permissions may forbid to go on.
        self.directories.sort_by(|(one, ..), (other, ..)| other.0.cmp(&one.0));
        for (name, mode, time) in &self.directories {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = self.try_open(&name.0, flags).map_err(|error| refused(&name.0, error))?;
            restore(&opened, *mode, *time).map_err(|error| at(&name.0)(error.into()))?;
        }
        Ok(self.done)
    }

    fn count(&mut self, name: &Name) {
        let limits = Limits::default();
        self.done.entries += 1;
        self.text += name.0.len();
        match &mut self.done.paths {
            Some(paths) if paths.len() < limits.paths && self.text < limits.text => {
                paths.insert(name.0.clone());
            }
            paths => *paths = None,
        }
    }

    fn try_open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens a directory, and makes it and those above it if they are missing.
    fn make_directory(&self, path: &[u8]) -> Result<OwnedFd, ArchiveError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.try_open(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|error| refused(path, error)),
        }
        let mut parent = self.try_open(b"", flags).map_err(|error| refused(b"", error))?;
        let mut end = 0;
        for part in path.split(|&byte| byte == b'/') {
            end += part.len() + usize::from(end > 0);
            let so_far = path.get(..end).unwrap_or(path);
            match mkdirat(&parent, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(refused(so_far, error)),
            }
            parent = self.try_open(so_far, flags).map_err(|error| refused(so_far, error))?;
        }
        Ok(parent)
    }
}

/// Writes a new file, with holes where there would be zeros. Returns its size.
fn fill(file: &mut File, content: &mut impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; ZEROS.len()];
    let (mut size, mut hole) = (0, 0);
    loop {
        let length = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let data = buffer.get(..length).unwrap_or_default();
        size += length as u64;
        if length >= SMALLEST_HOLE && ZEROS.starts_with(data) {
            hole += length as u64;
            continue;
        }
        if hole > 0 {
            file.seek(SeekFrom::Start(size - length as u64))?;
            hole = 0;
        }
        file.write_all(data)?;
    }
    if hole > 0 {
        file.set_len(size)?;
    }
    Ok(size)
}

/// Removes a file or a link, if there is one.
fn remove(parent: &OwnedFd, base: &[u8], path: &[u8]) -> Result<(), ArchiveError> {
    match unlinkat(parent, base, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(at(path)(error.into())),
    }
}

fn refused(path: &[u8], error: Errno) -> ArchiveError {
    match error {
        // What `RESOLVE_BENEATH` answers to a path that leads out.
        Errno::XDEV => ArchiveError::Outside { path: shown(path) },
        error => at(path)(error.into()),
    }
}

/// A name without empty parts, `.` and `..`.
struct Name(Vec<u8>);

impl Name {
    /// The directory and the name in it; `None` for the directory of the archive itself.
    fn split_last_name(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        })
    }
}

fn checked(raw: &[u8]) -> Result<Name, ArchiveError> {
    let mut name = Vec::new();
    let outside = || ArchiveError::Outside { path: shown(raw) };
    if raw.starts_with(b"/") {
        return Err(outside());
    }
    for part in raw.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(outside()),
            part if part.contains(&0) => {
                return Err(ArchiveError::Damaged {
                    problem: format!("the name {} has a null byte", shown(raw)),
                });
            }
            _ => {}
        }
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(part);
    }
    Ok(Name(name))
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn restore(file: impl std::os::fd::AsFd, mode: Option<u32>, time: Option<i64>) -> Result<(), Errno> {
    if let Some(mode) = mode {
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    }
    if let Some(time) = time {
        futimens(&file, &times(time))?;
    }
    Ok(())
}
