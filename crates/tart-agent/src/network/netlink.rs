//! The few requests of `rtnetlink(7)` that a guest needs, written out by hand.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER_LEN: usize = 16;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// `struct ifinfomsg`.
const IFINFO_LEN: usize = 16;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address is usable at once, and it is the host's to give.
const IFA_F_NODAD: u8 = 0x02;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// A pair of interfaces to make.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    /// Name of the one on the bridge.
    pub(super) name: &'a str,
    /// Index of the bridge.
    pub(super) bridge: u32,
    /// Name of the other.
    pub(super) peer: &'a str,
    /// Where the other goes.
    pub(super) namespace: BorrowedFd<'a>,
    /// MTU of both in bytes, if not the kernel's default.
    pub(super) mtu: Option<u32>,
}

/// A socket to the kernel's routing.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is number 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Starts an interface, with an MTU if one is given.
    pub(super) fn start_link(&mut self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        self.request(RTM_NEWLINK, 0, link_body(index, mtu))
    }

    /// Makes a bridge.
    pub(super) fn add_bridge(&mut self, name: &str, mtu: Option<u32>) -> io::Result<()> {
        self.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, bridge_body(name, mtu))
    }

    /// Makes a pair of interfaces: one on a bridge, the other in a network namespace.
    pub(super) fn add_pair(&mut self, pair: &Pair<'_>) -> io::Result<()> {
        self.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, pair_body(pair))
    }

    /// Gives an interface an address; one that it has is kept.
    pub(super) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, address_body(index, address, prefix))
    }

    /// Sends everything without a better route to a gateway.
    pub(super) fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        self.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route_body(index, gateway))
    }

    /// Sends a request and reads its answer, which the kernel has ready when the send returns.
    fn request(&mut self, kind: u16, flags: u16, body: Vec<u8>) -> io::Result<()> {
        self.sequence += 1;
        send(
            &self.socket,
            &packet(kind, NLM_F_REQUEST | NLM_F_ACK | flags, self.sequence, &body),
            SendFlags::empty(),
        )?;
        let mut answer = [0; 4096];
        loop {
            let (len, _) = recv(&self.socket, &mut answer, RecvFlags::DONTWAIT)?;
            if let Some(result) = acknowledged(answer.get(..len).unwrap_or_default(), self.sequence) {
                return result;
            }
        }
    }
}

fn packet(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX);
    let mut packet = Vec::with_capacity(HEADER_LEN + body.len());
    packet.extend(len.to_ne_bytes());
    packet.extend(kind.to_ne_bytes());
    packet.extend(flags.to_ne_bytes());
    packet.extend(sequence.to_ne_bytes());
    packet.extend(0_u32.to_ne_bytes());
    packet.extend(body);
    packet
}

/// The verdict in an answer to the request with this sequence number, if it is one.
fn acknowledged(answer: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let answered = u32::from_ne_bytes(*answer.get(8..)?.first_chunk()?);
    if kind != NLMSG_ERROR || answered != sequence {
        return None;
    }
    let code = i32::from_ne_bytes(*answer.get(HEADER_LEN..)?.first_chunk()?);
    Some(if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) })
}

/// `struct ifinfomsg` and attributes.
fn link_body(index: u32, mtu: Option<u32>) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    for flags_and_mask in [IFF_UP; 2] {
        body.extend(flags_and_mask.to_ne_bytes());
    }
    if let Some(mtu) = mtu {
        attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    }
    body
}

fn bridge_body(name: &str, mtu: Option<u32>) -> Vec<u8> {
    let mut body = interface_body(name, mtu);
    nested(&mut body, IFLA_LINKINFO, |info| text(info, IFLA_INFO_KIND, "bridge"));
    body
}

fn pair_body(pair: &Pair<'_>) -> Vec<u8> {
    let mut body = interface_body(pair.name, pair.mtu);
    attribute(&mut body, IFLA_MASTER, &pair.bridge.to_ne_bytes());
    nested(&mut body, IFLA_LINKINFO, |info| {
        text(info, IFLA_INFO_KIND, "veth");
        nested(info, IFLA_INFO_DATA, |data| {
            nested(data, VETH_INFO_PEER, |peer| {
                peer.extend(interface_body(pair.peer, pair.mtu));
                attribute(peer, IFLA_NET_NS_FD, &pair.namespace.as_raw_fd().to_ne_bytes());
            });
        });
    });
    body
}

/// An empty `struct ifinfomsg` and what every new interface has.
fn interface_body(name: &str, mtu: Option<u32>) -> Vec<u8> {
    let mut body = vec![0; IFINFO_LEN];
    text(&mut body, IFLA_IFNAME, name);
    if let Some(mtu) = mtu {
        attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    }
    body
}

/// `struct ifaddrmsg` and attributes.
fn address_body(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = parts(address);
    let mut body = vec![family, prefix, if address.is_ipv6() { IFA_F_NODAD } else { 0 }, RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &bytes);
    attribute(&mut body, IFA_ADDRESS, &bytes);
    body
}

/// `struct rtmsg` and attributes.
fn route_body(index: u32, gateway: IpAddr) -> Vec<u8> {
    let (family, bytes) = parts(gateway);
    let mut body = vec![family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST];
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, RTA_GATEWAY, &bytes);
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    body
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    let family = |family: libc::c_int| u8::try_from(family).unwrap_or_default();
    match address {
        IpAddr::V4(address) => (family(libc::AF_INET), address.octets().to_vec()),
        IpAddr::V6(address) => (family(libc::AF_INET6), address.octets().to_vec()),
    }
}

/// Appends `struct rtattr` and its value, up to the next multiple of the alignment.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A text with its final NUL.
fn text(body: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(body, kind, format!("{value}\0").as_bytes());
}

fn nested(body: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    fill(&mut value);
    attribute(body, kind, &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_request_has_the_kernels_layout() {
        let body = address_body(7, "10.0.2.15".parse().unwrap(), 24);
        assert_eq!(
            body,
            [
                2, 24, 0, 0, 7, 0, 0, 0, // ifaddrmsg
                8, 0, 2, 0, 10, 0, 2, 15, // IFA_LOCAL
                8, 0, 1, 0, 10, 0, 2, 15, // IFA_ADDRESS
            ]
        );
        assert_eq!(packet(RTM_NEWADDR, 5, 3, &body)[..12], [40, 0, 0, 0, 20, 0, 5, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn a_bridge_has_its_kind_in_a_nested_attribute() {
        let body = bridge_body("br", Some(1400));
        assert_eq!(
            body[IFINFO_LEN..],
            [
                7, 0, 3, 0, b'b', b'r', 0, 0, // IFLA_IFNAME
                8, 0, 4, 0, 120, 5, 0, 0, // IFLA_MTU
                16, 0, 18, 0, 11, 0, 1, 0, b'b', b'r', b'i', b'd', b'g', b'e', 0, 0, // IFLA_LINKINFO
            ]
        );
    }

    #[test]
    fn an_answer_is_matched_by_its_sequence() {
        let answer = |code: i32| packet(NLMSG_ERROR, 0, 5, &code.to_ne_bytes());
        assert!(matches!(acknowledged(&answer(0), 5), Some(Ok(()))));
        assert_eq!(acknowledged(&answer(-17), 5).unwrap().unwrap_err().raw_os_error(), Some(17));
        assert!(acknowledged(&answer(0), 6).is_none());
        assert!(acknowledged(&[0; 3], 5).is_none());
    }

    #[test]
    fn the_kernel_understands_a_request() {
        // Starting the loopback again changes nothing.
        Netlink::open().unwrap().start_link(1, None).unwrap();
        let missing = Netlink::open().unwrap().start_link(u32::MAX / 2, None).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    }
}
