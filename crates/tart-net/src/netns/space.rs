//! The namespace of one guest: made, ruled, counted, removed.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};

use super::{
    address::{
        GATEWAY, TAP, bandwidth_commands, inner_commands, inner_settings, outer_commands, outer_settings,
    },
    counts::{Counts, parse_counts},
    helped::Line,
    host::{Facts, Host, Slot},
    rules::{self, Element, Policy},
    system::{Namespace, ip, make_tap, nft, on_thread, open_tap, program, set},
};
use crate::{NetError, NicLink};

/// Port of DNS.
pub(super) const DNS_PORT: u16 = 53;

/// A guest's namespace, never used before. It has no name: it lives as long as what is held here, so of a runner that
/// is killed nothing stays. Fields are dropped in their order; the slot is given back last.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) hand: Hand,
    /// The guest's end of it.
    pub(super) link: NicLink,
    /// What the guest has to do with.
    pub(super) facts: Arc<Facts>,
    /// Sockets of the name server on the gateway's address; taken when it starts.
    dns: Option<DnsSockets>,
    /// If it is not the helper's.
    host_end: Option<HostEnd>,
}

/// The guest's name server listens here and nowhere else.
#[derive(Debug)]
pub(super) struct DnsSockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

/// What changes and reads the rules of a namespace.
#[derive(Debug, Clone)]
pub(super) enum Hand {
    /// This process.
    Own(Namespace),
    /// The helper.
    Helped(Arc<Line>),
}

impl Hand {
    /// Replaces the rules that every namespace begins with by those of a policy. Only once.
    pub(super) async fn rule(&self, policy: Policy) -> Result<(), NetError> {
        match self {
            Self::Own(namespace) => namespace.run(move || nft(&policy.script())).await,
            Self::Helped(line) => line.rule(policy).await,
        }
    }

    /// Bounds the bytes in a second. Only once.
    pub(super) async fn shape(&self, bytes: u64) -> Result<(), NetError> {
        match self {
            Self::Own(namespace) => {
                let shape = move || program("tc", &["-batch", "-"], &bandwidth_commands(bytes)).map(drop);
                namespace.run(shape).await
            }
            Self::Helped(line) => line.shape(bytes).await,
        }
    }

    /// Lets addresses of names through for a while.
    pub(super) async fn hold(&self, added: Vec<Element>) -> Result<(), NetError> {
        match self {
            Self::Own(namespace) => namespace.run(move || nft(&rules::elements(&added))).await,
            Self::Helped(line) => line.hold(&added).await,
        }
    }

    /// What passed and what did not.
    pub(super) async fn counts(&self) -> Result<Counts, NetError> {
        Ok(parse_counts(&self.list().await?))
    }

    /// The same in the words of `nft`.
    pub(super) async fn list(&self) -> Result<String, NetError> {
        match self {
            Self::Own(namespace) => {
                namespace.run(|| program("nft", &["--json", "list", "ruleset"], "")).await
            }
            Self::Helped(line) => line.list().await,
        }
    }
}

/// The host's end of a namespace's link.
#[derive(Debug)]
struct HostEnd {
    slot: Slot,
    host: Arc<Host>,
}

impl Space {
    /// Makes a namespace, its devices and rules. All on one thread, so that nothing is left halfway if nobody waits for
    /// it any more.
    pub(super) async fn create(host: Arc<Host>, named_tap: bool) -> Result<Self, NetError> {
        on_thread(host.busy.begin(), move || Self::create_here(host, named_tap)).await
    }

    /// The same on the calling thread, which ends up in that namespace.
    pub(super) fn create_here(host: Arc<Host>, named_tap: bool) -> Result<Self, NetError> {
        let namespace = Namespace::enter_new()?;
        let slot = host.slot()?;
        let (device, facts, outside) = (slot.link.clone(), host.facts.clone(), host.namespace.clone());
        for (name, value) in inner_settings(facts.ipv6) {
            set(name, value)?;
        }
        let link = if named_tap {
            make_tap(TAP)?;
            NicLink::Device { name: TAP.to_owned(), namespace: namespace.descriptor() }
        } else {
            NicLink::Tap(Arc::new(open_tap(TAP)?))
        };
        ip(&inner_commands(&device, &outside.path(), facts.mtu, facts.ipv6))?;
        let mut space = Self {
            hand: Hand::Own(namespace),
            link,
            facts: facts.clone(),
            dns: None,
            host_end: Some(HostEnd { slot, host }),
        };
        nft(&rules::guest(&facts.connected, facts.ipv6))?;
        space.dns = Some(listen()?);
        outside.run_blocking(move || {
            for (name, value) in outer_settings(&device, facts.ipv6) {
                set(&name, value)?;
            }
            ip(&outer_commands(&device, facts.ipv6))
        })?;
        Ok(space)
    }

    /// One that the helper made.
    pub(super) fn helped(line: Line, link: NicLink, dns: DnsSockets, facts: Facts) -> Self {
        let hand = Hand::Helped(Arc::new(line));
        Self { hand, link, facts: Arc::new(facts), dns: Some(dns), host_end: None }
    }

    /// The sockets of its name server, once.
    pub(super) fn take_dns(&mut self) -> Result<DnsSockets, NetError> {
        let used = || NetError::system("serve DNS to a guest", std::io::Error::other("it is served already"));
        self.dns.take().ok_or_else(used)
    }

    /// Removes it, without keeping a runtime's thread waiting.
    pub(super) async fn remove(self) {
        if let Hand::Helped(line) = &self.hand
            && let Err(error) = line.remove().await
        {
            // It goes with the connection.
            tracing::debug!(%error, "the root helper does not say that a guest's network is removed");
        }
        let at_work = self.host_end.as_ref().map(|end| end.host.busy.begin());
        let removed = on_thread(at_work, move || {
            drop(self);
            Ok(())
        });
        // A thread that cannot be started has dropped it too.
        let _removed = removed.await;
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let Some(HostEnd { slot, host }) = &self.host_end else { return };
        let device = slot.link.device.clone();
        // With its link the namespace is off the network at once; the kernel frees the rest when it has the time.
        let deleted = host.namespace.run_blocking(move || ip(&format!("link delete {device}\n")));
        if let Err(error) = deleted {
            tracing::warn!(%error, device = slot.link.device, "cannot remove a guest's network link");
        }
    }
}

/// Listens on the gateway's address of the calling thread's namespace.
fn listen() -> Result<DnsSockets, NetError> {
    let address = SocketAddr::from((GATEWAY, DNS_PORT));
    let open = || {
        let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(DnsSockets { udp, tcp })
    };
    open().map_err(|e: std::io::Error| NetError::system("listen for DNS in a guest's namespace", e))
}
