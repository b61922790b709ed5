//! Vsock: connections with the host alone.
//!
//! The agent connects out once, so that the host learns that it is up without asking. It also listens: a snapshot
//! cuts every connection, and the host comes back by connecting in. The newest connection is the session.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::SendFlags;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tart_proto::time::scaled;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use crate::{console, machine::Machine, readiness};

/// Port of the agent, and the one on the host that it reports to.
const PORT: u32 = 1024;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4;

/// How long the host may take to answer the first connection; one that only connects in answers with a reset.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// Pause after a failed accept.
const RETRY: Duration = Duration::from_millis(100);

/// Serves sessions until the host asks for a shutdown.
///
/// # Errors
/// If the guest's kernel or its machine has no vsock.
pub async fn run(machine: &Arc<Machine>) -> io::Result<()> {
    console::never_wait();
    let listener = socket()?;
    listener.bind(&SockAddr::vsock(libc::VMADDR_CID_ANY, PORT))?;
    listener.listen(BACKLOG)?;
    let listener = readiness::watch(listener)?;
    let mut connection = match tokio::time::timeout(scaled(REPORT_LIMIT), connect()).await {
        Ok(Ok(connection)) => Some(connection),
        // Whoever has no use for the report connects in.
        Ok(Err(_)) | Err(_) => None,
    };
    loop {
        let current = match connection.take() {
            Some(connection) => connection,
            None => accept(&listener).await,
        };
        let halves = || Ok((current.clone(), current.clone()));
        tokio::select! {
            reset = super::converse(machine, halves) => if reset {
                return Ok(());
            },
            // After a snapshot the old connection may not know yet that it is dead.
            newer = accept(&listener) => {
                machine.cgroups.kill_all();
                connection = Some(newer);
            }
        }
    }
}

fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::VSOCK, Type::STREAM, None).map_err(|error| {
        // A kernel of the administrator's own, most likely.
        let missing = error.raw_os_error() == Some(libc::EAFNOSUPPORT);
        let reason =
            "the guest's kernel has no vsock: it needs CONFIG_VIRTIO_VSOCKETS, built in or with its modules";
        if missing { io::Error::new(io::ErrorKind::Unsupported, reason) } else { error }
    })?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn connect() -> io::Result<Connection> {
    let socket = socket()?;
    match socket.connect(&SockAddr::vsock(libc::VMADDR_CID_HOST, PORT)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let connection = Connection(Arc::new(readiness::watch(socket)?));
    connection.0.writable().await?.retain_ready();
    match SockRef::from(connection.0.get_ref()).take_error()? {
        None => Ok(connection),
        Some(error) => Err(error),
    }
}

/// The next connection from the host.
async fn accept(listener: &AsyncFd<OwnedFd>) -> Connection {
    loop {
        match try_accept(listener).await {
            // Processes of the guest can reach the port too, over the loopback of vsock.
            Ok((socket, Some((libc::VMADDR_CID_HOST, _)))) => match readiness::watch(socket) {
                Ok(socket) => return Connection(Arc::new(socket)),
                Err(error) => console::say(format_args!("vsock: {error}")),
            },
            Ok((_, peer)) => console::say(format_args!("vsock: refused a connection from {peer:?}")),
            Err(error) => {
                console::say(format_args!("vsock: {error}"));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_accept(listener: &AsyncFd<OwnedFd>) -> io::Result<(Socket, Option<(u32, u32)>)> {
    loop {
        let mut ready = listener.readable().await?;
        if let Ok(accepted) = ready.try_io(|listener| SockRef::from(listener.get_ref()).accept()) {
            let (socket, address) = accepted?;
            socket.set_nonblocking(true)?;
            return Ok((socket, address.as_vsock_address()));
        }
    }
}

/// A connection; both halves are clones of it.
#[derive(Debug, Clone)]
struct Connection(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(read) =
                ready.try_io(|socket| Ok(rustix::io::read(socket.get_ref(), buf.initialize_unfilled())?))
            {
                buf.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) =
                ready.try_io(|socket| Ok(rustix::net::send(socket.get_ref(), buf, SendFlags::NOSIGNAL)?))
            {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.0.get_ref()).shutdown(std::net::Shutdown::Write))
    }
}
