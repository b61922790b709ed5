//! What a runner without privileges hands on: files that it has opened itself, so it can hand on no others. The helper
//! opens no path of the runner's.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat, fstat, open as open_file},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
    process::{Gid, Uid},
};
use tart_root_helper::Peer;

use super::Wanted;
use crate::{
    Identity,
    confine::{Place, PlaceAccess},
    handle,
};

/// The directory that a machine works in comes first, then what it may open.
fn paths(wanted: &Wanted) -> impl Iterator<Item = &PathBuf> {
    let allowed = &wanted.allowed;
    std::iter::once(&wanted.dir).chain(&allowed.installed).chain(&allowed.read).chain(&allowed.write)
}

/// Opens what a monitor may open, as far as it is there, and takes the rest out.
pub(super) fn open(wanted: &mut Wanted) -> io::Result<Vec<OwnedFd>> {
    let allowed = &mut wanted.allowed;
    for list in [&mut allowed.installed, &mut allowed.read, &mut allowed.write] {
        list.retain(|path| path.exists());
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    paths(wanted).map(|path| Ok(open_file(path, flags, Mode::empty())?)).collect()
}

/// The files of a monitor, kept open.
#[derive(Debug)]
pub(super) struct Handed {
    /// By their paths, found by their descriptors.
    pub(super) places: Vec<Place>,
    own: Vec<usize>,
    files: Vec<OwnedFd>,
}

impl Handed {
    /// Checks what a peer has handed on.
    pub(super) fn new(wanted: &Wanted, files: Vec<OwnedFd>, peer: Peer) -> Result<Self, String> {
        let named: Vec<&PathBuf> = paths(wanted).collect();
        if named.len() != files.len() {
            return Err("paths and descriptors of files do not fit".to_owned());
        }
        let look = |file: &OwnedFd, path: &Path| {
            fstat(file).map_err(|errno| format!("cannot look at {}: {errno}", path.display()))
        };
        for (file, path) in files.iter().zip(&named) {
            match FileType::from_raw_mode(look(file, path)?.st_mode) {
                FileType::RegularFile | FileType::Directory => {}
                _ => return Err(format!("{} is neither a file nor a directory", path.display())),
            }
        }
        let dir = files.first().map(fstat);
        let is_own_dir = dir.is_some_and(|dir| {
            dir.is_ok_and(|dir| {
                FileType::from_raw_mode(dir.st_mode) == FileType::Directory && dir.st_uid == peer.uid
            })
        });
        if !is_own_dir {
            return Err(format!("{} is no directory of the runner's user", wanted.dir.display()));
        }
        let mut own = Vec::new();
        for path in &wanted.own {
            let refused = || format!("{} is no file that is the runner's alone", path.display());
            let index = named.iter().position(|named| *named == path).ok_or_else(refused)?;
            let about = files.get(index).map(fstat).and_then(Result::ok).ok_or_else(refused)?;
            let is_file = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile;
            if !is_file || about.st_uid != peer.uid || about.st_nlink != 1 {
                return Err(refused());
            }
            own.push(index);
        }
        let files = named.iter().zip(files).map(|(path, file)| {
            bindable(file).map_err(|error| format!("cannot find {} again: {error}", path.display()))
        });
        let files = files.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { places: places(wanted, &files), own, files })
    }

    /// The directory that the monitor works in.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        self.files.first().map(path_of)
    }

    /// Makes the files that are to be the monitor's its user's.
    pub(super) fn give(&self, Identity { uid, gid }: Identity) -> io::Result<()> {
        self.own.iter().filter_map(|index| self.files.get(*index)).try_for_each(|file| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            Ok(chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
        })
    }
}

/// What every monitor needs is where it is on the host; the rest is found by descriptors, in this process and its
/// children.
fn places(wanted: &Wanted, files: &[OwnedFd]) -> Vec<Place> {
    let mut places = crate::confine::Allowed::default().places();
    let accesses = std::iter::repeat_n(PlaceAccess::System, wanted.allowed.installed.len())
        .chain(std::iter::repeat_n(PlaceAccess::Read, wanted.allowed.read.len()))
        .chain(std::iter::repeat_n(PlaceAccess::Write, wanted.allowed.write.len()));
    let named = paths(wanted).zip(files).skip(1);
    places.extend(named.zip(accesses).map(|((path, file), access)| Place {
        from: path_of(file),
        path: path.clone(),
        access,
    }));
    places
}

/// The same file by a mount of this process's, which alone can be bound elsewhere: a runner that is a service of systemd has
/// others.
fn bindable(file: OwnedFd) -> io::Result<OwnedFd> {
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match open_tree(CWD, path_of(&file), copy) {
        Err(Errno::INVAL) => handle::by_own_mount(&file),
        Ok(_) => Ok(file),
        Err(errno) => Err(errno.into()),
    }
}

fn path_of(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests;
