//! From a command's output to its stream.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use bytes::Bytes;
use rustix::io::Errno;
use tart_proto::{MuxError, StreamWriter, limits::MAX_DATA, time::scaled};
use tokio::{
    io::unix::AsyncFd,
    sync::watch,
    time::{Instant, sleep_until},
};

/// How long after the end of a command its output may stay open, held by processes that it left in the
/// background. What they write later is thrown away.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Most that is still read when the grace is over: what a pipe can hold.
const MAX_LEFT: usize = 1024 * 1024;

/// Sends everything from `source` to a channel, up to its end or the end of the grace, which starts when `ended`
/// tells when the command ended. Gives the source back if it is still open.
pub(super) async fn pump(
    source: AsyncFd<OwnedFd>,
    channel: u8,
    writer: StreamWriter,
    mut ended: watch::Receiver<Option<Instant>>,
) -> Result<Option<AsyncFd<OwnedFd>>, MuxError> {
    let mut buffer = vec![0; MAX_DATA];
    let open = loop {
        // Waiting for credit is the host's time and does not count: what a command wrote is read to its end.
        let read = tokio::select! {
            biased;
            read = read(&source, &mut buffer) => read,
            () = grace(&mut ended) => {
                send_rest(&source, &mut buffer, channel, &writer).await?;
                break Some(source);
            }
        };
        match read {
            Ok(0) | Err(_) => break None,
            Ok(len) => send(&writer, channel, &buffer, len).await?,
        }
    };
    writer.eof(channel).await?;
    Ok(open)
}

/// Throws away what background processes still write, so that they do not end by a broken pipe.
pub(super) async fn discard(source: AsyncFd<OwnedFd>) {
    let mut buffer = vec![0; 4096];
    while read(&source, &mut buffer).await.is_ok_and(|len| len > 0) {}
}

/// Ends when the grace is over.
async fn grace(ended: &mut watch::Receiver<Option<Instant>>) {
    let end = match ended.wait_for(Option::is_some).await {
        Ok(end) => *end,
        // The command is not waited for any more.
        Err(_) => Some(Instant::now()),
    };
    sleep_until(end.unwrap_or_else(Instant::now) + scaled(GRACE)).await;
}

async fn read(source: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = source.readable().await?;
        match rustix::io::read(source.get_ref().as_fd(), &mut *buffer) {
            Ok(len) => return Ok(len),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            // How a terminal says that nobody has it open any more.
            Err(Errno::IO) => return Ok(0),
            Err(errno) => return Err(errno.into()),
        }
    }
}

async fn send_rest(
    source: &AsyncFd<OwnedFd>,
    buffer: &mut [u8],
    channel: u8,
    writer: &StreamWriter,
) -> Result<(), MuxError> {
    let mut left = MAX_LEFT;
    while left > 0 {
        match rustix::io::read(source.get_ref().as_fd(), &mut *buffer) {
            Ok(0) => break,
            Ok(len) => {
                send(writer, channel, buffer, len).await?;
                left = left.saturating_sub(len);
            }
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

async fn send(writer: &StreamWriter, channel: u8, buffer: &[u8], len: usize) -> Result<(), MuxError> {
    writer.data(channel, Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default())).await
}
