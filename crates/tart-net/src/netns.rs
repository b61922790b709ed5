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
mod busy;
mod counts;
mod dns;
mod host;
mod routes;
mod rules;
mod space;
mod system;

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use busy::Busy;
use dns::{Forwarder, Names, Serving};
use host::{Host, HostOptions};
use space::Space;
use system::Namespace;

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
}

impl Default for NetnsOptions {
    fn default() -> Self {
        Self { namespace: None, ready: 2, named_taps: false }
    }
}

/// A network device in a namespace of each guest's own. The guest reaches what its policy allows and nothing
/// of the host or of other guests.
#[derive(Debug)]
pub struct NetnsNetwork {
    shared: Arc<Shared>,
    busy: Busy,
}

#[derive(Debug)]
struct Shared {
    /// Dropped before the host, which they are links of.
    ready: Mutex<Ready>,
    host: Arc<Host>,
}

/// Namespaces for guests to come.
#[derive(Debug)]
struct Ready {
    spaces: Vec<Space>,
    wanted: usize,
    /// A thread makes more.
    filling: bool,
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes as many namespaces as are wanted.
    fn fill(&self) {
        loop {
            let mut ready = self.ready();
            if ready.spaces.len() >= ready.wanted {
                ready.filling = false;
                return;
            }
            drop(ready);
            match Space::create_here(self.host.clone()) {
                Ok(space) => self.ready().spaces.push(space),
                Err(error) => {
                    tracing::warn!(%error, "cannot prepare a network for the next guest");
                    self.ready().filling = false;
                    return;
                }
            }
        }
    }
}

impl NetnsNetwork {
    /// Prepares the host: its rules for guests, and a first namespace, which proves that it can be done.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub async fn start(options: NetnsOptions) -> Result<Self, NetError> {
        if let Some(capability) = system::missing_capability() {
            let what = format!("be used without {capability}: run Tart as root, or use `mode = \"passt\"`");
            return Err(NetError::Unable { network: NAME, what });
        }
        let wanted = options.ready;
        let prepare = system::on_thread((), move || {
            let namespace = match &options.namespace {
                None => Namespace::own(),
                Some(path) => Namespace::open(path),
            };
            let namespace =
                namespace.map_err(|e| NetError::system("open the host's network namespace", e))?;
            let options = HostOptions { named_taps: options.named_taps, ..HostOptions::of(&namespace)? };
            Host::prepare(namespace, options)
        });
        let host = Arc::new(prepare.await?);
        let first = Space::create(host.clone()).await?;
        let busy = host.busy.clone();
        let ready = Ready { spaces: vec![first], wanted, filling: false };
        Ok(Self { shared: Arc::new(Shared { ready: Mutex::new(ready), host }), busy })
    }

    /// A namespace that no guest has used.
    async fn take(&self) -> Result<Space, NetError> {
        let ready = self.shared.ready().spaces.pop();
        let space = match ready {
            Some(space) => space,
            None => Space::create(self.shared.host.clone()).await?,
        };
        self.refill()?;
        Ok(space)
    }

    /// Makes namespaces for the next guests, on a thread.
    fn refill(&self) -> Result<(), NetError> {
        let mut ready = self.shared.ready();
        if ready.filling {
            return Ok(());
        }
        let (shared, at_work) = (self.shared.clone(), self.busy.begin());
        system::spawn(move || {
            shared.fill();
            drop(shared);
            drop(at_work);
        })?;
        ready.filling = true;
        Ok(())
    }
}

impl Drop for NetnsNetwork {
    fn drop(&mut self) {
        // A thread that the process's end cut short could not undo what was done to the host.
        self.shared.ready().wanted = 0;
        self.busy.wait();
    }
}

#[async_trait]
impl Network for NetnsNetwork {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> String {
        let facts = &self.shared.host.facts;
        let firewall = facts.firewall.as_ref().map_or_else(String::new, |chain| {
            format!("; this host's chain `{chain}` drops what no rule of it accepts: let devices `tart-*` pass there")
        });
        let families =
            if facts.ipv6 { "IPv4 and IPv6" } else { "IPv4 (not IPv6, which this host does not route)" };
        format!(
            "netns: jobs reach public addresses by {families} and what the configuration allows; neither this host, \
             its networks nor each other{firewall}"
        )
    }

    async fn reserve(&self, _id: &str) -> Result<Box<dyn Reservation>, NetError> {
        let space = self.take().await?;
        let nic = Nic { mac: GUEST_MAC.to_owned(), link: space.link.clone() };
        Ok(Box::new(NetnsReservation { host: self.shared.host.clone(), nic, space }))
    }
}

/// A namespace whose guest has no address yet, so that whatever it sends is dropped as forged.
#[derive(Debug)]
struct NetnsReservation {
    host: Arc<Host>,
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
        let Self { host, nic, mut space } = *self;
        let egress = &request.egress;
        let mut relayed = Vec::new();
        for allowed in &request.allowed {
            if !egress.is_default() || needs_relay(&host, allowed).await {
                relayed.push(allowed.clone());
            }
        }
        let plan = plan::plan(&relayed, &request.extra_hosts)?;
        let mut relay = RelayAttachment::new(&request.id, plan, RelayOptions::default());

        if !egress.is_default() {
            space.rule(egress).await?;
        }
        if let Some(bytes) = request.bandwidth {
            space.shape(bytes).await?;
        }
        let servers = nameservers(&request.nameservers);
        let sockets = space.take_dns()?;
        let dns =
            Forwarder::start(sockets, Names::new(egress), servers, host.clone(), space.namespace.clone())?;

        let network = relay.guest_mut();
        let mut interface = Interface {
            mac: GUEST_MAC.to_owned(),
            addresses: vec![format!("{GUEST}/{GUEST_PREFIX}")],
            gateways: vec![GATEWAY.to_string()],
            mtu: Some(host.facts.mtu),
        };
        if host.facts.ipv6 {
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
async fn needs_relay(host: &Host, allowed: &Allowed) -> bool {
    let endpoint = match &allowed.target {
        Target::Service(_) => return true,
        Target::Tcp(endpoint) if endpoint.is_loopback() || *endpoint != allowed.endpoint => return true,
        // A firewall that may drop what guests send must not keep jobs from their server.
        Target::Tcp(_) if host.facts.firewall.is_some() => return true,
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
        .filter(|ip| ip.is_ipv4() && host.facts.connected.leaves(*ip))
        .collect();
    // An address that can be bound is the host's own.
    let own = move || Ok(public.is_empty() || public.iter().any(|ip| UdpSocket::bind((*ip, 0)).is_ok()));
    let own = host.namespace.run(own);
    own.await.unwrap_or(true)
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
        match self.space.counts().await {
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
