//! The root helper's side of guests' networks: it makes them for a runner without privileges.

mod lent;

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use rustix::fs::{MemfdFlags, memfd_create};
use tart_proto::time::scaled;
use tart_root_helper::{Answer, Connection, HelperError};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    NAME,
    admit::Admission,
    host::Host,
    pool::Pool,
    request::{Described, Given, Request},
    space::Space,
    system,
};
use crate::{NetError, NicLink};
use lent::{Lent, Loans};

/// Requests that are carried out at once; each runs a program or a few.
const MAX_AT_WORK: usize = 16;

/// How long a runner that has all its networks may take to say what it wants.
const FULL_LIMIT: Duration = Duration::from_secs(10);

/// How a [`NetworkServer`] works.
#[derive(Debug, Clone)]
pub struct NetworkServerOptions {
    /// The network namespace that is the host, such as those of `ip netns`; without it, that of this process.
    pub namespace: Option<PathBuf>,
    /// Namespaces that are kept ready for guests to come.
    pub ready: usize,
    /// Guests at most. Each takes four or five descriptors of this process.
    pub most: usize,
}

impl Default for NetworkServerOptions {
    fn default() -> Self {
        Self { namespace: None, ready: 2, most: 512 }
    }
}

/// Makes networks of guests for the runner at the other end of connections: [`serve_network`].
#[derive(Debug)]
pub struct NetworkServer {
    taps: Pool,
    /// The same for monitors that open the device by name.
    named_taps: Pool,
    most: usize,
    guests: Semaphore,
    at_work: Semaphore,
    loans: Loans,
}

impl NetworkServer {
    /// Prepares the host: its rules for guests, and a first namespace, which proves that it can be done.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub async fn start(options: NetworkServerOptions) -> Result<Self, NetError> {
        let NetworkServerOptions { namespace, ready, most } = options;
        if let Some(capability) = system::missing_capability() {
            let what = format!("be made by a helper without {capability}: run `tart root-helper` as root");
            return Err(NetError::Unable { network: NAME, what });
        }
        let host = Host::find(namespace).await?;
        let taps = Pool::new(host.clone(), false, ready);
        taps.prove().await?;
        let (guests, at_work) = (Semaphore::new(most), Semaphore::new(MAX_AT_WORK));
        let named_taps = Pool::new(host, true, ready);
        Ok(Self { taps, named_taps, most, guests, at_work, loans: Loans::default() })
    }

    /// Whether a descriptor is the namespace of a guest that is connected, in which a monitor opens its tap device.
    #[must_use]
    pub fn has_lent(&self, namespace: BorrowedFd<'_>) -> bool {
        self.loans.has(namespace)
    }

    fn describe(&self) -> Result<Described, NetError> {
        let host = self.taps.host();
        let key = host.namespace.key();
        let namespace = key.map_err(|e| NetError::system("identify the host's network", e))?;
        Ok(Described { namespace, facts: (*host.facts).clone() })
    }
}

/// Serves a connection about the network of one guest, after its first message, until it closes. Then that network is
/// removed, as it is when the future is dropped.
pub async fn serve_network(connection: Connection, server: &NetworkServer) {
    let Ok(_place) = server.guests.try_acquire() else {
        let full = format!("guests have all {} networks that it makes", server.most);
        // Closing a connection with an unread request would take the answer away.
        let asked = timeout(scaled(FULL_LIMIT), connection.receive::<Request>()).await;
        if matches!(asked, Ok(Ok(_))) {
            let _gone = answer(&connection, Err(full)).await;
        }
        return;
    };
    let mut guest = Guest { server, admission: Admission::default(), space: None, lent: None };
    loop {
        let request = match connection.receive::<Request>().await {
            // No request comes with descriptors.
            Ok((request, _unwanted)) => request,
            Err(HelperError::Closed) => break,
            Err(error) => {
                let _gone = answer(&connection, Err(error.to_string())).await;
                break;
            }
        };
        let removes = request == Request::Remove;
        let outcome = guest.carry_out(request).await;
        let removed = removes && outcome.is_ok();
        if answer(&connection, outcome).await.is_err() || removed {
            break;
        }
    }
    drop(guest.lent);
    if let Some(space) = guest.space {
        space.remove().await;
    }
}

/// What a request gave, and the descriptors that come with it.
type Outcome = Result<(Given, Vec<OwnedFd>), String>;

async fn answer(connection: &Connection, result: Outcome) -> Result<(), HelperError> {
    let (answer, descriptors) = match result {
        Ok((given, descriptors)) => (Answer::Ok(given), descriptors),
        Err(error) => {
            tracing::debug!(%error, "a request about a guest's network is not carried out");
            (Answer::Err(error), Vec::new())
        }
    };
    let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    match connection.send(&answer, &borrowed).await {
        Err(error @ HelperError::TooLarge) => {
            connection.send(&Answer::<Given>::Err(error.to_string()), &[]).await
        }
        sent => sent,
    }
}

/// The guest that a connection is about.
struct Guest<'a> {
    server: &'a NetworkServer,
    admission: Admission,
    /// Before the namespace, whose number may be another's afterwards.
    lent: Option<Lent<'a>>,
    space: Option<Space>,
}

impl Guest<'_> {
    async fn carry_out(&mut self, request: Request) -> Outcome {
        self.admission.admit(&request, Instant::now()).map_err(|refusal| refusal.to_string())?;
        let _turn = self.server.at_work.acquire().await;
        self.work(request).await.map_err(|error| error.explained())
    }

    async fn work(&mut self, request: Request) -> Result<(Given, Vec<OwnedFd>), NetError> {
        let mut descriptors = Vec::new();
        match (request, &self.space) {
            (Request::Describe, _) => return Ok((Given::Host(self.server.describe()?), descriptors)),
            (Request::Create { named_tap }, _) => {
                let pool = if named_tap { &self.server.named_taps } else { &self.server.taps };
                let space = self.space.insert(pool.take().await?);
                let dns = space.take_dns()?;
                let device = space.link.descriptor().try_clone();
                let failed = |e| NetError::system("pass a guest's network device on", e);
                let device = device.map_err(failed)?;
                if matches!(space.link, NicLink::Device { .. }) {
                    self.lent = Some(self.server.loans.lend(&device).map_err(failed)?);
                }
                descriptors.extend([dns.udp.into(), dns.tcp.into(), device]);
                return Ok((Given::Host(self.server.describe()?), descriptors));
            }
            (Request::Rule(policy), Some(space)) => space.hand.rule(policy).await?,
            (Request::Shape { bytes }, Some(space)) => space.hand.shape(bytes).await?,
            (Request::Hold(elements), Some(space)) => space.hand.hold(elements).await?,
            (Request::Counts, Some(space)) => descriptors.push(file_of(&space.hand.list().await?)?),
            (Request::Remove, Some(_)) => {
                self.lent = None;
                if let Some(space) = self.space.take() {
                    space.remove().await;
                }
            }
            (_, None) => {
                let what = "be changed for this guest: it could not be made".to_owned();
                return Err(NetError::Unable { network: NAME, what });
            }
        }
        Ok((Given::Done, descriptors))
    }
}

/// A file in memory that has a text, read from its beginning.
fn file_of(text: &str) -> Result<OwnedFd, NetError> {
    let make = || {
        let mut file = File::from(memfd_create("tart-counts", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file.into())
    };
    make().map_err(|e: std::io::Error| NetError::system("pass on what a guest's network counted", e))
}
