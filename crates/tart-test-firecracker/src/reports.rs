//! The log and the metrics, in the files or pipes that the client named.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
};

use serde_json::{Map, Value, json};

use crate::say;

/// Levels of the log.
const LEVELS: [&str; 8] = ["", "Error", "Warning", "Info", "Debug", "Trace", "Off", "Warn"];

/// Version since which files of the log and the metrics are made.
const MAKES_FILES: u32 = 14;

/// The one version that opens them for writing only.
const WRITES_ONLY: u32 = 14;

/// Where reports go.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    log: Option<File>,
    metrics: Option<File>,
    flushed: u64,
}

impl Reports {
    /// `PUT /logger`: may be repeated.
    pub(crate) fn logger(&mut self, body: &Map<String, Value>, minor: u32) -> Result<(), String> {
        let level = body.get("level").and_then(Value::as_str).unwrap_or_default();
        if !LEVELS.contains(&level) {
            return Err(format!("unknown variant `{level}` of `level`"));
        }
        if let Some(path) = body.get("log_path").and_then(Value::as_str) {
            self.log =
                Some(open(path, minor).map_err(|error| format!("Failed to open target file: {error}"))?);
        }
        Ok(())
    }

    /// `PUT /metrics`: once.
    pub(crate) fn metrics(&mut self, path: &str, minor: u32) -> Result<(), String> {
        if self.metrics.is_some() {
            return Err("Reinitialization of metrics not allowed.".to_owned());
        }
        self.metrics = Some(open(path, minor).map_err(|error| format!("Cannot open metrics file: {error}"))?);
        Ok(())
    }

    /// A line of the log; on the standard output without a logger. It is lost if nobody takes it.
    pub(crate) fn log(&self, text: &str) {
        match &self.log {
            Some(log) => write(log, text),
            None => say(text),
        }
    }

    /// A line of metrics: what was since the last one.
    pub(crate) fn flush(&mut self, faults: u64) {
        self.flushed += 1;
        let Some(metrics) = &self.metrics else { return };
        let line = json!({
            "utc_timestamp_ms": self.flushed,
            "block": { "read_bytes": 4096, "write_bytes": 512, "execute_fails": 0 },
            "block_disk0": { "read_bytes": 4096, "write_bytes": 512, "execute_fails": 0 },
            "net": { "rx_bytes_count": 0, "tx_bytes_count": 0, "tap_write_fails": 0 },
            "vsock": { "rx_bytes_count": 10, "tx_bytes_count": 20, "muxer_event_fails": 1 },
            "logger": { "missed_log_count": 0, "missed_metrics_count": 0 },
            "seccomp": { "num_faults": faults },
        });
        write(metrics, &line.to_string());
    }
}

/// Writes a line at once. It is lost if nobody takes it.
fn write(mut file: &File, line: &str) {
    let _lost = file.write(format!("{line}\n").as_bytes());
}

/// As Firecracker opens them: without waiting for a reader, and for reading too, so that there need be none.
fn open(path: &str, minor: u32) -> std::io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new()
        .read(minor != WRITES_ONLY)
        .write(true)
        .create(minor >= MAKES_FILES)
        .custom_flags(nonblocking)
        .open(path)
}
