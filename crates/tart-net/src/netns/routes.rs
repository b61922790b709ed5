//! What the host's network looks like, read from `ip -json`. Pure.

use serde::Deserialize;

/// The MTU of a host that does not tell.
const DEFAULT_MTU: u32 = 1500;

/// Smallest MTU that IPv4 works with.
const MIN_MTU: u32 = 576;

/// A device of the host.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Device {
    ifname: String,
    #[serde(default)]
    mtu: u32,
}

/// A route of the host.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Route {
    dst: String,
    #[serde(default)]
    dev: String,
}

/// What is of interest for guests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// All devices.
    pub(super) devices: Vec<String>,
    /// Those that something is routed to.
    pub(super) routed: Vec<String>,
    /// The smallest MTU of a default route.
    pub(super) mtu: u32,
}

impl Routes {
    pub(super) fn new(devices: Vec<Device>, routes: &[Route]) -> Self {
        let mtu_of =
            |name: &str| devices.iter().find(|device| device.ifname == name).map(|device| device.mtu);
        let defaults = routes.iter().filter(|route| route.dst == "default");
        let mtu = defaults.filter_map(|route| mtu_of(&route.dev)).min();
        let mut routed: Vec<String> = routes
            .iter()
            .map(|route| route.dev.clone())
            .filter(|name| !name.is_empty() && name != "lo")
            .collect();
        routed.sort();
        routed.dedup();
        let mtu = mtu.unwrap_or(DEFAULT_MTU).clamp(MIN_MTU, u16::MAX.into());
        Self { routed, mtu, devices: devices.into_iter().map(|device| device.ifname).collect() }
    }
}

/// Reads `ip -json link show`.
pub(super) fn parse_links(json: &str) -> Vec<Device> {
    serde_json::from_str(json).unwrap_or_default()
}

/// Reads `ip -json -4 route show`.
pub(super) fn parse_routes(json: &str) -> Vec<Route> {
    serde_json::from_str(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_is_that_of_the_default_route() {
        let links = r#"[{"ifindex":1,"ifname":"lo","mtu":65536},{"ifname":"eth0","mtu":1400},{"ifname":"vpn","mtu":1280}]"#;
        let routes = r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]},
                        {"dst":"10.0.0.0/8","dev":"vpn"},{"dst":"192.0.2.0/24","dev":"eth0"},{"type":"blackhole","dst":"x"}]"#;
        let routes = Routes::new(parse_links(links), &parse_routes(routes));
        assert_eq!((routes.mtu, routes.routed.join(" ").as_str()), (1400, "eth0 vpn"));
        assert_eq!(routes.devices.len(), 3);
    }

    #[test]
    fn a_host_without_routes_has_the_usual_mtu() {
        assert_eq!(Routes::new(parse_links(""), &parse_routes("[]")).mtu, 1500);
    }
}
