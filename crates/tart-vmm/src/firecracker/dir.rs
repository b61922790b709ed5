//! The directory that a Firecracker works in. One in a jail owns the directory and may be its guest's by now, so nothing
//! there is taken for what its name says: links are not followed, and files are looked at after they are open.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::lchown, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, unlinkat};
use tokio::net::UnixStream;

use crate::{Identity, run_dir};

/// An open directory.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

impl Dir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.0
    }

    /// A path that always fits a socket address. Only for as long as the directory is nobody else's.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        run_dir::path_in(&self.0, name)
    }

    fn beneath(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(openat2(&self.0, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// Connects to a socket below, and to no other of the host.
    pub(super) async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let socket = self.beneath(name, OFlags::PATH)?;
        UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
    }

    /// Listens at a new socket, to which a jailed program connects as its own user. Accepting does not wait. Only for as
    /// long as the directory is nobody else's.
    pub(super) fn listen(&self, name: &str, user: Option<Identity>) -> io::Result<UnixListener> {
        let socket = self.path(name);
        let listener = UnixListener::bind(&socket)?;
        if let Some(Identity { uid, gid }) = user {
            lchown(&socket, Some(uid), Some(gid))?;
        }
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Opens a file that was made here and removes its name.
    pub(super) fn take(&self, name: &str) -> io::Result<File> {
        // Without waiting for the other end of what is no file.
        let opened = self.beneath(name, OFlags::RDONLY | OFlags::NONBLOCK);
        let _absent = unlinkat(&self.0, name, AtFlags::empty());
        let file = opened?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` is no file")));
        }
        Ok(file.into())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::symlink};

    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_link_out_of_the_place_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("root/run")).unwrap();
        let _outside = UnixListener::bind(at("socket")).unwrap();
        let _inside = UnixListener::bind(at("root/run/socket")).unwrap();
        symlink("../socket", at("root/link")).unwrap();
        symlink("..", at("root/up")).unwrap();
        let dir_in = Dir::open(&at("root")).unwrap();
        dir_in.connect("run/socket").await.unwrap();
        for name in ["link", "up/socket", "../socket", "gone"] {
            assert!(dir_in.connect(name).await.is_err(), "{name}");
        }
    }

    #[test]
    fn only_a_file_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("root")).unwrap();
        fs::write(at("secret"), "secret").unwrap();
        fs::write(at("root/saved"), "saved").unwrap();
        symlink("../secret", at("root/link")).unwrap();
        let fifo = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("root/fifo"), FileType::Fifo, fifo, 0).unwrap();
        let dir_in = Dir::open(&at("root")).unwrap();
        let mut text = String::new();
        dir_in.take("saved").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "saved");
        for name in ["saved", "link", "fifo", "."] {
            assert!(dir_in.take(name).is_err(), "{name}");
        }
        assert!(fs::read_dir(at("root")).unwrap().next().is_none(), "nothing stays");
    }
}
