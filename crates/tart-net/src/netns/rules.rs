//! Rule sets for `nft`. Pure.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::address::{GATEWAY, GUEST, GUEST_MAC, LINK_NETWORK, TAP, WAN};
use crate::{Egress, Rule, policy::Destination};

/// Name of the tables in guests' namespaces.
pub(super) const TABLE: &str = "tart";

/// Connections of a guest at once; each is an entry of the host's own connection tracking too.
const MAX_CONNECTIONS: u32 = 4096;

/// Addresses that one set takes from answers of DNS.
pub(super) const MAX_NAMED: usize = 4096;

/// Whether guests reach an address by the rules that they begin with.
pub(super) fn is_public(address: Ipv4Addr) -> bool {
    let lists = [NEVER, PRIVATE].into_iter().flat_map(|list| list.split(", "));
    !lists.filter_map(|network| network.parse::<Rule>().ok()).any(|rule| match rule.target {
        Destination::Net(first, prefix) => {
            let bits = (first.to_bits() ^ address.to_bits()).leading_zeros();
            bits >= u32::from(prefix)
        }
        Destination::Name { .. } => false,
    })
}

/// Never reached, whatever the configuration says: this host and link, and the metadata services of clouds that are
/// not link-local (Azure, Alibaba).
const NEVER: &str = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0/4, 240.0.0.0/4, \
                     168.63.129.16, 100.100.100.200";

/// Reached only where the configuration allows it: private networks, carriers' networks, networks of benchmarks.
const PRIVATE: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15";

/// The rules of the host, the same whatever guests there are. `guarded` are devices that forward only because of Tart:
/// what arrives there for others than guests is dropped as before.
pub(super) fn host(table: &str, prefix: &str, guarded: &[String]) -> String {
    let elements = if guarded.is_empty() {
        String::new()
    } else {
        let quoted: Vec<_> = guarded.iter().map(|device| format!("\"{device}\"")).collect();
        format!(" elements = {{ {} }};", quoted.join(", "))
    };
    format!(
        r#"table inet {table} {{}}
delete table inet {table}
table inet {table} {{
  set guarded {{ type ifname;{elements} }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname "{prefix}*" oifname "{prefix}*" drop
    iifname "{prefix}*" meta nfproto != ipv4 drop
    iifname "{prefix}*" fib saddr . iif oif missing drop
    iifname "{prefix}*" ip daddr {{ {NEVER} }} drop
    iifname "{prefix}*" accept
    oifname "{prefix}*" ct state established,related accept
    oifname "{prefix}*" drop
    iifname @guarded ct state new ct status & dnat == 0 drop
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname "{prefix}*" ip protocol icmp drop
    iifname "{prefix}*" limit rate over 50/second drop
    iifname "{prefix}*" reject with icmpx admin-prohibited
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {LINK_NETWORK} oifname != "{prefix}*" masquerade
  }}
}}
"#
    )
}

/// The rules that every guest's namespace begins with: public addresses are reached.
pub(super) fn guest() -> String {
    format!(
        r#"table netdev {TABLE} {{
  counter forged {{ }}
  chain guest {{
    type filter hook ingress device "{TAP}" priority filter; policy drop;
    ether saddr != {GUEST_MAC} counter name forged drop
    ether type arp arp saddr ether {GUEST_MAC} arp saddr ip {GUEST} accept
    ether type arp counter name forged drop
    ether type ip ip saddr {GUEST} accept
    ether type ip counter name forged drop
  }}
}}
table inet {TABLE} {{
  counter up {{ }}
  counter down {{ }}
  counter connections {{ }}
  counter denied {{ }}
  set never {{ type ipv4_addr; flags interval; elements = {{ {NEVER} }}; }}
  set private {{ type ipv4_addr; flags interval; elements = {{ {PRIVATE} }}; }}
  set denied_to {{ type ipv4_addr . inet_proto . inet_service; size 64; flags dynamic; }}
  chain allowed {{
    ct count over {MAX_CONNECTIONS} goto denied
    counter name connections
    counter name up accept
  }}
  chain denied {{
    meta l4proto {{ tcp, udp }} update @denied_to {{ ip daddr . meta l4proto . th dport counter }}
    counter name denied
    limit rate over 50/second drop
    reject with icmpx admin-prohibited
  }}
  chain egress {{
    ip daddr @never goto denied
    ip daddr @private goto denied
    goto allowed
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "{WAN}" oifname "{TAP}" ct state established,related counter name down accept
    iifname "{TAP}" oifname "{WAN}" ct state established,related counter name up accept
    iifname "{TAP}" oifname "{WAN}" ct state new goto egress
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "{TAP}" ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{TAP}" ip daddr {GATEWAY} icmp type echo-request limit rate 10/second accept
    iifname "{TAP}" ip daddr {GATEWAY} reject with icmpx port-unreachable
    iifname "{TAP}" jump denied
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
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

/// A list whose names have sets: which set a rule's addresses go to.
pub(super) fn set_of(list: &str, position: usize) -> String {
    format!("{list}_{position}")
}

/// The lists of a policy whose names have sets, with their prefixes.
pub(super) fn lists(egress: &Egress) -> [(&'static str, &[Rule]); 2] {
    [("allow", &egress.allow), ("job", egress.job.as_deref().unwrap_or_default())]
}

/// Changes [`guest`]'s rules to those of a policy.
pub(super) fn policy(egress: &Egress) -> String {
    let mut text = format!("flush chain inet {TABLE} egress\ntable inet {TABLE} {{\n");
    for (list, rules) in lists(egress) {
        for (position, rule) in rules.iter().enumerate() {
            if matches!(rule.target, Destination::Name { .. }) {
                let set = set_of(list, position);
                line(&mut text, &format!("set {set} {{ type ipv4_addr; flags timeout; size {MAX_NAMED}; }}"));
            }
        }
    }
    if let Some(rules) = &egress.job {
        line(&mut text, "chain job {");
        for (position, rule) in rules.iter().enumerate() {
            line(&mut text, &format!("  {} return", matching(rule, "job", position)));
        }
        line(&mut text, "  goto denied");
        line(&mut text, "}");
    }
    line(&mut text, "chain egress {");
    line(&mut text, "  ip daddr @never goto denied");
    for (position, rule) in egress.deny.iter().enumerate() {
        if matches!(rule.target, Destination::Net(..)) {
            line(&mut text, &format!("  {} goto denied", matching(rule, "deny", position)));
        }
    }
    if egress.job.is_some() {
        line(&mut text, "  jump job");
    }
    for (position, rule) in egress.allow.iter().enumerate() {
        line(&mut text, &format!("  {} goto allowed", matching(rule, "allow", position)));
    }
    line(&mut text, "  ip daddr @private goto denied");
    line(&mut text, if egress.listed { "  goto denied" } else { "  goto allowed" });
    text.push_str("  }\n}\n");
    text
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _written = writeln!(text, "  {line}");
}

fn matching(rule: &Rule, list: &str, position: usize) -> String {
    let to = match &rule.target {
        Destination::Net(address, prefix) => format!("ip daddr {address}/{prefix}"),
        Destination::Name { .. } => format!("ip daddr @{}", set_of(list, position)),
    };
    match &rule.ports {
        Some(ports) => {
            format!("{to} meta l4proto {{ tcp, udp }} th dport {}-{}", ports.start(), ports.end())
        }
        None => to,
    }
}

/// Puts addresses into sets for some seconds. Those that are there already are given the new time.
pub(super) fn elements(added: &[(String, Ipv4Addr, u64)]) -> String {
    let mut text = String::new();
    for (set, address, seconds) in added {
        // An element's time is that of its first addition, and only what is there can be deleted.
        let _written = writeln!(
            text,
            "add element inet {TABLE} {set} {{ {address} }}\n\
             delete element inet {TABLE} {set} {{ {address} }}\n\
             add element inet {TABLE} {set} {{ {address} timeout {seconds}s }}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_rules;

    #[test]
    fn the_hosts_rules_name_no_guest() {
        insta::assert_snapshot!(host("tart", "tart-", &["eth0".to_owned()]), @r#"
        table inet tart {}
        delete table inet tart
        table inet tart {
          set guarded { type ifname; elements = { "eth0" }; }
          chain forward {
            type filter hook forward priority filter - 10; policy accept;
            iifname "tart-*" oifname "tart-*" drop
            iifname "tart-*" meta nfproto != ipv4 drop
            iifname "tart-*" fib saddr . iif oif missing drop
            iifname "tart-*" ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0/4, 240.0.0.0/4, 168.63.129.16, 100.100.100.200 } drop
            iifname "tart-*" accept
            oifname "tart-*" ct state established,related accept
            oifname "tart-*" drop
            iifname @guarded ct state new ct status & dnat == 0 drop
          }
          chain input {
            type filter hook input priority filter - 10; policy accept;
            iifname "tart-*" ip protocol icmp drop
            iifname "tart-*" limit rate over 50/second drop
            iifname "tart-*" reject with icmpx admin-prohibited
          }
          chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr 169.254.64.0/20 oifname != "tart-*" masquerade
          }
        }
        "#);
    }

    #[test]
    fn public_is_what_no_list_names() {
        let public = |text: &str| is_public(text.parse().unwrap());
        assert!(
            ["1.1.1.1", "9.255.255.255", "11.0.0.0", "172.32.0.1", "168.63.129.17"].into_iter().all(public)
        );
        let others =
            ["0.0.0.1", "10.255.0.1", "127.0.0.1", "169.254.169.254", "168.63.129.16", "255.255.255.255"];
        assert!(!others.into_iter().any(public));
    }

    #[test]
    fn a_guest_reaches_public_addresses_only() {
        insta::assert_snapshot!(guest(), @r#"
        table netdev tart {
          counter forged { }
          chain guest {
            type filter hook ingress device "tap0" priority filter; policy drop;
            ether saddr != 02:00:00:00:00:01 counter name forged drop
            ether type arp arp saddr ether 02:00:00:00:00:01 arp saddr ip 192.0.0.2 accept
            ether type arp counter name forged drop
            ether type ip ip saddr 192.0.0.2 accept
            ether type ip counter name forged drop
          }
        }
        table inet tart {
          counter up { }
          counter down { }
          counter connections { }
          counter denied { }
          set never { type ipv4_addr; flags interval; elements = { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0/4, 240.0.0.0/4, 168.63.129.16, 100.100.100.200 }; }
          set private { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15 }; }
          set denied_to { type ipv4_addr . inet_proto . inet_service; size 64; flags dynamic; }
          chain allowed {
            ct count over 4096 goto denied
            counter name connections
            counter name up accept
          }
          chain denied {
            meta l4proto { tcp, udp } update @denied_to { ip daddr . meta l4proto . th dport counter }
            counter name denied
            limit rate over 50/second drop
            reject with icmpx admin-prohibited
          }
          chain egress {
            ip daddr @never goto denied
            ip daddr @private goto denied
            goto allowed
          }
          chain forward {
            type filter hook forward priority filter; policy drop;
            iifname "wan" oifname "tap0" ct state established,related counter name down accept
            iifname "tap0" oifname "wan" ct state established,related counter name up accept
            iifname "tap0" oifname "wan" ct state new goto egress
          }
          chain input {
            type filter hook input priority filter; policy drop;
            iifname "tap0" ip daddr 192.0.0.1 meta l4proto { tcp, udp } th dport 53 accept
            iifname "tap0" ip daddr 192.0.0.1 icmp type echo-request limit rate 10/second accept
            iifname "tap0" ip daddr 192.0.0.1 reject with icmpx port-unreachable
            iifname "tap0" jump denied
          }
          chain output {
            type filter hook output priority filter; policy drop;
            oifname "tap0" accept
          }
          chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            oifname "wan" masquerade
          }
        }
        "#);
    }

    #[test]
    fn a_policy_denies_first_then_narrows_then_allows() {
        let rules = |list: &[&str]| parse_rules(list.iter().copied()).unwrap();
        let egress = Egress {
            listed: true,
            allow: rules(&["10.0.0.0/8:443", "*.example.com", "db.example.com:5432-5433"]),
            deny: rules(&["10.1.0.0/16", "bad.example.com"]),
            job: Some(rules(&["10.2.0.0/16", "example.com:443"])),
        };
        insta::assert_snapshot!(policy(&egress), @"
        flush chain inet tart egress
        table inet tart {
          set allow_1 { type ipv4_addr; flags timeout; size 4096; }
          set allow_2 { type ipv4_addr; flags timeout; size 4096; }
          set job_1 { type ipv4_addr; flags timeout; size 4096; }
          chain job {
            ip daddr 10.2.0.0/16 return
            ip daddr @job_1 meta l4proto { tcp, udp } th dport 443-443 return
            goto denied
          }
          chain egress {
            ip daddr @never goto denied
            ip daddr 10.1.0.0/16 goto denied
            jump job
            ip daddr 10.0.0.0/8 meta l4proto { tcp, udp } th dport 443-443 goto allowed
            ip daddr @allow_1 goto allowed
            ip daddr @allow_2 meta l4proto { tcp, udp } th dport 5432-5433 goto allowed
            ip daddr @private goto denied
            goto denied
          }
        }
        ");
        insta::assert_snapshot!(elements(&[("allow_1".to_owned(), [192, 0, 2, 7].into(), 300)]), @"
        add element inet tart allow_1 { 192.0.2.7 }
        delete element inet tart allow_1 { 192.0.2.7 }
        add element inet tart allow_1 { 192.0.2.7 timeout 300s }
        ");
    }
}
