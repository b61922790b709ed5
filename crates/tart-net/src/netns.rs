//! A network namespace for every guest.
//!
//! ```text
//! guest 192.0.0.2 -- tap0 192.0.0.1 | namespace: rules, DNS, NAT | wan -- /31 -- tart-N | host: rules, NAT -- uplink
//! ```
//!
//! All guests have the same addresses. What a guest may reach is decided by the rules of its own namespace, before the
//! host's routing sees a packet; the host's rules only keep guests from the host and from each other, and do not
//! change with guests.

mod address;
mod admit;
mod busy;
mod counts;
mod dns;
mod helped;
mod host;
mod pool;
mod request;
mod routes;
mod rules;
mod serve;
mod space;
mod system;

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tart_proto::message::Interface;
use tokio::{net::lookup_host, time::timeout};

use crate::{
    Allowed, AttachRequest, Attachment, Carried, GuestNetwork, NetError, Network, Nic, RelayOptions,
    RelayTargets, Reservation, Target, Usage, plan, relay::RelayAttachment,
};
use address::{GATEWAY, GATEWAY6, GUEST, GUEST_MAC, GUEST_PREFIX, GUEST_PREFIX6, GUEST6};
use dns::{Forwarder, Names, Serving};
use helped::Helper;
use host::{Facts, Host};
use pool::Pool;
use rules::Policy;
pub use serve::{NetworkServer, NetworkServerOptions, serve_network};
use space::Space;
use system::{HostSide, Namespace};

pub(crate) const NAME: &str = "netns";

/// How long the host's resolver may take for a name.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// Where a [`NetnsNetwork`] works, and how far ahead.
#[derive(Debug, Clone)]
pub struct NetnsOptions {
    /// The network namespace that is the host, such as those of `ip netns`; without it, that of this process.
    pub namespace: Option<PathBuf>,
    /// Namespaces that are kept ready for guests to come.
    pub ready: usize,
    /// Monitors are given the names of tap devices instead of open ones.
    pub named_taps: bool,
    /// Where a root helper listens that makes the namespaces, for a process without the rights to. The helper keeps
    /// some ready then.
    pub helper: Option<PathBuf>,
}

impl Default for NetnsOptions {
    fn default() -> Self {
        Self { namespace: None, ready: 2, named_taps: false, helper: None }
    }
}

/// A network device in a namespace of each guest's own. The guest reaches what its policy allows and nothing
/// of the host or of other guests.
#[derive(Debug)]
pub struct NetnsNetwork {
    maker: Maker,
    side: HostSide,
    facts: Arc<Facts>,
}

/// Who makes namespaces.
#[derive(Debug)]
enum Maker {
    Own(Pool),
    Helper(Helper),
}

impl NetnsNetwork {
    /// Prepares the host: its rules for guests, and a first namespace, which proves that it can be done. With a helper,
    /// that has done so.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub async fn start(options: NetnsOptions) -> Result<Self, NetError> {
        let NetnsOptions { namespace, ready, named_taps, helper } = options;
        if let Some(socket) = helper {
            let side = match namespace {
                None => HostSide::Here,
                Some(path) => HostSide::In(
                    Namespace::open(&path)
                        .map_err(|e| NetError::system("open the host's network namespace", e))?,
                ),
            };
            let helper = Helper { socket, named_taps, side: side.clone() };
            let facts = Arc::new(helper.describe().await?.facts);
            return Ok(Self { maker: Maker::Helper(helper), side, facts });
        }
        if let Some(capability) = system::missing_capability() {
            let what = format!(
                "be used without {capability}: run Tart as root, or `tart root-helper` beside it, or use \
                 `mode = \"passt\"`"
            );
            return Err(NetError::Unable { network: NAME, what });
        }
        let host = Host::find(namespace).await?;
        let (side, facts) = (HostSide::In(host.namespace.clone()), host.facts.clone());
        let pool = Pool::new(host, named_taps, ready);
        pool.prove().await?;
        Ok(Self { maker: Maker::Own(pool), side, facts })
    }
}

#[async_trait]
impl Network for NetnsNetwork {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> String {
        let facts = &self.facts;
        let firewall = facts.firewall.as_ref().map_or_else(String::new, |chain| {
            format!("; this host's chain `{chain}` drops what no rule of it accepts: let devices `tart-*` pass there")
        });
        let families =
            if facts.ipv6 { "IPv4 and IPv6" } else { "IPv4 (not IPv6, which this host does not route)" };
        let helped = if matches!(self.maker, Maker::Helper(_)) { " (by the root helper)" } else { "" };
        format!(
            "netns{helped}: jobs reach public addresses by {families} and what the configuration allows; neither this \
             host, its networks nor each other{firewall}"
        )
    }

    async fn reserve(&self, _id: &str) -> Result<Box<dyn Reservation>, NetError> {
        let space = match &self.maker {
            Maker::Own(pool) => pool.take().await?,
            Maker::Helper(helper) => helper.create().await?,
        };
        let nic = Nic { mac: GUEST_MAC.to_owned(), link: space.link.clone() };
        Ok(Box::new(NetnsReservation { side: self.side.clone(), nic, space }))
    }
}

/// A namespace whose guest has no address yet, so that whatever it sends is dropped as forged.
#[derive(Debug)]
struct NetnsReservation {
    side: HostSide,
    /// Dropped before the namespace that it is of.
    nic: Nic,
    space: Space,
}

#[async_trait]
impl Reservation for NetnsReservation {
    fn nic(&self) -> Option<&Nic> {
        Some(&self.nic)
    }

    async fn attach(self: Box<Self>, request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError> {
        let Self { side, nic, mut space } = *self;
        let facts = space.facts.clone();
        let egress = &request.egress;
        let mut relayed = Vec::new();
        for allowed in &request.allowed {
            if !egress.is_default() || needs_relay(&side, &facts, allowed).await {
                relayed.push(allowed.clone());
            }
        }
        let plan = plan::plan(&relayed, &request.extra_hosts)?;
        let mut relay = RelayAttachment::new(&request.id, plan, RelayOptions::default());

        if !egress.is_default() {
            space.hand.rule(Policy::from(egress)).await?;
        }
        if let Some(bytes) = request.bandwidth {
            space.hand.shape(bytes).await?;
        }
        let servers = nameservers(&request.nameservers);
        let sockets = space.take_dns()?;
        let dns = Forwarder::start(sockets, Names::new(egress), servers, side, space.hand.clone())?;

        let network = relay.guest_mut();
        let mut interface = Interface {
            mac: GUEST_MAC.to_owned(),
            addresses: vec![format!("{GUEST}/{GUEST_PREFIX}")],
            gateways: vec![GATEWAY.to_string()],
            mtu: Some(facts.mtu),
        };
        if facts.ipv6 {
            interface.addresses.push(format!("{GUEST6}/{GUEST_PREFIX6}"));
            interface.gateways.push(GATEWAY6.to_string());
        }
        network.interfaces.push(interface);
        network.nameservers = vec![GATEWAY.to_string()];
        network.search_domains.clone_from(&request.search_domains);
        network.nic = Some(nic);
        Ok(Box::new(NetnsAttachment { relay, dns, space }))
    }
}

/// Whether an endpoint is one that guests do not reach as such: a service of Tart, on the host, or in a private
/// network.
async fn needs_relay(side: &HostSide, facts: &Facts, allowed: &Allowed) -> bool {
    let endpoint = match &allowed.target {
        Target::Service(_) => return true,
        Target::Tcp(endpoint) if endpoint.is_loopback() || *endpoint != allowed.endpoint => return true,
        // A firewall that may drop what guests send must not keep jobs from their server.
        Target::Tcp(_) if facts.firewall.is_some() => return true,
        Target::Tcp(endpoint) => endpoint,
    };
    let Ok(Ok(addresses)) = timeout(RESOLVE_LIMIT, lookup_host((endpoint.host(), endpoint.port()))).await
    else {
        // The host will say what is wrong with the name.
        return true;
    };
    // IPv4 is what every guest has.
    let public: Vec<IpAddr> = addresses
        .map(|address| address.ip())
        .filter(|ip| ip.is_ipv4() && facts.connected.leaves(*ip))
        .collect();
    // An address that can be bound is the host's own.
    let own = move || Ok(public.is_empty() || public.iter().any(|ip| UdpSocket::bind((*ip, 0)).is_ok()));
    side.run(own).await.unwrap_or(true)
}

/// The name servers of this host, if no others are asked for.
fn nameservers(wished: &[IpAddr]) -> Vec<IpAddr> {
    if wished.is_empty() {
        dns::nameservers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    } else {
        wished.to_vec()
    }
}

/// A machine's namespace.
#[derive(Debug)]
struct NetnsAttachment {
    relay: RelayAttachment,
    dns: Serving,
    space: Space,
}

#[async_trait]
impl Attachment for NetnsAttachment {
    fn guest(&self) -> &GuestNetwork {
        self.relay.guest()
    }

    fn relay(&self) -> Arc<dyn RelayTargets> {
        self.relay.relay()
    }

    async fn usage(&self) -> Usage {
        let mut usage = self.relay.usage().await;
        match self.space.hand.counts().await {
            Ok(counts) => {
                usage.counters.connections += counts.connections;
                usage.counters.refused += counts.denied;
                usage.counters.bytes_up += counts.bytes_up;
                usage.counters.bytes_down += counts.bytes_down;
                (usage.denied, usage.forged) = (counts.denied_to, counts.forged);
                let carried = counts.carried.into_iter().map(|((address, destination), (up, down))| {
                    Carried { destination, name: self.dns.name_of(address), bytes_up: up, bytes_down: down }
                });
                usage.carried.extend(carried);
            }
            Err(error) => tracing::warn!(%error, "cannot read what a guest's network counted"),
        }
        usage.carried.sort_by(|a, b| b.bytes().cmp(&a.bytes()).then(a.destination.cmp(&b.destination)));
        usage.denied.extend(self.dns.refused());
        usage.denied.sort_by(|a, b| b.packets.cmp(&a.packets).then(a.destination.cmp(&b.destination)));
        usage
    }

    async fn detach(self: Box<Self>) {
        let Self { mut relay, mut dns, space } = *self;
        dns.shutdown().await;
        // The last holder of the device must be the namespace's own.
        relay.guest_mut().nic = None;
        Box::new(relay).detach().await;
        space.remove().await;
    }
}

#[cfg(all(test, feature = "slow-tests"))]
mod tests;
