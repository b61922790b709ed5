//! How Firecracker introduces its guest's memory: one connection, one message with one descriptor.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::socket_peercred},
};
use tart_proto::time::scaled;

use super::{
    MESSAGE_LIMIT,
    mappings::{Mappings, Unusable},
    userfault::Userfault,
};

/// Longest message, in bytes: that of 64 mappings is a tenth of it.
const MAX_MESSAGE: usize = 64 * 1024;

/// Descriptors that may come at once; more than one is wrong.
const MAX_DESCRIPTORS: usize = 4;

/// What has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    Ready,
    /// Nobody needs this machine any more.
    Stopped,
    TimedOut,
}

/// Waits until something can be read, but not longer than the owner.
pub(super) fn await_readable(
    fd: impl AsFd,
    stop: &OwnedFd,
    until: Option<Instant>,
) -> Result<Awaited, String> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(Awaited::TimedOut),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("waiting for it failed: {errno}")),
        }
        let [ready, stopped] = fds.map(|fd| fd.revents());
        if !stopped.is_empty() {
            return Ok(Awaited::Stopped);
        }
        if ready.intersects(PollFlags::NVAL)
            || (ready.intersects(PollFlags::ERR) && !ready.intersects(PollFlags::IN))
        {
            return Err("it cannot be waited for any more".to_owned());
        }
        if !ready.is_empty() {
            return Ok(Awaited::Ready);
        }
    }
}

/// Waits for the machine's connection; nothing if it is needed no more. What another process connects is closed.
fn accept(listener: &UnixListener, pid: u32, stop: &OwnedFd) -> Result<Option<UnixStream>, String> {
    loop {
        match await_readable(listener, stop, None)? {
            Awaited::Stopped => return Ok(None),
            Awaited::Ready | Awaited::TimedOut => {}
        }
        let (stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(format!("its connection cannot be accepted: {error}")),
        };
        let peer = socket_peercred(&stream).map_err(|e| format!("its connection is unknown: {e}"))?;
        if u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(pid) {
            return Ok(Some(stream));
        }
    }
}

/// Receives the message of the machine's process; nothing if the machine is needed no more.
pub(super) fn receive(
    listener: &UnixListener,
    pid: u32,
    memory_bytes: u64,
    stop: &OwnedFd,
) -> Result<Option<(Mappings, Userfault)>, String> {
    let Some(stream) = accept(listener, pid, stop)? else { return Ok(None) };
    let until = Instant::now() + scaled(MESSAGE_LIMIT);
    let (mut message, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        match await_readable(&stream, stop, Some(until))? {
            Awaited::Ready => {}
            Awaited::Stopped => return Ok(None),
            Awaited::TimedOut => {
                return Err(format!(
                    "its message is not complete within {} seconds",
                    MESSAGE_LIMIT.as_secs()
                ));
            }
        }
        if read(stream.as_fd(), &mut message, &mut descriptors)? == 0 {
            return Err("it closed the connection before its message was complete".to_owned());
        }
        match Mappings::read(&message, memory_bytes) {
            Err(Unusable::Incomplete) if message.len() < MAX_MESSAGE => {}
            Err(Unusable::Incomplete) => {
                return Err(format!("its message is longer than {MAX_MESSAGE} bytes"));
            }
            Err(Unusable::Wrong(problem)) => return Err(problem),
            Ok(mappings) => {
                let came = descriptors.len();
                let [descriptor] = <[OwnedFd; 1]>::try_from(descriptors)
                    .map_err(|_| format!("its message has {came} descriptors, not one"))?;
                return Ok(Some((mappings, Userfault::new(descriptor)?)));
            }
        }
    }
}

/// Bytes that came; 0 at the end.
fn read(
    stream: BorrowedFd<'_>,
    message: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, String> {
    let mut text = [0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)
        .map_err(|e| format!("its message cannot be received: {e}"))?;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(format!("its message has {} descriptors, not one", descriptors.len()));
    }
    message.extend_from_slice(text.get(..got.bytes).unwrap_or_default());
    Ok(got.bytes)
}
