//! The traits that every way to the network has in common.

use std::{fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use tokio::io::DuplexStream;

use crate::{Counters, Egress, Endpoint, GuestNetwork, NetError, Nic};

/// How a job's VM reaches the network.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync {
    /// The name in the configuration.
    fn name(&self) -> &'static str;

    /// What it lets a job reach, for `tart doctor`.
    fn describe(&self) -> String;

    /// Prepares the network of one machine.
    ///
    /// # Errors
    /// [`NetError`] if the request cannot be met; nothing is left behind then.
    async fn attach(&self, request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError> {
        self.reserve(&request.id).await?.attach(request).await
    }

    /// Makes what a machine starts with, before it is known what it may reach: as yet, that is nothing. `id` is the
    /// machine's name, for logs.
    ///
    /// # Errors
    /// [`NetError`]; nothing is left behind then.
    async fn reserve(&self, id: &str) -> Result<Box<dyn Reservation>, NetError>;
}

/// The network of a machine that is for no job yet. Dropping it takes it down.
#[async_trait]
pub trait Reservation: fmt::Debug + Send + Sync {
    /// The network device, if machines have one.
    fn nic(&self) -> Option<&Nic>;

    /// Gives the machine what a job may reach.
    ///
    /// # Errors
    /// [`NetError`] if the request cannot be met; the machine is of no use then.
    async fn attach(self: Box<Self>, request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError>;
}

/// What one machine is to reach.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    /// Name of the machine, for logs.
    pub id: String,
    /// What a network without internet access lets the job reach nevertheless.
    pub allowed: Vec<Allowed>,
    /// The administrator's entries of `/etc/hosts`; an allowed endpoint of such a name is dialled there.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Name servers; the host's if empty.
    pub nameservers: Vec<IpAddr>,
    /// Search domains.
    pub search_domains: Vec<String>,
    /// What it may reach. A network that cannot enforce it refuses to attach.
    pub egress: Egress,
    /// The most bytes that its network device carries in a second, each way.
    pub bandwidth: Option<u64>,
}

/// What one machine did with its network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections and bytes.
    pub counters: Counters,
    /// Where the bytes went to and came from, most bytes first. Not all: only so many are remembered, and what is no
    /// TCP or UDP is in none.
    pub carried: Vec<Carried>,
    /// Where the policy let it not go, the most frequent first. Not all: only so many are remembered.
    pub denied: Vec<Denied>,
    /// Frames whose addresses were not the guest's own.
    pub forged: u64,
}

/// What passed between a machine and one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// `address:port/protocol`, or `host:port` where that is what was dialled.
    pub destination: String,
    /// The name by which the guest found the address, if it did: of the guest's choice, but printable.
    pub name: Option<String>,
    /// Bytes from the guest.
    pub bytes_up: u64,
    /// Bytes to the guest.
    pub bytes_down: u64,
}

impl Carried {
    /// Bytes both ways.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_up.saturating_add(self.bytes_down)
    }
}

/// A destination that the policy does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// `address:port/protocol`, or a name that was not looked up: of the guest's choice, but printable.
    pub destination: String,
    /// Packets or queries that were not let through; about one for each try.
    pub packets: u64,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.destination)
    }
}

/// Something the guest may connect to.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// What the guest's programs connect to.
    pub endpoint: Endpoint,
    /// What they get.
    pub target: Target,
}

impl Allowed {
    /// The endpoint itself.
    #[must_use]
    pub fn direct(endpoint: Endpoint) -> Self {
        Self { target: Target::Tcp(endpoint.clone()), endpoint }
    }

    /// A service of this process under an endpoint's name.
    #[must_use]
    pub fn service(endpoint: Endpoint, service: Arc<dyn StreamService>) -> Self {
        Self { endpoint, target: Target::Service(service) }
    }
}

/// What is at the host's end of a relayed connection.
#[derive(Clone)]
pub enum Target {
    /// This endpoint, dialled by the host.
    Tcp(Endpoint),
    /// A service of this process.
    Service(Arc<dyn StreamService>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => write!(f, "Tcp({endpoint})"),
            Self::Service(_) => f.write_str("Service"),
        }
    }
}

/// A service that a guest reaches without any socket of the host.
#[async_trait]
pub trait StreamService: Send + Sync {
    /// Serves one connection until its end; it may be dropped at any await. The peer is a hostile guest.
    async fn serve(&self, connection: DuplexStream);
}

/// The network of one machine. Dropping it takes everything of it down; [`Attachment::detach`] also waits for that.
#[async_trait]
pub trait Attachment: fmt::Debug + Send + Sync {
    /// What the guest is to set up.
    fn guest(&self) -> &GuestNetwork;

    /// What serves the connections that the guest's agent forwards.
    fn relay(&self) -> Arc<dyn RelayTargets>;

    /// What passed so far, and what did not.
    async fn usage(&self) -> Usage;

    /// Ends all connections and removes what was made for the machine.
    async fn detach(self: Box<Self>);
}

/// The host's end of forwarded connections.
#[async_trait]
pub trait RelayTargets: fmt::Debug + Send + Sync {
    /// Serves one connection of the guest until both ways ended, it broke, or the attachment is gone. `forward` comes
    /// from the guest: an unknown one is reset.
    async fn serve(&self, forward: u32, stream: tart_proto::Stream);
}
