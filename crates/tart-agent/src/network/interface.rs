//! Interfaces: finding them by address, and checking what is asked of them.

use std::{fs, io, net::IpAddr, time::Duration};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tart_proto::message::{Failure, Interface};

use crate::{failure, uevent};

/// How long the kernel may take to make an interface of a device.
const LIMIT: Duration = Duration::from_secs(10);

const CLASS: &str = "/sys/class/net";

/// What a request for an interface says, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mac: String,
    pub(super) addresses: Vec<(IpAddr, u8)>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) mtu: Option<u32>,
}

impl Plan {
    pub(super) fn new(request: &Interface) -> Result<Self, Failure> {
        let mac = request.mac.to_ascii_lowercase();
        let octets: Vec<&str> = mac.split(':').collect();
        let legal = |octet: &&str| octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit());
        if octets.len() != 6 || !octets.iter().all(legal) {
            return Err(failure::invalid(format!("`{}` is no MAC address", request.mac)));
        }
        let addresses = request.addresses.iter().map(|text| {
            parse_network(text)
                .ok_or_else(|| failure::invalid(format!("`{text}` is no address with a prefix length")))
        });
        let gateways = request.gateways.iter().map(|text| {
            text.parse().map_err(|_| failure::invalid(format!("`{text}` is no address of a gateway")))
        });
        let mtu = request.mtu;
        Ok(Self {
            addresses: addresses.collect::<Result<_, _>>()?,
            gateways: gateways.collect::<Result<_, _>>()?,
            mac,
            mtu,
        })
    }
}

/// An address with its prefix length.
pub(super) fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest)?;
    Some((address, prefix))
}

/// Index of the interface with a MAC address, once the kernel has it.
pub(super) async fn find(mac: &str) -> io::Result<Option<u32>> {
    uevent::wait_for(LIMIT, || {
        for entry in fs::read_dir(CLASS)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            // An interface may go while we look.
            let address = fs::read_to_string(format!("{CLASS}/{name}/address")).unwrap_or_default();
            if address.trim() == mac {
                return index(name).map(Some);
            }
        }
        Ok(None)
    })
    .await
}

pub(super) fn loopback() -> io::Result<u32> {
    index("lo")
}

/// Index of an interface of the caller's network namespace.
pub(super) fn index(name: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mac: &str, address: &str, gateway: &str) -> Interface {
        Interface {
            mac: mac.into(),
            addresses: vec![address.into()],
            gateways: vec![gateway.into()],
            mtu: Some(1400),
        }
    }

    #[test]
    fn a_request_is_parsed_and_its_mac_lowered() {
        let plan = Plan::new(&request("AA:bb:cc:dd:ee:0F", "fd00::2/64", "10.0.2.2")).unwrap();
        assert_eq!(plan.mac, "aa:bb:cc:dd:ee:0f");
        assert_eq!(plan.addresses, [("fd00::2".parse().unwrap(), 64)]);
        assert_eq!(plan.gateways, ["10.0.2.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let good = ("aa:bb:cc:dd:ee:ff", "10.0.2.15/24", "10.0.2.2");
        for (mac, address, gateway, text) in [
            ("aa:bb", good.1, good.2, "`aa:bb` is no MAC address"),
            ("aa:bb:cc:dd:ee:../", good.1, good.2, "`aa:bb:cc:dd:ee:../` is no MAC address"),
            (good.0, "10.0.2.15", good.2, "`10.0.2.15` is no address with a prefix length"),
            (good.0, "10.0.2.15/33", good.2, "`10.0.2.15/33` is no address with a prefix length"),
            (good.0, good.1, "host", "`host` is no address of a gateway"),
        ] {
            assert_eq!(Plan::new(&request(mac, address, gateway)).unwrap_err().message, text);
        }
    }

    #[test]
    fn the_loopback_has_an_index() {
        assert!(loopback().unwrap() > 0);
    }
}
