//! The byte stream to the host.

pub mod virtio_serial;
pub mod vsock;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tart_proto::{Mux, MuxError, Role, mux};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    boot::cmdline::{Choice, Options},
    console,
    machine::Machine,
    session::{self, End},
    uevent,
};

/// How long the kernel may take to show the port of a virtio-serial device.
const PORT_LIMIT: Duration = Duration::from_secs(5);

/// How long the port may take if it is not known that there is one. Its driver has found it before PID 1 starts,
/// or when its module was loaded, so this only covers the port's name on its way.
const MAYBE_PORT_LIMIT: Duration = Duration::from_millis(500);

/// Serves sessions on the transport that the kernel's command line or the devices call for, until the host asks for
/// a shutdown.
///
/// # Errors
/// If there is no transport: then nobody can ever reach the agent.
pub async fn run(machine: &Arc<Machine>) -> io::Result<()> {
    let port = match Options::read().transport() {
        Some(Choice::VirtioSerial) => Some(find_port(PORT_LIMIT).await?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the guest has no virtio-serial port for the agent")
        })?),
        Some(Choice::Vsock) => None,
        None => find_port(if virtio_serial::has_device() { PORT_LIMIT } else { MAYBE_PORT_LIMIT }).await?,
    };
    match port {
        Some(path) => virtio_serial::run(machine, &path).await,
        None => vsock::run(machine).await,
    }
}

async fn find_port(limit: Duration) -> io::Result<Option<PathBuf>> {
    uevent::wait_for(limit, virtio_serial::find).await
}

/// Serves one session after the other on a connected stream: a preamble in the middle of a session starts the next,
/// after the commands of the last were killed. `halves` gives the two directions of the stream anew for each.
/// True if the host asked for the machine to be reset.
pub async fn converse<R, W>(machine: &Arc<Machine>, halves: impl Fn() -> io::Result<(R, W)>) -> bool
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let mut preamble = None;
    loop {
        let (mut reader, mut writer) = match halves() {
            Ok(halves) => halves,
            Err(error) => {
                console::say(format_args!("cannot use the connection: {error}"));
                return false;
            }
        };
        let shaken = match preamble.take() {
            Some(preamble) => mux::answer(&mut writer, &preamble).await,
            None => mux::handshake_guest(&mut reader, &mut writer).await,
        };
        let decoder = match shaken {
            Ok(decoder) => decoder,
            Err(error) => {
                console::say(format_args!("handshake: {error}"));
                return false;
            }
        };
        let (mux, incoming) = Mux::start(reader, writer, Role::Guest, decoder);
        match session::serve(machine, mux, incoming).await {
            End::Shutdown => return true,
            End::Connection(MuxError::NewSession(next)) => preamble = Some(next),
            End::Connection(error) => {
                console::say(format_args!("session: {error}"));
                return false;
            }
        }
    }
}
