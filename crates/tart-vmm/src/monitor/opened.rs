//! What a runner without privileges may hand on: the files that it could open itself. Every path that it names is opened
//! with its rights, and only what was opened is used.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, chownat, fstat, open},
    process::{Gid, Uid},
    thread::set_thread_groups,
};
use tart_root_helper::Peer;

use super::Wanted;
use crate::{
    Identity,
    confine::{Place, PlaceAccess},
};

/// Files of a peer's, kept open.
#[derive(Debug)]
pub(super) struct Opened {
    /// By their paths, found by their descriptors.
    pub(super) places: Vec<Place>,
    own: Vec<OwnedFd>,
    _held: Vec<OwnedFd>,
}

impl Opened {
    /// Opens what a peer names, with its rights. Blocks.
    pub(super) fn open(wanted: &Wanted, peer: Peer) -> Result<Self, String> {
        let wanted = wanted.clone();
        // The rights of a thread are its own; this one ends with its work.
        let work = thread::Builder::new().name("tart-opener".to_owned()).spawn(move || {
            become_peer(peer).map_err(|error| format!("cannot take the runner's rights: {error}"))?;
            open_all(&wanted, peer)
        });
        let work = work.map_err(|error| format!("cannot start a thread: {error}"))?;
        work.join().unwrap_or_else(|_| Err("the files of the machine were not opened".to_owned()))
    }

    /// Makes the files that are to be the monitor's its user's.
    pub(super) fn give(&self, Identity { uid, gid }: Identity) -> io::Result<()> {
        self.own.iter().try_for_each(|file| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            Ok(chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
        })
    }
}

/// Gives the calling thread the rights of a user to files, and no others.
fn become_peer(peer: Peer) -> io::Result<()> {
    set_thread_groups(&[])?;
    #[expect(unsafe_code, reason = "rustix does not have these calls")]
    // SAFETY: both calls take numbers and change rights of the calling thread only.
    let now = unsafe {
        libc::setfsgid(peer.gid);
        libc::setfsuid(peer.uid);
        // They tell what was in force before; that of no user changes nothing.
        (libc::setfsgid(u32::MAX), libc::setfsuid(u32::MAX))
    };
    let wanted = (i64::from(peer.gid), i64::from(peer.uid));
    if (i64::from(now.0), i64::from(now.1)) == wanted {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn open_all(wanted: &Wanted, peer: Peer) -> Result<Opened, String> {
    let (mut places, mut held, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for Place { path, access, .. } in wanted.allowed.places() {
        // What every monitor needs is not the peer's to name.
        if !matches!(access, PlaceAccess::Read | PlaceAccess::Write)
            && !wanted.allowed.installed.contains(&path)
        {
            places.push(Place { from: path.clone(), path, access });
            continue;
        }
        let what = |error: io::Error| format!("cannot open {} as the runner's user: {error}", path.display());
        let Some(file) = look(&path).map_err(what)? else { continue };
        if access == PlaceAccess::Write {
            writable(&file, peer).map_err(what)?;
        } else {
            readable(&file).map_err(what)?;
        }
        places.push(Place { from: by_descriptor(&file), path, access });
        held.push(file);
    }
    let is_dir = |file: &OwnedFd| {
        let about = fstat(file)?;
        Ok(kind(&about) == FileType::Directory && about.st_uid == peer.uid)
    };
    match look(&wanted.dir).and_then(|dir| dir.as_ref().map_or(Ok(false), is_dir)) {
        Ok(true) => {}
        _ => return Err(format!("{} is no directory of the runner's user", wanted.dir.display())),
    }
    for path in &wanted.own {
        let refused = || format!("{} is no file that is the runner's alone", path.display());
        let file = look(path).ok().flatten().ok_or_else(refused)?;
        let about = fstat(&file).map_err(|_| refused())?;
        if kind(&about) != FileType::RegularFile || about.st_uid != peer.uid || about.st_nlink != 1 {
            return Err(refused());
        }
        own.push(file);
    }
    Ok(Opened { places, own, _held: held })
}

/// Finds a file; `None` if it is not there.
fn look(path: &Path) -> io::Result<Option<OwnedFd>> {
    match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A path that leads to an open file, in this process and its children.
fn by_descriptor(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn readable(file: &OwnedFd) -> io::Result<()> {
    reopen(file, OFlags::RDONLY)
}

fn writable(file: &OwnedFd, peer: Peer) -> io::Result<()> {
    let about = fstat(file)?;
    if kind(&about) == FileType::Directory {
        return if about.st_uid == peer.uid { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) };
    }
    reopen(file, OFlags::RDWR)
}

/// Opens what was found for real, which tells whether that is allowed. Only files and directories: others do things when
/// they are opened.
fn reopen(file: &OwnedFd, flags: OFlags) -> io::Result<()> {
    match kind(&fstat(file)?) {
        FileType::RegularFile | FileType::Directory => {}
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a directory")),
    }
    open(thread_path(file), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map(drop)?;
    Ok(())
}

fn thread_path(file: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/thread-self/fd/{}", file.as_fd().as_raw_fd()))
}

fn kind(about: &Stat) -> FileType {
    FileType::from_raw_mode(about.st_mode)
}

#[cfg(test)]
mod tests;
