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

#[derive(Deserialize)]
struct Answer {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

/// The chain that drops what is forwarded unless a rule says otherwise, if the host has one that IPv4 passes. Reads
/// `nft --json list chains`.
pub(super) fn dropping_chain(json: &str) -> Option<String> {
    let answer: Answer = serde_json::from_str(json).ok()?;
    let mut chains = answer.nftables.into_iter().filter_map(|object| object.chain);
    let dropping = chains.find(|chain| {
        chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
            && matches!(chain.family.as_str(), "ip" | "inet")
    })?;
    Some(format!("{} {} {}", dropping.family, dropping.table, dropping.name))
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
    fn a_firewall_that_drops_what_is_forwarded_is_found() {
        let chains = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "nat", "name": "DOCKER", "handle": 1}},
            {"chain": {"family": "inet", "table": "tart", "name": "forward", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}}]}"#;
        assert_eq!(dropping_chain(chains).as_deref(), Some("ip filter FORWARD"));
        assert_eq!(dropping_chain(r#"{"nftables": []}"#), None);
    }

    #[test]
    fn a_host_without_routes_has_the_usual_mtu() {
        assert_eq!(Routes::new(parse_links(""), &parse_routes("[]")).mtu, 1500);
    }
}
