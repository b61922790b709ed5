//! What the runner itself measured of a job.

use std::time::Duration;

use serde_json::Value;

/// The record of one job.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) spawn_to_ready: Option<Duration>,
    pub(crate) ready_to_set_up: Option<Duration>,
    pub(crate) ready_to_script: Option<Duration>,
    pub(crate) to_script: Option<Duration>,
    pub(crate) end_to_gone: Option<Duration>,
    pub(crate) total: Option<Duration>,
    disk_bytes: u64,
}

impl Record {
    /// Finds a job's record among the lines of the runner's log.
    pub(crate) fn find(log: &str, job: u64) -> Option<Self> {
        let records = log.lines().filter(|line| line.contains("the job was measured"));
        records.filter_map(|line| serde_json::from_str(line).ok()).find_map(|value| Self::read(&value, job))
    }

    fn read(value: &Value, job: u64) -> Option<Self> {
        // Fields are at the top or below `fields`, as the log is set up.
        let field = |name: &str| value.get(name).or_else(|| value.get("fields")?.get(name))?.as_u64();
        let millis = |name: &str| field(name).map(Duration::from_millis);
        (field("job") == Some(job)).then(|| Self {
            spawn_to_ready: millis("spawn_to_ready_ms"),
            ready_to_set_up: millis("ready_to_set_up_ms"),
            ready_to_script: millis("ready_to_script_ms"),
            to_script: millis("to_script_ms"),
            end_to_gone: millis("end_to_gone_ms"),
            total: millis("total_ms"),
            disk_bytes: field("disk_bytes").unwrap_or_default(),
        })
    }

    /// What the scratch disk took on the host.
    pub(crate) fn disk_mib(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a number for people")]
        let bytes = self.disk_bytes as f64;
        bytes / f64::from(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_among_other_lines() {
        let log = "text\n{\"fields\":{\"message\":\"the job was measured\",\"job\":7,\"total_ms\":1500}}\n";
        assert_eq!(Record::find(log, 7).unwrap().total, Some(Duration::from_millis(1500)));
        assert!(Record::find(log, 8).is_none());
    }
}
