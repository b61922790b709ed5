//! What the host's network looks like, read from `ip -json`. Pure.

use serde::Deserialize;

/// The MTU of a host that does not tell.
const DEFAULT_MTU: u32 = 1500;

/// Smallest MTU that IPv4 works with.
const MIN_MTU: u32 = 576;

/// A device of the host.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Device {
    pub(super) ifname: String,
    #[serde(default)]
    mtu: u32,
}

/// A route of the host.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Route {
    dst: String,
    #[serde(default)]
    dev: String,
    gateway: Option<String>,
}

impl Route {
    fn is_default(&self) -> bool {
        self.dst == "default"
    }
}

/// The routes of one family.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    /// Reads `ip -json -4 route show`, or the same of `-6`.
    pub(super) fn parse(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap_or_default())
    }

    /// Whether there is a way to everywhere.
    pub(super) fn has_default(&self) -> bool {
        self.0.iter().any(Route::is_default)
    }

    /// The devices that something is routed to.
    pub(super) fn devices(&self) -> Vec<&str> {
        let names = self.0.iter().map(|route| route.dev.as_str());
        let mut names: Vec<_> = names.filter(|name| !name.is_empty() && *name != "lo").collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The networks that the host is part of.
    pub(super) fn connected(&self) -> impl Iterator<Item = &str> {
        let direct = self.0.iter().filter(|route| route.gateway.is_none() && !route.is_default());
        direct.filter(|route| !route.dev.is_empty()).map(|route| route.dst.as_str())
    }
}

/// The smallest MTU of the devices by which there is a way to everywhere.
pub(super) fn mtu(devices: &[Device], routes: [&Routes; 2]) -> u32 {
    let ways = routes.into_iter().flat_map(|routes| routes.0.iter().filter(|route| route.is_default()));
    let mtu = ways.filter_map(|route| devices.iter().find(|device| device.ifname == route.dev));
    let mtu = mtu.map(|device| device.mtu).min().unwrap_or(DEFAULT_MTU);
    mtu.clamp(MIN_MTU, u16::MAX.into())
}

/// Reads `ip -json link show`.
pub(super) fn parse_links(json: &str) -> Vec<Device> {
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
        let (devices, routes) = (parse_links(links), Routes::parse(routes));
        assert_eq!(mtu(&devices, [&routes, &Routes::default()]), 1400);
        assert_eq!(routes.devices(), ["eth0", "vpn"]);
        assert_eq!(routes.connected().collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.0/24"]);
        assert!(routes.has_default());
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
        assert_eq!(mtu(&parse_links(""), [&Routes::parse("[]"), &Routes::parse("")]), 1500);
    }
}
