//! Firecracker's metrics: a JSON object in a line, again and again. Pure.
//!
//! Its counters begin anew with every line, so lines are added up.

use serde_json::Value;

use crate::{DeviceCounters, MachineCounters};

/// Longest line that is read, in bytes. Firecracker's own are a tenth of that.
const MAX_LINE: usize = 256 * 1024;

/// What failed, by device, besides what is counted as `..._bytes`.
const DISK_FAILURES: &[&str] = &["event_fails", "execute_fails", "invalid_reqs_count"];
const NETWORK_FAILURES: &[&str] =
    &["event_fails", "rx_fails", "tx_fails", "tap_read_fails", "tap_write_fails"];
const VSOCK_FAILURES: &[&str] = &[
    "rx_queue_event_fails",
    "tx_queue_event_fails",
    "ev_queue_event_fails",
    "muxer_event_fails",
    "conn_event_fails",
    "tx_flush_fails",
    "tx_write_fails",
    "rx_read_fails",
];

/// Adds metrics up.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// A line that has not ended.
    line: Vec<u8>,
    /// That line is longer than is read.
    skipping: bool,
    total: Option<MachineCounters>,
}

impl Counting {
    /// Takes what comes next.
    pub(super) fn read(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE {
                self.skipping = true;
                self.line.clear();
            }
            if !self.skipping {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if !std::mem::take(&mut self.skipping) {
                    self.add(&line);
                }
            }
        }
    }

    /// The sum; nothing if there was no line.
    pub(super) fn total(&self) -> Option<MachineCounters> {
        self.total
    }

    fn add(&mut self, line: &[u8]) {
        let Ok(Value::Object(metrics)) = serde_json::from_slice(line) else { return };
        let number = |device: &str, name: &str| {
            metrics.get(device).and_then(|device| device.get(name)).and_then(Value::as_u64).unwrap_or(0)
        };
        let device = |device: &str, [read, written]: [&str; 2], failures: &[&str]| DeviceCounters {
            read_bytes: number(device, read),
            written_bytes: number(device, written),
            failures: failures.iter().fold(0, |sum: u64, name| sum.saturating_add(number(device, name))),
        };
        // What a guest sends is written to the world; what it receives is read for it.
        let carried = ["rx_bytes_count", "tx_bytes_count"];
        let total = self.total.get_or_insert_default();
        total.disks.add(device("block", ["read_bytes", "write_bytes"], DISK_FAILURES));
        total.network.add(device("net", carried, NETWORK_FAILURES));
        total.agent.add(device("vsock", carried, VSOCK_FAILURES));
        let lost =
            number("logger", "missed_log_count").saturating_add(number("logger", "missed_metrics_count"));
        total.lost_reports = total.lost_reports.saturating_add(lost);
        // This one is a state, not a difference.
        total.forbidden_calls = total.forbidden_calls.max(number("seccomp", "num_faults"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total(chunks: &[&[u8]]) -> Option<MachineCounters> {
        let mut counting = Counting::default();
        chunks.iter().for_each(|chunk| counting.read(chunk));
        counting.total()
    }

    #[test]
    fn lines_are_added_up() {
        let line = br#"{"utc_timestamp_ms":1,"block":{"read_bytes":10,"write_bytes":20,"execute_fails":1},
            "net":{"rx_bytes_count":1,"tx_bytes_count":2,"tap_write_fails":3},"net_nic":{"rx_bytes_count":1},
            "vsock":{"rx_bytes_count":5,"muxer_event_fails":1,"rx_read_fails":1},
            "logger":{"missed_log_count":4},"seccomp":{"num_faults":0}}"#;
        let line: Vec<u8> = line.iter().copied().filter(|byte| *byte != b'\n').collect();
        let sum = total(&[&line, b"\n", &line, b"\nnonsense\n[1]\n", b"{\"seccomp\":{\"num_faults\":1}}\n"]);
        let expected = MachineCounters {
            disks: DeviceCounters { read_bytes: 20, written_bytes: 40, failures: 2 },
            network: DeviceCounters { read_bytes: 2, written_bytes: 4, failures: 6 },
            agent: DeviceCounters { read_bytes: 10, written_bytes: 0, failures: 4 },
            forbidden_calls: 1,
            lost_reports: 8,
        };
        assert_eq!(sum, Some(expected));
    }

    #[test]
    fn lines_of_any_length_and_numbers_of_any_size_are_borne() {
        assert_eq!(total(&[b"{}"]), None, "it has not ended");
        let long = vec![b' '; MAX_LINE];
        assert_eq!(total(&[&long, &long, b"{}\n"]), None);
        assert_eq!(total(&[&long, &long, b"{}\n{}\n"]), Some(MachineCounters::default()));
        let most = br#"{"block":{"read_bytes":18446744073709551615,"write_bytes":-1}}"#;
        let sum = total(&[most, b"\n", most, b"\n"]).unwrap();
        assert_eq!((sum.disks.read_bytes, sum.disks.written_bytes), (u64::MAX, 0));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_lines_are_cut(cut in 0_usize..60, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let line = br#"{"block":{"read_bytes":10},"vsock":{"tx_bytes_count":2}}"#;
            let all = [&bytes[..], b"\n", line, b"\n"].concat();
            let (one, two) = all.split_at(cut.min(all.len()));
            prop_assert_eq!(total(&[one, two]), total(&[&all]));
        }
    }
}
