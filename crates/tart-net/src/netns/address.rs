//! Names and addresses of guests' networks. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The guest's address, the same in every guest, so that guests can be cloned. Of a network that is never routed
/// (RFC 7335), so that it hides nothing that a job may want to reach.
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);

/// The guest's gateway and name server.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// Bits of the network of both.
pub(super) const GUEST_PREFIX: u8 = 30;

/// The same by IPv6, of a network that is nowhere else (RFC 4193).
pub(super) const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x6172, 0x7400, 0, 0, 0, 0, 2);
pub(super) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x6172, 0x7400, 0, 0, 0, 0, 1);
pub(super) const GUEST_PREFIX6: u8 = 64;

/// The guest's MAC address, the same in every guest.
pub(super) const GUEST_MAC: &str = "02:00:00:00:00:01";

/// The gateway's.
pub(super) const GATEWAY_MAC: &str = "02:00:00:00:00:02";

/// The guest's device in its namespace.
pub(super) const TAP: &str = "tap0";

/// The way out of a namespace.
pub(super) const WAN: &str = "wan";

/// First address of the links between namespaces and the host. Link-local, since they mean nothing beyond the link.
const LINKS: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 0);

/// All links, for the host's rules.
pub(super) const LINK_NETWORK: &str = "169.254.64.0/20";

/// The same by IPv6.
const LINKS6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x6172, 0x7400, 1, 0, 0, 0, 0);
pub(super) const LINK_NETWORK6: &str = "fd74:6172:7400:1::/64";

/// Guests of a host at most; each has two addresses of [`LINK_NETWORK`].
pub(super) const MAX_SLOTS: u16 = 2048;

/// What distinguishes a guest's network from the others of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The host's end of the link.
    pub(super) device: String,
    /// Its address.
    pub(super) host: Ipv4Addr,
    /// The namespace's address.
    pub(super) inner: Ipv4Addr,
    /// Both by IPv6.
    pub(super) host6: Ipv6Addr,
    pub(super) inner6: Ipv6Addr,
}

impl Link {
    /// The link of a slot below [`MAX_SLOTS`].
    pub(super) fn new(prefix: &str, slot: u16) -> Self {
        let first = LINKS.to_bits() + 2 * u32::from(slot);
        let first6 = LINKS6.to_bits() + 2 * u128::from(slot);
        Self {
            device: format!("{prefix}{slot}"),
            host: first.into(),
            inner: (first + 1).into(),
            host6: first6.into(),
            inner6: (first6 + 1).into(),
        }
    }
}

/// The slot that a device's name says it is of.
pub(super) fn slot_of(prefix: &str, device: &str) -> Option<u16> {
    let digits = device.strip_prefix(prefix)?;
    let slot: u16 = digits.parse().ok()?;
    (slot < MAX_SLOTS && slot.to_string() == digits).then_some(slot)
}

/// Commands for `ip` inside a new namespace; `host` is a path of the host's namespace.
pub(super) fn inner_commands(link: &Link, host: &str, mtu: u32, ipv6: bool) -> String {
    let Link { device, host: gateway, inner, host6, inner6 } = link;
    let mut commands = format!(
        "link set lo up\n\
         link set {TAP} address {GATEWAY_MAC} mtu {mtu}\n\
         address add {GATEWAY}/{GUEST_PREFIX} dev {TAP}\n\
         link set {TAP} up\n\
         neighbour replace {GUEST} lladdr {GUEST_MAC} nud permanent dev {TAP}\n\
         link add {WAN} mtu {mtu} type veth peer name {device} mtu {mtu} netns {host}\n\
         address add {inner}/31 dev {WAN}\n\
         link set {WAN} up\n\
         route add default via {gateway} dev {WAN} onlink\n"
    );
    if ipv6 {
        commands += &format!(
            "address add {GATEWAY6}/{GUEST_PREFIX6} dev {TAP} nodad\n\
             neighbour replace {GUEST6} lladdr {GUEST_MAC} nud permanent dev {TAP}\n\
             address add {inner6}/127 dev {WAN} nodad\n\
             route add default via {host6} dev {WAN} onlink\n"
        );
    }
    commands
}

/// Commands for `ip` at the host's end.
pub(super) fn outer_commands(link: &Link, ipv6: bool) -> String {
    let Link { device, host, host6, .. } = link;
    let mut commands = format!("address add {host}/31 dev {device}\n");
    if ipv6 {
        commands += &format!("address add {host6}/127 dev {device} nodad\n");
    }
    commands + &format!("link set {device} up\n")
}

/// Commands for `tc` inside a namespace, for so many bytes a second each way.
pub(super) fn bandwidth_commands(bytes: u64) -> String {
    // A bucket of 20 ms, but one in which the largest packets of a device fit.
    let burst = (bytes / 50).max(128 << 10);
    let shaped =
        |device| format!("qdisc add dev {device} root tbf rate {bytes}bps burst {burst} latency 100ms\n");
    shaped(TAP) + &shaped(WAN)
}

/// What the kernel is told in a new namespace, below `/proc/sys/net`, before it has devices.
pub(super) fn inner_settings(ipv6: bool) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        // The rules limit refusals themselves; six in a burst and then one a second would make a job wait.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        // A device answers for its own address only.
        ("ipv4/conf/all/arp_ignore", "1"),
    ];
    settings.extend(if ipv6 {
        [("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/accept_ra", "0")]
    } else {
        [("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")]
    });
    settings
}

/// The same for the host's end of a link, below `/proc/sys/net`.
pub(super) fn outer_settings(link: &Link, ipv6: bool) -> Vec<(String, &'static str)> {
    let of = |family: &str, name: &str| format!("{family}/conf/{}/{name}", link.device);
    let mut settings = vec![(of("ipv4", "forwarding"), "1"), (of("ipv4", "send_redirects"), "0")];
    settings.extend(if ipv6 {
        // Kernels before 6.17 have no forwarding for one device; there it is the host that forwards already.
        vec![(of("ipv6", "accept_ra"), "0"), (of("ipv6", "force_forwarding"), "1")]
    } else {
        vec![(of("ipv6", "disable_ipv6"), "1")]
    });
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_its_own_link_and_all_are_in_the_network_of_links() {
        let (first, last) = (Link::new("tart-", 0), Link::new("tart-", MAX_SLOTS - 1));
        assert_eq!(
            (first.host.to_string(), first.inner.to_string()),
            ("169.254.64.0".into(), "169.254.64.1".into())
        );
        assert_eq!(last.inner.to_string(), "169.254.79.255");
        assert_eq!(last.inner6.to_string(), "fd74:6172:7400:1::fff");
        assert_eq!(last.device, "tart-2047");
        assert!(last.device.len() < 16, "the kernel's limit on names of devices");
    }

    #[test]
    fn only_names_that_slots_have_are_taken_for_slots() {
        assert_eq!(slot_of("tart-", "tart-12"), Some(12));
        for other in ["tart-", "tart-2048", "tart-012", "tart-+1", "tart-x", "eth0"] {
            assert_eq!(slot_of("tart-", other), None, "{other}");
        }
    }

    #[test]
    fn both_directions_are_shaped_by_what_leaves_a_device() {
        insta::assert_snapshot!(bandwidth_commands(1 << 20), @"
        qdisc add dev tap0 root tbf rate 1048576bps burst 131072 latency 100ms
        qdisc add dev wan root tbf rate 1048576bps burst 131072 latency 100ms
        ");
    }

    #[test]
    fn a_namespace_is_made_of_these_commands() {
        let link = Link::new("tart-", 3);
        let all = inner_commands(&link, "/proc/1/fd/9", 1400, true) + "--\n" + &outer_commands(&link, true);
        insta::assert_snapshot!(all, @"
        link set lo up
        link set tap0 address 02:00:00:00:00:02 mtu 1400
        address add 192.0.0.1/30 dev tap0
        link set tap0 up
        neighbour replace 192.0.0.2 lladdr 02:00:00:00:00:01 nud permanent dev tap0
        link add wan mtu 1400 type veth peer name tart-3 mtu 1400 netns /proc/1/fd/9
        address add 169.254.64.7/31 dev wan
        link set wan up
        route add default via 169.254.64.6 dev wan onlink
        address add fd74:6172:7400::1/64 dev tap0 nodad
        neighbour replace fd74:6172:7400::2 lladdr 02:00:00:00:00:01 nud permanent dev tap0
        address add fd74:6172:7400:1::7/127 dev wan nodad
        route add default via fd74:6172:7400:1::6 dev wan onlink
        --
        address add 169.254.64.6/31 dev tart-3
        address add fd74:6172:7400:1::6/127 dev tart-3 nodad
        link set tart-3 up
        ");
        let without = inner_commands(&link, "", 1400, false) + &outer_commands(&link, false);
        assert!(!without.contains("fd74"), "{without}");
    }
}
