//! `tart root-helper`: what only root can do, for a runner that is not root.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::IgnoredAny;
use tart_images::chain;
use tart_net::{NetError, NetworkServer, NetworkServerOptions, serve_network};
use tart_root_helper::{Answer, Connection, HelperError, Listener, Open, Peer};
use tart_vmm::{
    Isolation, IsolationOptions, JailServer, JailServerOptions, MonitorServer, VmmError, serve_jail,
    serve_monitor,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a connection may take to say what it is about.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Namespaces that are kept ready.
const READY: usize = 2;

/// Connections at a time beyond those of guests, such as those that are turned away.
const MORE_CONNECTIONS: usize = 64;

pub use tart_root_helper::DEFAULT_SOCKET;

/// Where jails of machines are made, if nobody says otherwise: on the file system of what guests boot from.
pub const DEFAULT_JAILS: &str = "/var/lib/tart/jails";

/// Where users of machines are locked, by all runners of a host.
pub const UID_LOCKS: &str = "/run/tart/uids";

/// Whom a root helper serves, and with what.
#[derive(Debug, Clone)]
pub struct RootHelperOptions {
    /// Where it listens.
    pub socket: PathBuf,
    /// The only user that may connect.
    pub user: u32,
    /// Users and cgroups of machines.
    pub isolation: IsolationOptions,
    /// The only QEMU that it starts, if it starts any.
    pub qemu: Option<PathBuf>,
    /// The only Firecracker, and its jails.
    pub jails: JailServerOptions,
    /// It is of no use without Firecracker.
    pub needs_firecracker: bool,
    /// The most guests at a time.
    pub guests: usize,
}

/// Why there is no root helper.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootHelperError {
    /// It cannot start monitors.
    #[error(transparent)]
    Machines(#[from] VmmError),
    /// It cannot make networks.
    #[error(transparent)]
    Network(#[from] NetError),
    /// It cannot listen.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Its socket.
        path: PathBuf,
        /// What is wrong.
        source: HelperError,
    },
}

struct Servers {
    monitors: MonitorServer,
    /// Or why there is none.
    jails: Result<JailServer, String>,
    networks: Arc<NetworkServer>,
}

/// Serves until `end`; then all machines and networks are taken down. `ready` is called when it listens.
///
/// # Errors
/// [`RootHelperError`], if it cannot do its work here.
pub async fn serve(
    options: RootHelperOptions,
    ready: impl FnOnce(),
    end: impl Future<Output = ()>,
) -> Result<(), RootHelperError> {
    if let Err(error) = raise_limit() {
        tracing::warn!(%error, "The limit of open files cannot be raised");
    }
    let unheard = |source| RootHelperError::Listen { path: options.socket.clone(), source };
    // Before anything else is made there, which nobody else may look at.
    open_directory(&options.socket).map_err(|error| unheard(error.into()))?;
    let isolation = Arc::new(Isolation::new(&options.isolation)?);
    let monitors = MonitorServer::new(isolation.clone(), options.qemu.into_iter().collect())?;
    let networks = NetworkServerOptions { namespace: None, ready: READY, most: options.guests };
    let networks = Arc::new(NetworkServer::start(networks).await?);
    let lender = networks.clone();
    let is_lent = Box::new(move |namespace: BorrowedFd<'_>| lender.has_lent(namespace));
    let jails = match JailServer::start(options.jails, isolation, is_lent).await {
        Ok(jails) => {
            tracing::info!(firecracker = jails.describe(), "Machines of Firecracker are jailed");
            Ok(jails)
        }
        Err(error) if options.needs_firecracker => return Err(error.into()),
        Err(error) => {
            let reason = chain(&error);
            tracing::info!(reason, "Firecracker is not started");
            Err(format!("it does not start Firecracker: {reason}"))
        }
    };
    let servers = Arc::new(Servers { monitors, jails, networks });
    let listener = Listener::bind(&options.socket, options.user).map_err(unheard)?;
    ready();
    // Every guest has a network and a monitor.
    let permits = Arc::new(Semaphore::new(options.guests.saturating_mul(2).saturating_add(MORE_CONNECTIONS)));
    let mut connections = JoinSet::new();
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            Some(_ended) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "A connection cannot be accepted");
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        let servers = servers.clone();
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = serve_one(&servers, connection, peer).await {
                tracing::debug!(%error, "A connection of the runner has ended");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
    Ok(())
}

async fn serve_one(servers: &Servers, connection: Connection, peer: Peer) -> Result<(), HelperError> {
    let opened = timeout(OPEN_LIMIT, connection.receive::<Open>()).await;
    let (open, _) = opened.map_err(|_| HelperError::Broken(io::ErrorKind::TimedOut.into()))??;
    match open {
        Open::Network => {
            serve_network(connection, &servers.networks).await;
            Ok(())
        }
        Open::Monitor => serve_monitor(&servers.monitors, &connection, peer).await,
        Open::Jail => match &servers.jails {
            Ok(jails) => serve_jail(jails, &connection, peer).await,
            Err(reason) => {
                // Closing a connection with an unread request would take the answer away.
                let _asked = timeout(OPEN_LIMIT, connection.receive::<IgnoredAny>()).await;
                connection.send(&Answer::<()>::Err(reason.clone()), &[]).await
            }
        },
    }
}

/// Makes the directory of the socket if it is missing, so that its user can get there.
fn open_directory(socket: &Path) -> io::Result<()> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o711).create(directory)?;
    if socket == Path::new(DEFAULT_SOCKET) {
        // A runner that is root has made it for itself.
        fs::set_permissions(directory, Permissions::from_mode(0o711))?;
    }
    Ok(())
}

/// Each guest takes some descriptors.
fn raise_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
