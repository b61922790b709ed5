//! Which Ethernet frames of a guest go to `passt`. Pure.
//!
//! `passt` connects to whatever address a frame names: with Debian 12's version, a guest that makes its own frames
//! reaches the host's loopback by simply naming 127.0.0.1, whatever options `passt` has. So what may pass is decided
//! here.

use std::net::Ipv4Addr;

/// The guest's address, the same in every guest.
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// The guest's gateway: `passt` itself.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Bits of the network of both.
pub(super) const PREFIX: u8 = 24;

/// The guest's MAC address, the same in every guest.
pub(super) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// Largest frame, in bytes: a full IPv4 packet and its header.
pub(super) const MAX_FRAME: usize = 65535 + HEADER;

const HEADER: usize = 14;
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];

/// What guests may not reach.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    /// The host's own addresses: what listens there is for its network, not for its guests.
    pub(super) host: Vec<Ipv4Addr>,
}

impl Policy {
    /// True if a frame of the guest may pass.
    pub(super) fn allows(&self, frame: &[u8]) -> bool {
        let kind = frame.get(12..HEADER);
        if kind == Some(TYPE_ARP.as_slice()) {
            return true;
        }
        kind == Some(TYPE_IPV4.as_slice())
            && address(frame, HEADER + 12) == Some(GUEST)
            && address(frame, HEADER + 16).is_some_and(|to| self.reachable(to))
    }

    /// True if a guest may reach an address.
    pub(super) fn reachable(&self, to: Ipv4Addr) -> bool {
        // `0.x` means the host itself to a Linux host; 169.254/16 is where clouds tell machines their secrets.
        let first = to.octets()[0];
        !(first == 0
            || to.is_loopback()
            || to.is_link_local()
            || to.is_multicast()
            || first >= 240
            || self.host.contains(&to))
    }
}

fn address(frame: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// Asks for the MAC address of the gateway, which tells that `passt` runs.
pub(super) fn arp_request() -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + 28);
    frame.extend([0xff; 6]);
    frame.extend(MAC);
    frame.extend(TYPE_ARP);
    // Ethernet and IPv4, their address lengths, a request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(MAC);
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(GATEWAY.octets());
    frame
}

/// The IPv4 addresses of a host, from the text of its `/proc/net/fib_trie`.
pub(super) fn host_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in fib_trie.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.trim().parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// The usable IPv4 name servers of a `resolv.conf`.
pub(super) fn nameservers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<Ipv4Addr>().ok())?
    });
    servers.filter(|server| !server.is_loopback() && !server.is_unspecified()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut frame = vec![0; HEADER];
        frame[12..].copy_from_slice(&TYPE_IPV4);
        let mut header = [0_u8; 20];
        header[12..16].copy_from_slice(&from.octets());
        header[16..].copy_from_slice(&to.octets());
        frame.extend(header);
        frame
    }

    fn reaches(to: &str) -> bool {
        let policy = Policy { host: vec![Ipv4Addr::new(192, 0, 2, 2)] };
        policy.allows(&packet(GUEST, to.parse().unwrap()))
    }

    #[test]
    fn the_internet_and_the_hosts_neighbours_are_reached() {
        assert!(["1.1.1.1", "192.0.2.1", "10.0.0.1", "172.16.0.1"].into_iter().all(reaches));
    }

    #[test]
    fn the_host_itself_and_metadata_services_are_not_reached() {
        for to in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.2.2",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!reaches(to), "{to}");
        }
    }

    #[test]
    fn only_the_guests_own_address_and_known_protocols_pass() {
        let policy = Policy::default();
        assert!(!policy.allows(&packet(Ipv4Addr::LOCALHOST, Ipv4Addr::new(1, 1, 1, 1))));
        assert!(policy.allows(&arp_request()));
        let mut frame = packet(GUEST, Ipv4Addr::new(1, 1, 1, 1));
        assert!(policy.allows(&frame));
        frame[12..HEADER].copy_from_slice(&[0x86, 0xdd]);
        assert!(!policy.allows(&frame), "IPv6");
        frame[12..HEADER].copy_from_slice(&[0x81, 0x00]);
        assert!(!policy.allows(&frame), "VLAN");
        assert!(!policy.allows(&packet(GUEST, GATEWAY)[..30]), "cut off");
    }

    #[test]
    fn addresses_of_a_host_are_read() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 127.0.0.0/8 2 0 2\n        |-- 127.0.0.1\n           /32 host LOCAL\n        |-- 192.0.2.2\n           /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\nLocal:\n        |-- 192.0.2.2\n           /32 host LOCAL\n";
        assert_eq!(host_addresses(text), [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 2)]);
    }

    #[test]
    fn name_servers_that_a_guest_can_reach_are_read() {
        let text =
            "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.53 \nnameserver ::1\nsearch a\nnameserver\n";
        assert_eq!(nameservers(text), [Ipv4Addr::new(192, 0, 2, 53)]);
    }

    proptest! {
        #[test]
        fn hostile_frames_never_panic_nor_name_the_loopback(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut frame = bytes;
            let _any = Policy::default().allows(&frame);
            if frame.len() >= HEADER + 20 {
                frame[12..HEADER].copy_from_slice(&TYPE_IPV4);
                frame[HEADER + 16] = 127;
                prop_assert!(!Policy::default().allows(&frame));
            }
        }
    }
}
