use super::*;
use crate::{Egress, policy::parse_rules};

#[test]
fn the_hosts_rules_name_no_guest() {
    let guarded = Guarded { ipv4: vec!["eth0".to_owned(), "eth1".to_owned()], ipv6: Vec::new() };
    insta::assert_snapshot!(host("tart", "tart-", &guarded), @r#"
    table inet tart {}
    delete table inet tart
    table inet tart {
      set guarded { type ifname; elements = { "eth0", "eth1" }; }
      set guarded_v6 { type ifname; }
      chain forward {
        type filter hook forward priority filter - 10; policy accept;
        iifname "tart-*" oifname "tart-*" drop
        iifname "tart-*" fib saddr . iif oif missing drop
        iifname "tart-*" ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0/4, 240.0.0.0/4, 168.63.129.16, 100.100.100.200 } drop
        iifname "tart-*" ip6 daddr { ::/96, ::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48, 2001::/32, 2002::/16, fe80::/10, ff00::/8, fd00:ec2::/32, fd20:ce::/32, fd74:6172:7400::/48 } drop
        iifname "tart-*" accept
        oifname "tart-*" ct state established,related accept
        oifname "tart-*" drop
        meta nfproto ipv4 iifname @guarded ct state new ct status & dnat == 0 drop
        meta nfproto ipv6 iifname @guarded_v6 ct state new ct status & dnat == 0 drop
      }
      chain input {
        type filter hook input priority filter - 10; policy accept;
        iifname "tart-*" icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        iifname "tart-*" meta l4proto { icmp, ipv6-icmp } drop
        iifname "tart-*" limit rate over 50/second drop
        iifname "tart-*" reject with icmpx admin-prohibited
      }
      chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 169.254.64.0/20 oifname != "tart-*" masquerade
        ip6 saddr fd74:6172:7400:1::/64 oifname != "tart-*" masquerade
      }
    }
    "#);
}

#[test]
fn public_is_what_no_list_names() {
    let connected = Connected::new(["203.0.113.0/24", "2001:db8:1::/64", "0.0.0.0/1", "default"]);
    let public = |text: &str| connected.leaves(text.parse().unwrap());
    let reached =
        ["1.1.1.1", "9.255.255.255", "11.0.0.0", "172.32.0.1", "168.63.129.17", "2001:db8::1", "2606::1"];
    assert!(reached.into_iter().all(public));
    let others = [
        "0.0.0.1",
        "10.255.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "255.255.255.255",
        "203.0.113.7",
        "::1",
        "::ffff:1.1.1.1",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
        "fd12::1",
        "2001:db8:1::1",
    ];
    assert!(!others.into_iter().any(public));
}

#[test]
fn a_guest_reaches_public_addresses_only() {
    let connected = Connected::new(["203.0.113.0/24", "2001:db8:1::/64"]);
    insta::assert_snapshot!(guest(&connected, true), @r#"
    table netdev tart {
      counter forged { }
      chain guest {
        type filter hook ingress device "tap0" priority filter; policy drop;
        ether saddr != 02:00:00:00:00:01 counter name forged drop
        ether type arp arp saddr ether 02:00:00:00:00:01 arp saddr ip 192.0.0.2 accept
        ether type arp counter name forged drop
        ether type ip ip saddr 192.0.0.2 accept
        ether type ip counter name forged drop
        ether type ip6 ip6 saddr fd74:6172:7400::2 accept
        ip6 saddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ip6 saddr { ::, fe80::/10 } drop
        ether type ip6 counter name forged drop
      }
    }
    table inet tart {
      counter up { }
      counter down { }
      counter connections { }
      counter denied { }
      set never { type ipv4_addr; flags interval; elements = { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0/4, 240.0.0.0/4, 168.63.129.16, 100.100.100.200 }; }
      set never_v6 { type ipv6_addr; flags interval; elements = { ::/96, ::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48, 2001::/32, 2002::/16, fe80::/10, ff00::/8, fd00:ec2::/32, fd20:ce::/32, fd74:6172:7400::/48 }; }
      set private { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15, 203.0.113.0/24 }; }
      set private_v6 { type ipv6_addr; flags interval; auto-merge; elements = { fc00::/7, fec0::/10, 2001:db8:1::/64 }; }
      set sent { type ipv4_addr . inet_proto . inet_service; size 1024; flags dynamic; }
      set sent_v6 { type ipv6_addr . inet_proto . inet_service; size 1024; flags dynamic; }
      set received { type ipv4_addr . inet_proto . inet_service; size 1024; flags dynamic; }
      set received_v6 { type ipv6_addr . inet_proto . inet_service; size 1024; flags dynamic; }
      set denied_to { type ipv4_addr . inet_proto . inet_service; size 64; flags dynamic; }
      set denied_to_v6 { type ipv6_addr . inet_proto . inet_service; size 64; flags dynamic; }
      chain allowed {
        ct count over 4096 goto denied
        counter name connections
        goto outwards
      }
      chain outwards {
        meta l4proto { tcp, udp } update @sent { ip daddr . meta l4proto . th dport counter }
        meta l4proto { tcp, udp } update @sent_v6 { ip6 daddr . meta l4proto . th dport counter }
        counter name up accept
      }
      chain inwards {
        meta l4proto { tcp, udp } update @received { ip saddr . meta l4proto . th sport counter }
        meta l4proto { tcp, udp } update @received_v6 { ip6 saddr . meta l4proto . th sport counter }
        counter name down accept
      }
      chain denied {
        meta l4proto { tcp, udp } update @denied_to { ip daddr . meta l4proto . th dport counter }
        meta l4proto { tcp, udp } update @denied_to_v6 { ip6 daddr . meta l4proto . th dport counter }
        counter name denied
        limit rate over 50/second drop
        reject with icmpx admin-prohibited
      }
      chain egress {
        ip daddr @never goto denied
        ip6 daddr @never_v6 goto denied
        ip daddr @private goto denied
        ip6 daddr @private_v6 goto denied
        goto allowed
      }
      chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "wan" oifname "tap0" ct state established,related goto inwards
        iifname "tap0" oifname "wan" ct state established,related goto outwards
        iifname "tap0" oifname "wan" ct state new goto egress
      }
      chain input {
        type filter hook input priority filter; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        iifname "tap0" udp dport 53 limit rate over 500/second burst 500 packets drop
        iifname "tap0" ip daddr 192.0.0.1 meta l4proto { tcp, udp } th dport 53 accept
        iifname "tap0" ip daddr 192.0.0.1 icmp type echo-request limit rate 10/second accept
        iifname "tap0" ip6 daddr fd74:6172:7400::1 icmpv6 type echo-request limit rate 10/second accept
        iifname "tap0" ip daddr 192.0.0.1 reject with icmpx port-unreachable
        iifname "tap0" ip6 daddr fd74:6172:7400::1 reject with icmpx port-unreachable
        iifname "tap0" jump denied
      }
      chain output {
        type filter hook output priority filter; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        oifname "tap0" accept
      }
      chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" masquerade
      }
    }
    "#);
    assert!(!guest(&connected, false).contains("ether type ip6"));
}

#[test]
fn a_policy_denies_first_then_narrows_then_allows() {
    let rules = |list: &[&str]| parse_rules(list.iter().copied()).unwrap();
    let egress = Egress {
        listed: true,
        allow: rules(&["10.0.0.0/8:443", "*.example.com", "db.example.com:5432-5433"]),
        deny: rules(&["10.1.0.0/16", "fd00::/8", "bad.example.com"]),
        job: Some(rules(&["10.2.0.0/16", "example.com:443", "[2001:db8::1]:80"])),
    };
    insta::assert_snapshot!(Policy::from(&egress).script(), @"
    flush chain inet tart egress
    table inet tart {
      set allow_1 { type ipv4_addr; flags timeout; size 4096; }
      set allow_1_v6 { type ipv6_addr; flags timeout; size 4096; }
      set allow_2 { type ipv4_addr; flags timeout; size 4096; }
      set allow_2_v6 { type ipv6_addr; flags timeout; size 4096; }
      set job_1 { type ipv4_addr; flags timeout; size 4096; }
      set job_1_v6 { type ipv6_addr; flags timeout; size 4096; }
      chain job {
        ip daddr 10.2.0.0/16 return
        ip daddr @job_1 meta l4proto { tcp, udp } th dport 443-443 return
        ip6 daddr @job_1_v6 meta l4proto { tcp, udp } th dport 443-443 return
        ip6 daddr 2001:db8::1/128 meta l4proto { tcp, udp } th dport 80-80 return
        goto denied
      }
      chain egress {
        ip daddr @never goto denied
        ip6 daddr @never_v6 goto denied
        ip daddr 10.1.0.0/16 goto denied
        ip6 daddr fd00::/8 goto denied
        jump job
        ip daddr 10.0.0.0/8 meta l4proto { tcp, udp } th dport 443-443 goto allowed
        ip daddr @allow_1 goto allowed
        ip6 daddr @allow_1_v6 goto allowed
        ip daddr @allow_2 meta l4proto { tcp, udp } th dport 5432-5433 goto allowed
        ip6 daddr @allow_2_v6 meta l4proto { tcp, udp } th dport 5432-5433 goto allowed
        ip daddr @private goto denied
        ip6 daddr @private_v6 goto denied
        goto denied
      }
    }
    ");
    let (allow, job) = (Set { list: List::Allow, rule: 1 }, Set { list: List::Job, rule: 1 });
    let added = [
        Element { set: allow, address: [192, 0, 2, 7].into(), seconds: 300 },
        Element { set: job, address: [1_u16; 8].into(), seconds: 60 },
    ];
    insta::assert_snapshot!(elements(&added), @"
    add element inet tart allow_1 { 192.0.2.7 }
    delete element inet tart allow_1 { 192.0.2.7 }
    add element inet tart allow_1 { 192.0.2.7 timeout 300s }
    add element inet tart job_1_v6 { 1:1:1:1:1:1:1:1 }
    delete element inet tart job_1_v6 { 1:1:1:1:1:1:1:1 }
    add element inet tart job_1_v6 { 1:1:1:1:1:1:1:1 timeout 60s }
    ");
}
