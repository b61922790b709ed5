//! Guests against a host and an outside that are namespaces of the test: needs root, `ip` and `nft`.

mod helped;
mod lab;
mod unprivileged;

use std::{net::UdpSocket, time::Duration};

use super::{
    address::{GATEWAY, GATEWAY6, GUEST, Link},
    system::{ip, nft, program},
};
use crate::{AttachRequest, Egress, parse_rules};
use lab::{
    AZURE, BULK, HOST, HOST6, Lab, LabGuest, METADATA, METADATA6, OTHER, OUTSIDE, OUTSIDE6, PRIVATE,
    PRIVATE6, PUBLIC, PUBLIC6, Way, finds,
};

fn policy(listed: bool, allow: &[&str], deny: &[&str], job: Option<&[&str]>) -> AttachRequest {
    let rules = |list: &[&str]| parse_rules(list.iter().copied()).unwrap();
    let egress = Egress { listed, allow: rules(allow), deny: rules(deny), job: job.map(rules) };
    AttachRequest { egress, ..AttachRequest::default() }
}

/// Tests of networks that this process makes itself, and of those that a helper makes.
macro_rules! both_ways {
    ($($name:ident),* $(,)?) => {
        mod by_itself {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Way::Own).await;
            })*
        }
        mod by_the_helper {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Way::Helper).await;
            })*
        }
    };
}

both_ways!(
    a_guest_finds_public_servers_and_nothing_of_the_host_clouds_or_other_guests,
    forged_addresses_go_nowhere,
    lists_decide_by_address_port_and_name,
    a_job_narrows_what_the_runner_allows_and_does_not_widen_it,
    a_bandwidth_is_not_exceeded,
    nothing_is_left_on_the_host,
    every_guest_begins_anew,
);

async fn a_guest_finds_public_servers_and_nothing_of_the_host_clouds_or_other_guests(way: Way) {
    let lab = Lab::new().await;
    let network = lab.network_by(way).await;
    let guest = LabGuest::attach(&network, AttachRequest::default()).await;
    let other = LabGuest::attach(&network, AttachRequest::default()).await;
    let own: Vec<_> = (0..4).map(|slot| Link::new("tart-", slot)).collect();

    // The same scan from elsewhere shows that there is something to find.
    for address in [PUBLIC, PRIVATE, METADATA, AZURE, HOST, PUBLIC6, PRIVATE6, METADATA6, HOST6] {
        assert!(finds(&lab.host, address, 80).await, "{address} has a server");
    }
    for neighbour in [OUTSIDE, OUTSIDE6] {
        assert!(finds(&lab.host, neighbour, 80).await, "{neighbour} has a server");
    }
    assert!(guest.finds(PUBLIC, 80).await, "the scan finds what is allowed");
    assert!(guest.finds(PUBLIC6, 80).await, "by IPv6 too");
    assert!(other.finds(PUBLIC, 80).await);

    let fixed = [
        HOST,
        OUTSIDE,
        PRIVATE,
        METADATA,
        AZURE,
        "0.0.0.0",
        "127.0.0.1",
        HOST6,
        OUTSIDE6,
        PRIVATE6,
        METADATA6,
        "::",
        "::1",
        "::ffff:10.9.9.9",
        "64:ff9b::10.9.9.9",
    ];
    let mut hidden: Vec<_> = fixed.map(str::to_owned).into();
    hidden.extend([GATEWAY.to_string(), GATEWAY6.to_string()]);
    for link in &own {
        hidden.extend([link.host.to_string(), link.inner.to_string()]);
        hidden.extend([link.host6.to_string(), link.inner6.to_string()]);
    }
    for address in hidden {
        assert!(!guest.finds(&address, 80).await, "{address}");
    }
    // Nor does the host's network find a guest.
    for link in &own {
        assert!(!finds(&lab.outside, &link.inner.to_string(), 80).await);
    }

    let usage = guest.attachment.usage().await;
    // A first packet that had to be sent again is one more.
    assert!((2..6).contains(&usage.counters.connections), "{usage:?}");
    assert!(usage.counters.bytes_up > 0 && usage.counters.bytes_down > 0);
    let carried: Vec<_> = usage.carried.iter().map(|to| to.destination.as_str()).collect();
    assert!(carried.contains(&format!("{PUBLIC}:80/tcp").as_str()), "{carried:?}");
    let (up, down) =
        usage.carried.iter().fold((0, 0), |(up, down), to| (up + to.bytes_up, down + to.bytes_down));
    assert_eq!((up, down), (usage.counters.bytes_up, usage.counters.bytes_down), "all of it was TCP");
    let denied: Vec<_> = usage.denied.iter().map(ToString::to_string).collect();
    assert!(denied.contains(&"10.9.9.9:80/tcp".to_owned()), "{denied:?}");
    assert!(denied.contains(&"169.254.169.254:80/tcp".to_owned()), "{denied:?}");
    assert!(denied.contains(&"[fd00:ec2::254]:80/tcp".to_owned()), "{denied:?}");
    assert_eq!(usage.forged, 0);
    guest.end().await;
    other.end().await;
    network.end().await;
}

async fn forged_addresses_go_nowhere(way: Way) {
    let lab = Lab::new().await;
    let network = lab.network_by(way).await;
    let guest = LabGuest::attach(&network, AttachRequest::default()).await;
    let bind = || {
        let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Ok(socket)
    };
    let sink = lab.outside.run(bind).await.unwrap();

    // By IP address, then by its own: only the second arrives, so the first was not just slow.
    guest.ip("address add 198.51.100.77/32 dev eth0\n").await;
    let send = || {
        for (from, text) in [("198.51.100.77:0", "forged"), ("192.0.0.2:0", "own")] {
            UdpSocket::bind(from).unwrap().send_to(text.as_bytes(), "198.51.100.10:9").unwrap();
        }
        Ok(())
    };
    guest.namespace.run(send).await.unwrap();
    let receive = move || {
        let mut buffer = [0; 16];
        let (len, from) = sink.recv_from(&mut buffer).unwrap();
        Ok((String::from_utf8_lossy(&buffer[..len]).into_owned(), from.ip().to_string()))
    };
    let received = lab.outside.run(receive).await.unwrap();
    assert_eq!(received, ("own".to_owned(), "203.0.113.2".to_owned()));
    let by_address = guest.attachment.usage().await.forged;
    assert!(by_address > 0);

    guest.ip("address add 2001:db8::77/128 dev eth0 nodad\n").await;
    let send = || Ok(UdpSocket::bind("[2001:db8::77]:0").unwrap().send_to(b"forged", (PUBLIC6, 9)).unwrap());
    guest.namespace.run(send).await.unwrap();
    let by_address = guest.counts_forged_beyond(by_address).await;

    // By MAC address.
    guest.ip("link set eth0 address 02:00:00:00:00:99\n").await;
    assert!(!guest.finds(PUBLIC, 80).await);
    guest.ip("link set eth0 address 02:00:00:00:00:01\naddress delete 2001:db8::77/128 dev eth0\n").await;
    guest.ip("route replace default via 192.0.0.1\n").await;
    assert!(guest.finds(PUBLIC, 80).await);
    let by_mac = guest.attachment.usage().await.forged;
    assert!(by_mac > by_address);

    // By ARP: as the gateway, and as another owner of the guest's own address.
    for (ip, mac) in [(GATEWAY, 1), (GUEST, 0x99)] {
        let mac = [2, 0, 0, 0, 0, mac];
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac, &ip.octets(), &[0xff; 6], &ip.octets()].concat();
        guest.inject(&[&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &arp].concat());
    }
    assert!(guest.attachment.usage().await.forged >= by_mac + 2);
    assert!(guest.finds(PUBLIC, 80).await);
    guest.end().await;
    network.end().await;
}

async fn lists_decide_by_address_port_and_name(way: Way) {
    let lab = Lab::new().await;
    let network = lab.network_by(way).await;
    let allow = ["public.test:80", "private.test", "metadata.test", "198.51.100.11:81"];
    let guest = LabGuest::attach(&network, policy(true, &allow, &["no.public.test"], None)).await;
    assert!(!guest.finds(PUBLIC, 80).await, "its name was not looked up");
    assert!(!guest.finds(OTHER, 80).await, "another port");
    for name in ["public.test", "private.test", "metadata.test"] {
        assert_eq!(guest.looks_up(name).await, 0, "{name}");
    }
    assert_eq!(guest.looks_up("other.test").await, 5, "refused");
    assert_eq!(guest.looks_up("no.public.test").await, 5, "refused");
    assert_eq!(guest.looks_up_over_tcp("public.test").await, 0);
    assert!(guest.finds(PUBLIC, 80).await);
    assert!(!guest.finds(PUBLIC6, 80).await, "that address was not looked up");
    assert_eq!(guest.looks_up_ipv6("public.test").await, 0);
    assert!(guest.finds(PUBLIC6, 80).await);
    assert!(guest.finds(PRIVATE, 80).await, "private, but allowed by name");
    assert!(!guest.finds(METADATA, 80).await, "a name makes nothing of what is never reached reachable");
    let denied = guest.attachment.usage().await.denied;
    assert!(denied.iter().any(|denied| denied.destination == "other.test"), "{denied:?}");
    assert!(!guest.finds(OUTSIDE, 53).await, "other name servers are no way out");
    guest.end().await;

    let guest = LabGuest::attach(
        &network,
        policy(false, &["fd99::/16"], &["198.51.100.11", "2001:db8:5::/48"], None),
    )
    .await;
    assert!(guest.finds(PUBLIC, 80).await);
    assert!(!guest.finds(OTHER, 80).await, "denied");
    assert!(!guest.finds(PUBLIC6, 80).await, "denied");
    assert!(guest.finds(PRIVATE6, 80).await, "allowed");
    guest.end().await;
    network.end().await;
}

async fn a_job_narrows_what_the_runner_allows_and_does_not_widen_it(way: Way) {
    let lab = Lab::new().await;
    let network = lab.network_by(way).await;
    let job: &[&str] = &["198.51.100.11", "10.9.9.9", "private.test"];
    let guest = LabGuest::attach(&network, policy(false, &[], &[], Some(job))).await;
    assert_eq!(guest.looks_up("private.test").await, 0);
    assert_eq!(guest.looks_up("public.test").await, 5);
    assert!(guest.finds(OTHER, 80).await);
    assert!(!guest.finds(PUBLIC, 80).await, "not on the job's list");
    assert!(!guest.finds(PRIVATE, 80).await, "on the job's list, but not the runner's to give");
    guest.end().await;
    network.end().await;
}

async fn a_bandwidth_is_not_exceeded(way: Way) {
    let lab = Lab::new().await;
    let network = lab.network_by(way).await;
    let request = AttachRequest { bandwidth: Some(1 << 20), ..AttachRequest::default() };
    let guest = LabGuest::attach(&network, request).await;
    // The first 128 KiB are not held back.
    let least = Duration::from_secs_f64((BULK - (128 << 10)) as f64 / f64::from(1 << 20)).mul_f64(0.95);
    let took = guest.downloads().await;
    assert!(took >= least, "{took:?}, at least {least:?}");
    guest.end().await;
    network.end().await;
}

async fn nothing_is_left_on_the_host(way: Way) {
    let lab = Lab::new().await;
    assert_eq!(lab.left().await, "");
    let network = lab.network_by(way).await;
    let guest = LabGuest::attach(&network, AttachRequest::default()).await;
    assert!(lab.left().await.contains("forwarding"));
    guest.end().await;
    network.end().await;
    assert_eq!(lab.left().await, "");
    assert!(!lab.locks().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_that_come_and_go_at_once_do_not_disturb_each_other() {
    let lab = std::sync::Arc::new(Lab::new().await);
    let mut runners = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let lab = lab.clone();
        runners.spawn(async move {
            for _ in 0..4 {
                let network = lab.network().await;
                let guest = LabGuest::attach(&network, AttachRequest::default()).await;
                assert!(guest.finds(PUBLIC, 80).await);
                guest.end().await;
            }
        });
    }
    while let Some(ended) = runners.join_next().await {
        ended.unwrap();
    }
    assert_eq!(lab.left().await, "");
}

#[tokio::test]
async fn a_host_that_forwards_for_guests_is_no_router_for_others() {
    let lab = Lab::new().await;
    let inside = lab.inside("10.55.0.2").await;
    lab.outside.run(|| ip("route add 10.55.0.0/24 via 203.0.113.2\n")).await.unwrap();
    let network = lab.network().await;
    let guest = LabGuest::attach(&network, AttachRequest::default()).await;
    assert!(guest.finds(PUBLIC, 80).await);
    assert!(!finds(&lab.outside, "10.55.0.2", 80).await);
    assert!(!finds(&inside, OUTSIDE, 80).await);
    guest.end().await;
    drop(network);
    // As a router, it would let both pass.
    lab.host.run(|| super::system::set("ipv4/ip_forward", "1")).await.unwrap();
    assert!(finds(&lab.outside, "10.55.0.2", 80).await);
    let network = lab.network().await;
    assert!(finds(&inside, OUTSIDE, 80).await, "what the host forwards anyway is its own affair");
    drop(network);
}

#[tokio::test]
async fn what_a_killed_runner_left_is_removed_and_what_a_living_one_has_is_not() {
    let lab = Lab::new().await;
    // As a killed runner leaves it: a link, rules, and a device that forwards.
    let locks = lab.locks();
    std::fs::create_dir_all(&locks).unwrap();
    std::fs::write(locks.join("guarded"), "ipv4/conf/up0/forwarding").unwrap();
    let leave = || {
        ip("link add tart-7 type veth peer name lab-x\n")?;
        nft("table inet tart {\n chain stale {\n }\n}\n")?;
        super::system::set("ipv4/conf/up0/forwarding", "1")
    };
    lab.host.run(leave).await.unwrap();
    let network = lab.network().await;
    let left = lab.left().await;
    assert!(!left.contains("tart-7") && !left.contains("stale"), "{left}");

    let guest = LabGuest::attach(&network, AttachRequest::default()).await;
    let second = lab.network().await;
    assert!(guest.finds(PUBLIC, 80).await, "a second runner takes nothing from the first");
    drop(second);
    assert!(guest.finds(PUBLIC, 80).await, "nor does its end");
    guest.end().await;
    drop(network);
    assert_eq!(lab.left().await, "");
}

async fn every_guest_begins_anew(way: Way) {
    let lab = Lab::new().await;
    let network = lab.network_by(way).await;
    for _ in 0..3 {
        let guest = LabGuest::attach(&network, AttachRequest::default()).await;
        let before = guest.attachment.usage().await;
        assert_eq!(before, crate::Usage::default());
        assert!(guest.finds(PUBLIC, 80).await);
        let entries = guest.namespace.run(|| program("ip", &["neighbour", "show"], ""));
        assert!(entries.await.unwrap().contains("192.0.0.1"));
        guest.end().await;
    }
    network.end().await;
}
