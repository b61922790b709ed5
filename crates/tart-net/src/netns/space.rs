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
    host::{Host, Slot},
    rules,
    system::{Namespace, ip, make_tap, nft, on_thread, open_tap, program, set},
};
use crate::{Egress, NetError, NicLink};

/// Port of DNS.
pub(super) const DNS_PORT: u16 = 53;

/// A guest's namespace, never used before. It has no name: it lives as long as what is held here, so of a runner that
/// is killed nothing stays. Fields are dropped in their order; the slot is given back last.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) namespace: Namespace,
    /// The guest's end of it.
    pub(super) link: NicLink,
    /// Sockets of the name server on the gateway's address; taken when it starts.
    dns: Option<DnsSockets>,
    slot: Slot,
    host: Arc<Host>,
}

/// The guest's name server listens here and nowhere else.
#[derive(Debug)]
pub(super) struct DnsSockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

impl Space {
    /// Makes a namespace, its devices and rules. All on one thread, so that nothing is left halfway if nobody waits for
    /// it any more.
    pub(super) async fn create(host: Arc<Host>) -> Result<Self, NetError> {
        on_thread(host.busy.begin(), move || Self::create_here(host)).await
    }

    /// The same on the calling thread, which ends up in that namespace.
    pub(super) fn create_here(host: Arc<Host>) -> Result<Self, NetError> {
        let namespace = Namespace::enter_new()?;
        let slot = host.slot()?;
        let (link, facts) = (slot.link.clone(), host.facts.clone());
        for (name, value) in inner_settings(facts.ipv6) {
            set(name, value)?;
        }
        let link_of_guest = if host.options.named_taps {
            make_tap(TAP)?;
            NicLink::Device { name: TAP.to_owned(), namespace: namespace.descriptor() }
        } else {
            NicLink::Tap(Arc::new(open_tap(TAP)?))
        };
        ip(&inner_commands(&link, &host.namespace.path(), facts.mtu, facts.ipv6))?;
        let mut space = Self { namespace, link: link_of_guest, dns: None, slot, host };
        nft(&rules::guest(&facts.connected, facts.ipv6))?;
        space.dns = Some(listen()?);
        space.host.namespace.run_blocking(move || {
            for (name, value) in outer_settings(&link, facts.ipv6) {
                set(&name, value)?;
            }
            ip(&outer_commands(&link, facts.ipv6))
        })?;
        Ok(space)
    }

    /// The sockets of its name server, once.
    pub(super) fn take_dns(&mut self) -> Result<DnsSockets, NetError> {
        let used = || NetError::system("serve DNS to a guest", std::io::Error::other("it is served already"));
        self.dns.take().ok_or_else(used)
    }

    /// Replaces the rules that every namespace begins with by those of a policy. Only once.
    pub(super) async fn rule(&self, egress: &Egress) -> Result<(), NetError> {
        let rules = rules::policy(egress);
        self.namespace.run(move || nft(&rules)).await
    }

    /// Bounds the bytes in a second. Only once.
    pub(super) async fn shape(&self, bytes: u64) -> Result<(), NetError> {
        self.namespace
            .run(move || program("tc", &["-batch", "-"], &bandwidth_commands(bytes)).map(drop))
            .await
    }

    /// What passed and what did not.
    pub(super) async fn counts(&self) -> Result<Counts, NetError> {
        let json = self.namespace.run(|| program("nft", &["--json", "list", "ruleset"], ""));
        Ok(parse_counts(&json.await?))
    }

    /// Removes it, without keeping a runtime's thread waiting.
    pub(super) async fn remove(self) {
        let removed = on_thread(self.host.busy.begin(), move || {
            drop(self);
            Ok(())
        });
        // A thread that cannot be started has dropped it too.
        let _removed = removed.await;
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let device = self.slot.link.device.clone();
        // With its link the namespace is off the network at once; the kernel frees the rest when it has the time.
        let deleted = self.host.namespace.run_blocking(move || ip(&format!("link delete {device}\n")));
        if let Err(error) = deleted {
            tracing::warn!(%error, device = self.slot.link.device, "cannot remove a guest's network link");
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
