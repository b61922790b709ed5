//! Rule sets for `nft`. Pure.

mod policy;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::address::{GATEWAY, GATEWAY6, GUEST, GUEST_MAC, GUEST6, LINK_NETWORK, LINK_NETWORK6, TAP, WAN};
use crate::{Rule, policy::Destination};
pub(super) use policy::{Element, List, Match, Policy, Set, To, elements};

/// Name of the tables in guests' namespaces.
pub(super) const TABLE: &str = "tart";

/// Connections of a guest at once; each is an entry of the host's own connection tracking too.
const MAX_CONNECTIONS: u32 = 4096;

/// Destinations of a guest whose bytes are counted apart.
const MAX_CARRIED: u32 = 1024;

/// Addresses that one set takes from answers of DNS.
pub(super) const MAX_NAMED: usize = 4096;

/// How long addresses of names are let through at least and at most, in seconds: programs use them longer than DNS
/// says, but not for ever.
pub(super) const HOLD: std::ops::RangeInclusive<u32> = 120..=3600;

/// Never reached, whatever the configuration says: this host and link, and the metadata services of clouds that are
/// not link-local (Azure, Alibaba).
const NEVER: &str = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0/4, 240.0.0.0/4, \
                     168.63.129.16, 100.100.100.200";

/// Reached only where the configuration allows it: private networks, carriers' networks, networks of benchmarks.
const PRIVATE: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15";

/// As [`NEVER`]: also addresses that stand for IPv4 addresses, and the metadata services of AWS and Google.
const NEVER6: &str = "::/96, ::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48, 2001::/32, 2002::/16, fe80::/10, ff00::/8, \
                      fd00:ec2::/32, fd20:ce::/32, fd74:6172:7400::/48";

/// As [`PRIVATE`].
const PRIVATE6: &str = "fc00::/7, fec0::/10";

/// How the rules of both families differ.
struct Family {
    /// Suffix of the names of sets.
    suffix: &'static str,
    /// The protocol's name in expressions.
    ip: &'static str,
    /// The type of its addresses.
    address: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { suffix: "", ip: "ip", address: "ipv4_addr" },
    Family { suffix: "_v6", ip: "ip6", address: "ipv6_addr" },
];

fn family(address: IpAddr) -> &'static Family {
    let [four, six] = &FAMILIES;
    if address.is_ipv4() { four } else { six }
}

/// The networks of the host's own that are no more to be reached than private ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connected(Vec<Rule>);

impl Connected {
    /// Those of these texts that are networks.
    pub(super) fn new<'a>(networks: impl IntoIterator<Item = &'a str>) -> Self {
        let rules = networks.into_iter().filter_map(|text| text.parse::<Rule>().ok());
        // Half of all addresses, as virtual private networks route them, are nobody's own network.
        let is_own = |rule: &Rule| matches!(rule.target, Destination::Net(_, prefix) if prefix >= 8);
        Self(rules.filter(|rule| rule.ports.is_none() && is_own(rule)).collect())
    }

    /// Whether guests reach an address by the rules that they begin with.
    pub(super) fn leaves(&self, address: IpAddr) -> bool {
        let lists = [NEVER, PRIVATE, NEVER6, PRIVATE6].into_iter().flat_map(|list| list.split(", "));
        let mut rules =
            lists.filter_map(|network| network.parse::<Rule>().ok()).chain(self.0.iter().cloned());
        !rules.any(|rule| rule.covers(address))
    }

    /// The elements of the set of private networks.
    fn private(&self, family: &Family) -> String {
        let own = self.0.iter().filter(|rule| {
            matches!(rule.target, Destination::Net(address, _) if self::family(address).ip == family.ip)
        });
        let fixed = if family.suffix.is_empty() { PRIVATE } else { PRIVATE6 };
        own.fold(fixed.to_owned(), |all, rule| format!("{all}, {rule}"))
    }
}

/// Devices that forward only because of Tart: what arrives there for others than guests is dropped as before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Guarded {
    pub(super) ipv4: Vec<String>,
    pub(super) ipv6: Vec<String>,
}

/// The rules of the host, the same whatever guests there are.
pub(super) fn host(table: &str, prefix: &str, guarded: &Guarded) -> String {
    let set = |devices: &[String]| {
        let quoted: Vec<_> = devices.iter().map(|device| format!("\"{device}\"")).collect();
        let elements = if quoted.is_empty() {
            String::new()
        } else {
            format!(" elements = {{ {} }};", quoted.join(", "))
        };
        format!("{{ type ifname;{elements} }}")
    };
    let (guarded, guarded6) = (set(&guarded.ipv4), set(&guarded.ipv6));
    format!(
        r#"table inet {table} {{}}
delete table inet {table}
table inet {table} {{
  set guarded {guarded}
  set guarded_v6 {guarded6}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname "{prefix}*" oifname "{prefix}*" drop
    iifname "{prefix}*" fib saddr . iif oif missing drop
    iifname "{prefix}*" ip daddr {{ {NEVER} }} drop
    iifname "{prefix}*" ip6 daddr {{ {NEVER6} }} drop
    iifname "{prefix}*" accept
    oifname "{prefix}*" ct state established,related accept
    oifname "{prefix}*" drop
    meta nfproto ipv4 iifname @guarded ct state new ct status & dnat == 0 drop
    meta nfproto ipv6 iifname @guarded_v6 ct state new ct status & dnat == 0 drop
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname "{prefix}*" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname "{prefix}*" meta l4proto {{ icmp, ipv6-icmp }} drop
    iifname "{prefix}*" limit rate over 50/second drop
    iifname "{prefix}*" reject with icmpx admin-prohibited
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {LINK_NETWORK} oifname != "{prefix}*" masquerade
    ip6 saddr {LINK_NETWORK6} oifname != "{prefix}*" masquerade
  }}
}}
"#
    )
}

/// The rules that every guest's namespace begins with: public addresses are reached.
pub(super) fn guest(connected: &Connected, ipv6: bool) -> String {
    let [private, private6] = FAMILIES.map(|family| connected.private(&family));
    let neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }";
    // Without IPv6, the end of the chain drops it.
    let frames6 = if ipv6 {
        format!(
            "\n    ether type ip6 ip6 saddr {GUEST6} accept\n    ip6 saddr fe80::/10 {neighbours} accept\n    \
             ip6 saddr {{ ::, fe80::/10 }} drop\n    ether type ip6 counter name forged drop"
        )
    } else {
        String::new()
    };
    format!(
        r#"table netdev {TABLE} {{
  counter forged {{ }}
  chain guest {{
    type filter hook ingress device "{TAP}" priority filter; policy drop;
    ether saddr != {GUEST_MAC} counter name forged drop
    ether type arp arp saddr ether {GUEST_MAC} arp saddr ip {GUEST} accept
    ether type arp counter name forged drop
    ether type ip ip saddr {GUEST} accept
    ether type ip counter name forged drop{frames6}
  }}
}}
table inet {TABLE} {{
  counter up {{ }}
  counter down {{ }}
  counter connections {{ }}
  counter denied {{ }}
  set never {{ type ipv4_addr; flags interval; elements = {{ {NEVER} }}; }}
  set never_v6 {{ type ipv6_addr; flags interval; elements = {{ {NEVER6} }}; }}
  set private {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {private} }}; }}
  set private_v6 {{ type ipv6_addr; flags interval; auto-merge; elements = {{ {private6} }}; }}
  set sent {{ type ipv4_addr . inet_proto . inet_service; size {MAX_CARRIED}; flags dynamic; }}
  set sent_v6 {{ type ipv6_addr . inet_proto . inet_service; size {MAX_CARRIED}; flags dynamic; }}
  set received {{ type ipv4_addr . inet_proto . inet_service; size {MAX_CARRIED}; flags dynamic; }}
  set received_v6 {{ type ipv6_addr . inet_proto . inet_service; size {MAX_CARRIED}; flags dynamic; }}
  set denied_to {{ type ipv4_addr . inet_proto . inet_service; size 64; flags dynamic; }}
  set denied_to_v6 {{ type ipv6_addr . inet_proto . inet_service; size 64; flags dynamic; }}
  chain allowed {{
    ct count over {MAX_CONNECTIONS} goto denied
    counter name connections
    goto outwards
  }}
  chain outwards {{
    meta l4proto {{ tcp, udp }} update @sent {{ ip daddr . meta l4proto . th dport counter }}
    meta l4proto {{ tcp, udp }} update @sent_v6 {{ ip6 daddr . meta l4proto . th dport counter }}
    counter name up accept
  }}
  chain inwards {{
    meta l4proto {{ tcp, udp }} update @received {{ ip saddr . meta l4proto . th sport counter }}
    meta l4proto {{ tcp, udp }} update @received_v6 {{ ip6 saddr . meta l4proto . th sport counter }}
    counter name down accept
  }}
  chain denied {{
    meta l4proto {{ tcp, udp }} update @denied_to {{ ip daddr . meta l4proto . th dport counter }}
    meta l4proto {{ tcp, udp }} update @denied_to_v6 {{ ip6 daddr . meta l4proto . th dport counter }}
    counter name denied
    limit rate over 50/second drop
    reject with icmpx admin-prohibited
  }}
  chain egress {{
    ip daddr @never goto denied
    ip6 daddr @never_v6 goto denied
    ip daddr @private goto denied
    ip6 daddr @private_v6 goto denied
    goto allowed
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "{WAN}" oifname "{TAP}" ct state established,related goto inwards
    iifname "{TAP}" oifname "{WAN}" ct state established,related goto outwards
    iifname "{TAP}" oifname "{WAN}" ct state new goto egress
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    {neighbours} accept
    iifname "{TAP}" udp dport 53 limit rate over 500/second burst 500 packets drop
    iifname "{TAP}" ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{TAP}" ip daddr {GATEWAY} icmp type echo-request limit rate 10/second accept
    iifname "{TAP}" ip6 daddr {GATEWAY6} icmpv6 type echo-request limit rate 10/second accept
    iifname "{TAP}" ip daddr {GATEWAY} reject with icmpx port-unreachable
    iifname "{TAP}" ip6 daddr {GATEWAY6} reject with icmpx port-unreachable
    iifname "{TAP}" jump denied
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    {neighbours} accept
    oifname "{TAP}" accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{WAN}" masquerade
  }}
}}
"#
    )
}

#[cfg(test)]
mod tests;
