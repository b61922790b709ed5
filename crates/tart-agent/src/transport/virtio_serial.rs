//! A named virtio-serial port: one byte stream without connections.
//!
//! While no host is connected to its other end, the port reads as ended and polls as hung up. That is no final
//! state, so it cannot be left to tokio's readiness, which never forgets a hang-up: an `epoll` of our own watches
//! the port, and tokio watches the `epoll`.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, EventData, EventFlags},
    },
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use crate::{machine::Machine, readiness};

/// Name of the agent's port, as given to `virtserialport`.
const NAME: &str = "tart.agent";

const CLASS: &str = "/sys/class/virtio-ports";

/// Numbers of virtio's console and serial devices.
const DEVICE_ID: &str = "0x0003";

/// Serves sessions on a port until the host asks for a shutdown.
///
/// # Errors
/// If the port cannot be opened or watched.
pub async fn run(machine: &Arc<Machine>, path: &Path) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let port = Arc::new(rustix::fs::open(path, flags, Mode::empty())?);
    loop {
        Half::new(&port, EventFlags::OUT)?.connected().await?;
        let halves = || Ok((Half::new(&port, EventFlags::IN)?, Half::new(&port, EventFlags::OUT)?));
        if super::converse(machine, halves).await {
            return Ok(());
        }
    }
}

/// The device of the agent's port.
pub(super) fn find() -> io::Result<Option<PathBuf>> {
    let ports = match fs::read_dir(CLASS) {
        Ok(ports) => ports,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for port in ports {
        let port = port?;
        // A port gets its name a moment after its device.
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == NAME {
            return Ok(Some(Path::new("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}

/// Whether the guest has a virtio console or serial device at all.
pub(super) fn has_device() -> bool {
    fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten().any(|device| {
        fs::read_to_string(device.path().join("device")).is_ok_and(|id| id.trim_end() == DEVICE_ID)
    })
}

/// One direction of a port.
#[derive(Debug)]
struct Half {
    port: Arc<OwnedFd>,
    /// An `epoll` that watches the port, edge-triggered.
    changes: AsyncFd<OwnedFd>,
}

impl Half {
    fn new(port: &Arc<OwnedFd>, interest: EventFlags) -> io::Result<Self> {
        let changes = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&changes, port, EventData::new_u64(0), interest | EventFlags::ET)?;
        Ok(Self { port: port.clone(), changes: readiness::watch(changes)? })
    }

    /// Waits until the host has the port open.
    async fn connected(&self) -> io::Result<()> {
        while self.is_hung_up()? {
            std::future::poll_fn(|cx| self.poll_change(cx)).await?;
        }
        Ok(())
    }

    fn is_hung_up(&self) -> io::Result<bool> {
        let mut polled = [PollFd::new(&*self.port, PollFlags::OUT)];
        rustix::event::poll(&mut polled, Some(&NOW))?;
        Ok(polled.iter().any(|fd| fd.revents().contains(PollFlags::HUP)))
    }

    /// Ready when the port may have changed since the last time this was.
    fn poll_change(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.changes.poll_read_ready(cx))?;
            let mut seen = [MaybeUninit::uninit(); 1];
            let (seen, _) = epoll::wait(self.changes.get_ref(), &mut seen, Some(&NOW))?;
            if !seen.is_empty() {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }
}

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl AsyncRead for Half {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match rustix::io::read(&*self.port, buf.initialize_unfilled()) {
                Ok(len) => {
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => ready!(self.poll_change(cx))?,
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncWrite for Half {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match rustix::io::write(&*self.port, buf) {
                Ok(len) => return Poll::Ready(Ok(len)),
                // Also the kernel's answer while no host is connected.
                Err(Errno::AGAIN) if self.is_hung_up()? => return Poll::Ready(Err(Errno::PIPE.into())),
                Err(Errno::AGAIN) => ready!(self.poll_change(cx))?,
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
