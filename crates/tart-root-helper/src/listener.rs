//! The helper's end: one user may connect, nobody else.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
        sockopt::socket_peercred,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{Connection, HelperError, connection::registered};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Where the helper waits for its runner. The socket's file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    user: u32,
}

impl Listener {
    /// Listens for one user. A file that an earlier helper left is replaced. Must be called in a runtime.
    ///
    /// # Errors
    /// [`HelperError::Broken`] if the socket cannot be made.
    pub fn bind(path: &Path, user: u32) -> Result<Self, HelperError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let make = || -> Result<OwnedFd, Errno> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            bind(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        let socket = make().map_err(std::io::Error::from)?;
        // Nobody can connect before it listens.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        chown(path, Some(user), None)?;
        listen(&socket, BACKLOG).map_err(std::io::Error::from)?;
        let socket = registered(socket, Interest::READABLE)?;
        Ok(Self { socket, path: path.to_owned(), user })
    }

    /// Waits for a connection of the user's; those of others are closed.
    ///
    /// # Errors
    /// [`HelperError::Broken`] if none can be accepted.
    pub async fn accept(&self) -> Result<(Connection, Peer), HelperError> {
        loop {
            let mut ready = self.socket.readable().await?;
            let accepted = accept_with(self.socket.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            let connection = match accepted {
                Ok(connection) => connection,
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(errno) => return Err(HelperError::Broken(errno.into())),
            };
            let Ok(peer) = socket_peercred(&connection) else { continue };
            let peer = Peer { uid: peer.uid.as_raw(), gid: peer.gid.as_raw() };
            if peer.uid == self.user {
                return Ok((Connection::new(connection)?, peer));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may be another helper's by now, which has to be started again then.
        let _gone = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests;
