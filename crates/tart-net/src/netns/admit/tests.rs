use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Rule, netns::rules::List};

fn net(address: &str, prefix: u8) -> Match {
    Match { to: To::Net(address.parse().unwrap(), prefix), ports: None }
}

const NAMED: Match = Match { to: To::Named, ports: None };

fn element(list: List, rule: usize, seconds: u32) -> Element {
    Element { set: Set { list, rule }, address: [192, 0, 2, 1].into(), seconds }
}

fn allowing(allow: Vec<Match>) -> Request {
    Request::Rule(Policy { allow, ..Policy::default() })
}

const CREATE: Request = Request::Create { named_tap: false };

#[test]
fn requests_come_in_their_order_and_once() {
    let now = Instant::now();
    let mut admission = Admission::default();
    assert_eq!(admission.admit(&Request::Describe, now), Ok(()));
    let hold = Request::Hold(vec![element(List::Allow, 1, 300)]);
    let rule = allowing(vec![net("10.0.0.0", 8), NAMED]);
    for early in [&rule, &Request::Shape { bytes: 1 }, &hold, &Request::Counts, &Request::Remove] {
        assert_eq!(admission.admit(early, now), Err(Refusal::NotMade));
    }
    assert_eq!(admission.admit(&CREATE, now), Ok(()));
    assert_eq!(admission.admit(&CREATE, now), Err(Refusal::Made));
    let set = Set { list: List::Allow, rule: 1 };
    assert_eq!(admission.admit(&hold, now), Err(Refusal::NoSet(set)), "it has no policy");
    assert_eq!(admission.admit(&rule, now), Ok(()));
    assert_eq!(admission.admit(&rule, now), Err(Refusal::Ruled));
    assert_eq!(admission.admit(&Request::Shape { bytes: 1 << 20 }, now), Ok(()));
    assert_eq!(admission.admit(&Request::Shape { bytes: 1 << 20 }, now), Err(Refusal::Shaped));
    for _ in 0..2 {
        assert_eq!(admission.admit(&hold, now), Ok(()));
        assert_eq!(admission.admit(&Request::Counts, now), Ok(()));
    }
    assert_eq!(admission.admit(&Request::Remove, now), Ok(()));
}

#[test]
fn what_is_refused_is_said() {
    let now = Instant::now();
    let mut ruled = Admission::default();
    ruled.admit(&CREATE, now).unwrap();
    ruled.admit(&allowing(vec![net("10.0.0.0", 8), NAMED]), now).unwrap();
    let ports = |first, last| allowing(vec![Match { ports: Some((first, last)), ..NAMED }]);
    let policies = [
        allowing(vec![NAMED; MAX_RULES + 1]),
        allowing(vec![net("10.1.0.0", 8)]),
        allowing(vec![net("10.0.0.0", 33)]),
        allowing(vec![net("fd00::", 129)]),
        ports(0, 80),
        ports(81, 80),
        Request::Shape { bytes: 0 },
        Request::Shape { bytes: u64::MAX },
    ];
    let mut said: Vec<_> = policies
        .iter()
        .map(|request| {
            let mut admission = Admission::default();
            admission.admit(&CREATE, now).unwrap();
            admission.admit(request, now).unwrap_err().to_string()
        })
        .collect();
    let holds = [
        vec![element(List::Allow, 1, 300); MAX_ELEMENTS + 1],
        vec![element(List::Allow, 0, 300)],
        vec![element(List::Job, 0, 300)],
        vec![element(List::Allow, usize::MAX, 300)],
        vec![element(List::Allow, 1, 300), element(List::Allow, 1, 3601)],
    ];
    said.extend(holds.map(|hold| ruled.admit(&Request::Hold(hold), now).unwrap_err().to_string()));
    insta::assert_snapshot!(said.join("\n"), @"
    a list of a policy has 257 entries; 256 are the most
    10.1.0.0/8 is no network: only its first address and a prefix of its family name it
    10.0.0.0/33 is no network: only its first address and a prefix of its family name it
    fd00::/129 is no network: only its first address and a prefix of its family name it
    0-80 are no ports
    81-80 are no ports
    0 bytes in a second are no bandwidth; it is from 1 to 137438953472
    18446744073709551615 bytes in a second are no bandwidth; it is from 1 to 137438953472
    513 addresses at once; 512 are the most
    the policy has no names whose addresses go to allow_0
    the policy has no names whose addresses go to job_0
    the policy has no names whose addresses go to allow_18446744073709551615
    3601 seconds are no time for an address; it is from 120 to 3600
    ");
}

#[test]
fn addresses_are_bounded_until_their_time_is_over() {
    let (now, mut admission) = (Instant::now(), Admission::default());
    admission.admit(&CREATE, now).unwrap();
    admission.admit(&allowing(vec![NAMED]), now).unwrap();
    let some = |start: usize| {
        let address = |n: usize| Ipv4Addr::from_bits(u32::try_from(start + n).unwrap()).into();
        Request::Hold(
            (0..MAX_ELEMENTS)
                .map(|n| Element { address: address(n), ..element(List::Allow, 0, 120) })
                .collect(),
        )
    };
    for start in (0..MAX_HELD).step_by(MAX_ELEMENTS) {
        assert_eq!(admission.admit(&some(start), now), Ok(()));
    }
    assert_eq!(admission.admit(&some(0), now), Ok(()), "they are there");
    assert_eq!(admission.admit(&some(MAX_HELD), now), Err(Refusal::Held));
    let later = now + Duration::from_secs(121);
    assert_eq!(admission.admit(&some(MAX_HELD), later), Ok(()));
}

#[test]
fn what_is_no_request_is_not_read() {
    let element = r#""address":"192.0.2.1","seconds":300"#;
    for text in [
        r#""destroy""#.to_owned(),
        r#"{"create":{}}"#.to_owned(),
        r#"{"create":{"named_tap":false,"netns":"/proc/1/ns/net"}}"#.to_owned(),
        r#"{"shape":{"bytes":-1}}"#.to_owned(),
        r#"{"shape":{"bytes":"1bps\nqdisc"}}"#.to_owned(),
        r#"{"rule":{"listed":true,"allow":[{"to":{"net":["10.0.0.0/8; flush ruleset",8]},"ports":null}],"deny":[],"job":null}}"#.to_owned(),
        r#"{"rule":{"listed":true,"allow":[],"deny":[],"job":null,"script":"flush ruleset"}}"#.to_owned(),
        format!(r#"{{"hold":[{{"set":{{"list":"never","rule":0}},{element}}}]}}"#),
        format!(r#"{{"hold":[{{"set":{{"list":"allow","rule":-1}},{element}}}]}}"#),
        format!(r#"{{"hold":[{{"set":"allow_0 {{ 10.0.0.1 }}",{element}}}]}}"#),
    ] {
        assert!(serde_json::from_str::<Request>(&text).is_err(), "{text}");
    }
    let good = format!(r#"{{"hold":[{{"set":{{"list":"allow","rule":0}},{element}}}]}}"#);
    assert!(serde_json::from_str::<Request>(&good).is_ok());
}

#[test]
fn the_longest_requests_fit_into_a_message() {
    let longest = Match { to: To::Net([0xffff; 8].into(), 128), ports: Some((65535, 65535)) };
    let list = vec![longest; MAX_RULES];
    let policy = Policy { listed: false, allow: list.clone(), deny: list.clone(), job: Some(list) };
    let set = Set { list: List::Allow, rule: MAX_RULES };
    let hold = vec![Element { set, address: [0xffff; 8].into(), seconds: 3600 }; MAX_ELEMENTS];
    for request in [Request::Rule(policy), Request::Hold(hold)] {
        let text = serde_json::to_string(&request).unwrap();
        assert!(text.len() <= tart_root_helper::MAX_MESSAGE, "{}", text.len());
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

/// About half of them are ones that a configuration could have.
pub(in crate::netns) fn rule() -> impl Strategy<Value = Match> {
    let networks = (address(), 0..=140_u8, prop::bool::weighted(0.9)).prop_map(|(address, prefix, first)| {
        let start =
            if first && prefix <= bits(address) { crate::policy::first(address, prefix) } else { address };
        To::Net(start, prefix)
    });
    let ports = (any::<u16>(), any::<u16>(), prop::bool::weighted(0.9)).prop_map(|(one, other, sorted)| {
        if sorted { (one.min(other), one.max(other)) } else { (one, other) }
    });
    (prop_oneof![Just(To::Named), networks], prop::option::of(ports))
        .prop_map(|(to, ports)| Match { to, ports })
}

pub(in crate::netns) fn policy() -> impl Strategy<Value = Policy> {
    let list = || prop_oneof![9 => vec(rule(), 0..4), 1 => vec(rule(), MAX_RULES - 1..MAX_RULES + 3)];
    (any::<bool>(), list(), list(), prop::option::of(list())).prop_map(|(listed, allow, deny, job)| Policy {
        listed,
        allow,
        deny,
        job,
    })
}

/// The same by the configuration's own parser.
fn could_be_configured(rule: &Match) -> bool {
    let ports = rule.ports.map_or_else(String::new, |(first, last)| format!(":{first}-{last}"));
    let text = match rule.to {
        To::Net(address, prefix) if address.is_ipv6() => format!("[{address}/{prefix}]{ports}"),
        To::Net(address, prefix) => format!("{address}/{prefix}{ports}"),
        To::Named => format!("example.com{ports}"),
    };
    text.parse::<Rule>().is_ok_and(|parsed| Match::from(&parsed) == *rule)
}

fn request() -> impl Strategy<Value = Request> {
    let list = prop_oneof![Just(List::Allow), Just(List::Job)];
    let element = (list, 0..5_usize, address(), 100..3700_u32)
        .prop_map(|(list, rule, address, seconds)| Element { set: Set { list, rule }, address, seconds });
    prop_oneof![
        Just(Request::Describe),
        any::<bool>().prop_map(|named_tap| Request::Create { named_tap }),
        policy().prop_map(Request::Rule),
        any::<u64>().prop_map(|bytes| Request::Shape { bytes }),
        vec(element, 0..3).prop_map(Request::Hold),
        Just(Request::Counts),
    ]
}

proptest! {
    #[test]
    fn only_policies_that_a_configuration_could_have_are_admitted(policy in policy()) {
        let good = policy.lists().iter().all(|list| list.len() <= MAX_RULES && list.iter().all(could_be_configured));
        prop_assert_eq!(check(&policy).is_ok(), good);
        let script = policy.script();
        let harmless = |c: char| c.is_ascii_alphanumeric() || " \n{}@_./:,;-".contains(c);
        prop_assert!(script.chars().all(harmless), "{}", script);
    }

    #[test]
    fn addresses_go_only_to_sets_that_the_policy_made(requests in vec(request(), 0..12)) {
        let (now, mut admission) = (Instant::now(), Admission::default());
        let mut sets = String::new();
        admission.admit(&CREATE, now).unwrap();
        for request in requests {
            if admission.admit(&request, now).is_err() {
                continue;
            }
            match request {
                Request::Rule(policy) => {
                    prop_assert!(sets.is_empty(), "there is one policy");
                    sets = policy.script();
                }
                Request::Hold(elements) => for Element { set, seconds, .. } in elements {
                    prop_assert!(sets.contains(&format!("  set {set} {{")), "{}", set);
                    prop_assert!(HOLD.contains(&seconds));
                },
                _ => {}
            }
        }
    }

    #[test]
    fn any_text_is_a_request_or_none(text in r#"(\{"(rule|hold|shape|create)":)?[\[\]{}a-z0-9:", ]{0,60}"#) {
        if let Ok(request) = serde_json::from_str::<Request>(&text) {
            let _either = Admission::default().admit(&request, Instant::now());
        }
    }
}
