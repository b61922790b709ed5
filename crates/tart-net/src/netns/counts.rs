//! What the rules of a guest's namespace have counted, read from `nft --json`. Pure.

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
        if let Some(set) = object.set.filter(|set| set.name.starts_with("denied_to")) {
            counts.denied_to.extend(set.elem.iter().filter_map(denied));
        }
    }
    counts
}

/// `{"elem": {"val": {"concat": ["192.0.2.1", "tcp", 22]}, "counter": {"packets": 1, "bytes": 60}}}`
fn denied(element: &Value) -> Option<Denied> {
    let element = element.get("elem")?;
    let [address, protocol, port] = element.get("val")?.get("concat")?.as_array()?.as_slice() else {
        return None;
    };
    let port =
        port.as_u64().map_or_else(|| port.as_str().unwrap_or_default().to_owned(), |port| port.to_string());
    let packets = element.get("counter")?.get("packets")?.as_u64()?;
    let (address, protocol) = (address.as_str()?, protocol.as_str()?);
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    Some(Denied { destination: format!("{address}:{port}/{protocol}"), packets })
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
                {"elem": {"val": {"concat": ["2001:db8::1", "tcp", 22]}, "counter": {"packets": 5, "bytes": 60}}}]}}]}"#;
        let counts = parse_counts(json);
        assert_eq!((counts.bytes_up, counts.forged), (180, 2));
        let denied: Vec<_> = counts.denied_to.iter().map(ToString::to_string).collect();
        assert_eq!(denied, ["10.0.0.1:53/udp", "10.0.0.1:22/tcp", "[2001:db8::1]:22/tcp"]);
        assert_eq!(parse_counts("nonsense"), Counts::default());
    }
}
