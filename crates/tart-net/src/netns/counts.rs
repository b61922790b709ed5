//! What the rules of a guest's namespace have counted, read from `nft --json`. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;
use serde_json::Value;

use crate::Denied;

/// The counters of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) denied: u64,
    pub(super) forged: u64,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    /// Bytes up and down, by address and by `address:port/protocol`.
    pub(super) carried: BTreeMap<(IpAddr, String), (u64, u64)>,
    /// Where to.
    pub(super) denied_to: Vec<Denied>,
}

#[derive(Deserialize)]
struct Answer {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    counter: Option<Counter>,
    set: Option<Set>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    packets: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<Value>,
}

/// Reads `nft --json list ruleset`.
pub(super) fn parse_counts(json: &str) -> Counts {
    let mut counts = Counts::default();
    let Ok(answer) = serde_json::from_str::<Answer>(json) else { return counts };
    for object in answer.nftables {
        if let Some(counter) = object.counter {
            match counter.name.as_str() {
                "connections" => counts.connections = counter.packets,
                "denied" => counts.denied = counter.packets,
                "forged" => counts.forged = counter.packets,
                "up" => counts.bytes_up = counter.bytes,
                "down" => counts.bytes_down = counter.bytes,
                _ => {}
            }
        }
        let Some(set) = object.set else { continue };
        let elements = set.elem.iter().filter_map(Element::read);
        match set.name.trim_end_matches("_v6") {
            "denied_to" => counts.denied_to.extend(
                elements
                    .map(|element| Denied { destination: element.destination(), packets: element.packets }),
            ),
            "sent" => elements.for_each(|element| {
                counts.carried.entry(element.key()).or_default().0 += element.bytes;
            }),
            "received" => elements.for_each(|element| {
                counts.carried.entry(element.key()).or_default().1 += element.bytes;
            }),
            _ => {}
        }
    }
    counts
}

/// `{"elem": {"val": {"concat": ["192.0.2.1", "tcp", 22]}, "counter": {"packets": 1, "bytes": 60}}}`
struct Element {
    address: IpAddr,
    protocol: String,
    port: String,
    packets: u64,
    bytes: u64,
}

impl Element {
    fn read(element: &Value) -> Option<Self> {
        let element = element.get("elem")?;
        let [address, protocol, port] = element.get("val")?.get("concat")?.as_array()?.as_slice() else {
            return None;
        };
        let number = port.as_u64().map(|port| port.to_string());
        let counter = element.get("counter")?;
        Some(Self {
            address: address.as_str()?.parse().ok()?,
            protocol: protocol.as_str()?.to_owned(),
            port: number.or_else(|| port.as_str().map(str::to_owned))?,
            packets: counter.get("packets")?.as_u64()?,
            bytes: counter.get("bytes")?.as_u64()?,
        })
    }

    fn key(&self) -> (IpAddr, String) {
        (self.address, self.destination())
    }

    fn destination(&self) -> String {
        let Self { address, protocol, port, .. } = self;
        match address {
            IpAddr::V4(address) => format!("{address}:{port}/{protocol}"),
            IpAddr::V6(address) => format!("[{address}]:{port}/{protocol}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_denied_destinations_are_read() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "up", "table": "tart", "handle": 1, "packets": 3, "bytes": 180}},
            {"counter": {"family": "netdev", "name": "forged", "table": "tart", "handle": 1, "packets": 2, "bytes": 9}},
            {"set": {"family": "inet", "name": "denied_to", "elem": [
                {"elem": {"val": {"concat": ["10.0.0.1", "udp", 53]}, "counter": {"packets": 1, "bytes": 60}}},
                {"elem": {"val": {"concat": ["10.0.0.1", "tcp", 22]}, "counter": {"packets": 2, "bytes": 120}}},
                "surprise"]}},
            {"set": {"family": "inet", "name": "denied_to_v6", "elem": [
                {"elem": {"val": {"concat": ["2001:db8::1", "tcp", 22]}, "counter": {"packets": 5, "bytes": 60}}}]}},
            {"set": {"family": "inet", "name": "sent", "elem": [
                {"elem": {"val": {"concat": ["192.0.2.1", "tcp", 443]}, "counter": {"packets": 5, "bytes": 500}}}]}},
            {"set": {"family": "inet", "name": "received", "elem": [
                {"elem": {"val": {"concat": ["192.0.2.1", "tcp", 443]}, "counter": {"packets": 5, "bytes": 7000}}},
                {"elem": {"val": {"concat": ["192.0.2.1", "udp", 443]}, "counter": {"packets": 1, "bytes": 90}}}]}}]}"#;
        let counts = parse_counts(json);
        assert_eq!((counts.bytes_up, counts.forged), (180, 2));
        let denied: Vec<_> = counts.denied_to.iter().map(ToString::to_string).collect();
        assert_eq!(denied, ["10.0.0.1:53/udp", "10.0.0.1:22/tcp", "[2001:db8::1]:22/tcp"]);
        let carried: Vec<_> =
            counts.carried.iter().map(|((_, to), bytes)| format!("{to} {bytes:?}")).collect();
        assert_eq!(carried, ["192.0.2.1:443/tcp (500, 7000)", "192.0.2.1:443/udp (0, 90)"]);
        assert_eq!(parse_counts("nonsense"), Counts::default());
    }
}
