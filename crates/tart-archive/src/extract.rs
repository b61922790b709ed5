//! Zips taken apart, without ever leaving the directory they go into.
//!
//! Archives come from other jobs and are hostile. Names with `..`, absolute ones and such that lead out through a
//! link are refused: the kernel resolves each name beneath the directory (`openat2`), so that no race helps. Links of
//! the archive are made after all files.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat, openat2,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use zip::{ExtraField, ZipArchive};

use crate::ArchiveError;
use crate::error::{at, shown};

/// The longest target of a link, in bytes, as the kernel has it.
const LONGEST_TARGET: u64 = 4095;

/// What was taken out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Takes a zip apart into `directory`. What is there already is replaced, but for directories. Permissions and times
/// are restored, owners are those of the process. The archive's directory is held in memory.
pub fn extract_zip(archive: impl Read + Seek, directory: &Path) -> Result<Extracted, ArchiveError> {
    let mut archive = ZipArchive::new(archive).map_err(|error| damaged(&error))?;
    let shown_directory = directory.as_os_str().as_encoded_bytes().to_vec();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|error| at(&shown_directory)(error.into()))?;
    let tree = Tree { root };
    let mut done = Extracted::default();
    let (mut links, mut directories) = (Vec::new(), Vec::new());
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = checked(entry.name_raw())?;
        let Some((parent, base)) = name.split_last_name() else { continue };
        let mode = entry.unix_mode();
        let time = modified(entry.extra_data_fields());
        done.entries += 1;
        if entry.is_symlink() {
            let mut target = Vec::new();
            (&mut entry).take(LONGEST_TARGET + 1).read_to_end(&mut target).map_err(at(&name.0))?;
            if target.len() as u64 > LONGEST_TARGET {
                return Err(ArchiveError::Damaged {
                    problem: format!("the link {} is too long", shown(&name.0)),
                });
            }
            links.push((name, target, time));
        } else if entry.is_dir() {
            drop(tree.directory(&name.0)?);
            directories.push((name, mode, time));
        } else {
            let parent = tree.directory(parent)?;
            tree.remove(&parent, base, &name.0)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = openat(&parent, base, flags, Mode::from_raw_mode(0o666));
            let mut file = File::from(opened.map_err(|error| at(&name.0)(error.into()))?);
            done.bytes += io::copy(&mut entry, &mut file).map_err(at(&name.0))?;
            restore(&file, mode, time).map_err(|error| at(&name.0)(error.into()))?;
        }
    }
    for (name, target, time) in links {
        let Some((parent, base)) = name.split_last_name() else { continue };
        let parent = tree.directory(parent)?;
        tree.remove(&parent, base, &name.0)?;
        symlinkat(target.as_slice(), &parent, base).map_err(|error| at(&name.0)(error.into()))?;
        if let Some(time) = time {
            utimensat(&parent, base, &times(time), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| at(&name.0)(error.into()))?;
        }
    }
    // The deepest first: times change with the content, and permissions may forbid to go on.
    directories.sort_by(|(one, ..), (other, ..)| other.0.cmp(&one.0));
    for (name, mode, time) in directories {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = tree.open(&name.0, flags)?;
        restore(&opened, mode, time).map_err(|error| at(&name.0)(error.into()))?;
    }
    Ok(done)
}

fn damaged(error: &zip::result::ZipError) -> ArchiveError {
    ArchiveError::Damaged { problem: error.to_string().escape_debug().to_string() }
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

/// The directory that everything stays in.
struct Tree {
    root: OwnedFd,
}

impl Tree {
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, ArchiveError> {
        self.try_open(path, flags).map_err(|error| refused(path, error))
    }

    fn try_open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens a directory, and makes it and those above it if they are missing.
    fn directory(&self, path: &[u8]) -> Result<OwnedFd, ArchiveError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.try_open(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|error| refused(path, error)),
        }
        let mut parent = self.open(b"", flags)?;
        let mut end = 0;
        for part in path.split(|&byte| byte == b'/') {
            end += part.len() + usize::from(end > 0);
            let so_far = path.get(..end).unwrap_or(path);
            match mkdirat(&parent, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(refused(so_far, error)),
            }
            parent = self.open(so_far, flags)?;
        }
        Ok(parent)
    }

    /// Removes a file or a link, if there is one.
    fn remove(&self, parent: &OwnedFd, base: &[u8], path: &[u8]) -> Result<(), ArchiveError> {
        match unlinkat(parent, base, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(at(path)(error.into())),
        }
    }
}

fn refused(path: &[u8], error: Errno) -> ArchiveError {
    match error {
        // What `RESOLVE_BENEATH` answers to a path that leads out.
        Errno::XDEV => ArchiveError::Outside { path: shown(path) },
        error => at(path)(error.into()),
    }
}
