//! Messages with descriptors over a packet socket.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
        connect, recvmsg, sendmsg, socket_with, socketpair,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{Answer, HelperError, Open};

/// Longest message, in bytes: what a packet socket takes without settings of the host.
pub const MAX_MESSAGE: usize = 128 << 10;

/// Most descriptors with a message: those of a machine with all its disks.
pub const MAX_DESCRIPTORS: usize = 96;

/// One object of the host, seen from either side.
#[derive(Debug)]
pub struct Connection(AsyncFd<OwnedFd>);

/// A message and the descriptors that came with it.
pub type Received<T> = (T, Vec<OwnedFd>);

impl Connection {
    /// Connects to the helper and says what for.
    ///
    /// # Errors
    /// [`HelperError`]. Must be called in a runtime.
    pub async fn open(path: &Path, what: Open) -> Result<Self, HelperError> {
        let reach = || -> Result<OwnedFd, Errno> {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None,
            )?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        let socket =
            reach().map_err(|e| HelperError::Unreachable { path: path.to_owned(), source: e.into() })?;
        let connection = Self::new(socket)?;
        connection.send(&what, &[]).await?;
        Ok(connection)
    }

    /// A connection, and the other end of it to be handed on. Must be called in a runtime.
    ///
    /// # Errors
    /// [`HelperError::Broken`].
    pub fn pair() -> Result<(Self, OwnedFd), HelperError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (near, far) = pair.map_err(std::io::Error::from)?;
        Ok((Self::new(near)?, far))
    }

    /// The end of a [`Connection::pair`] that was handed on. Must be called in a runtime.
    ///
    /// # Errors
    /// [`HelperError::Broken`].
    pub fn handed(end: OwnedFd) -> Result<Self, HelperError> {
        Self::new(end)
    }

    pub(crate) fn new(socket: OwnedFd) -> Result<Self, HelperError> {
        Ok(Self(registered(socket, Interest::READABLE | Interest::WRITABLE)?))
    }

    /// Sends a message with descriptors, which the other end gets duplicates of.
    ///
    /// # Errors
    /// [`HelperError`]; nothing was sent then.
    pub async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HelperError> {
        let text = serde_json::to_vec(message).map_err(|e| HelperError::Malformed(e.to_string()))?;
        if text.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(HelperError::TooLarge);
        }
        loop {
            let mut ready = self.0.writable().await?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(HelperError::TooLarge);
            }
            match sendmsg(self.0.get_ref(), &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(HelperError::Closed),
                Err(errno) => return Err(HelperError::Broken(errno.into())),
            }
        }
    }

    /// Waits for a message. If the future is dropped, no message is lost.
    ///
    /// # Errors
    /// [`HelperError::Closed`] if the other end is gone, others if what came is none that is expected.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, HelperError> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut text = vec![0; MAX_MESSAGE];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(
                self.0.get_ref(),
                &mut [IoSliceMut::new(&mut text)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            let got = match got {
                Ok(got) => got,
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::CONNRESET) => return Err(HelperError::Closed),
                Err(errno) => return Err(HelperError::Broken(errno.into())),
            };
            let mut descriptors = Vec::new();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            if got.bytes == 0 {
                return Err(HelperError::Closed);
            }
            if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                return Err(HelperError::TooLarge);
            }
            let text = text.get(..got.bytes).unwrap_or_default();
            let message = serde_json::from_slice(text).map_err(|e| HelperError::Malformed(e.to_string()))?;
            return Ok((message, descriptors));
        }
    }

    /// Sends a request and waits for what it gives.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        request: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Received<T>, HelperError> {
        self.send(request, descriptors).await?;
        let (answer, descriptors) = self.receive::<Answer<T>>().await?;
        answer.map(|answer| (answer, descriptors)).map_err(HelperError::Refused)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

pub(crate) fn registered(socket: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, HelperError> {
    #[expect(unsafe_code, reason = "tokio has no safe way to register a descriptor")]
    // SAFETY: an `OwnedFd` is one and the same open descriptor until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(registered.map_err(std::io::Error::from)?)
}
