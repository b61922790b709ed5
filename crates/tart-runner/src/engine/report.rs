//! What is known of a job after its end.

use std::time::Duration;

use tart_job::outcome::Verdict;
use tart_net::Counters;
use tart_spec::FailureReason;

/// How a job went.
#[derive(Debug, Clone)]
pub struct JobReport {
    /// How it ended.
    pub verdict: Verdict,
    /// How long its parts took.
    pub timings: Timings,
    /// What it used.
    pub usage: JobUsage,
}

impl JobReport {
    /// Whether the job succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.verdict == Verdict::Success
    }

    /// The classification of its failure, before it is mapped to what the server understands.
    #[must_use]
    pub fn failure_reason(&self) -> Option<FailureReason> {
        match &self.verdict {
            Verdict::Success => None,
            Verdict::Failed(failure) => Some(failure.reason()),
        }
    }

    /// Writes what was measured to the runner's own log. `cargo xtask bench` reads the record.
    pub(crate) fn record(&self, job: i64) {
        let millis =
            |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let (timings, usage) = (&self.timings, &self.usage);
        tracing::debug!(
            job,
            spawn_to_ready_ms = millis(timings.spawn_to_ready),
            ready_to_set_up_ms = millis(timings.ready_to_set_up),
            ready_to_script_ms = millis(timings.ready_to_script),
            to_script_ms = millis(timings.to_script),
            end_to_gone_ms = millis(timings.end_to_gone),
            total_ms = millis(Some(timings.total)),
            disk_bytes = usage.disk,
            memory_peak_bytes = usage.memory_peak,
            output_bytes = usage.output,
            network_up_bytes = usage.network.bytes_up,
            network_down_bytes = usage.network.bytes_down,
            network_refused = usage.network.refused,
            "the job was measured"
        );
    }

    /// The exit code of the failed script.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match &self.verdict {
            Verdict::Success => None,
            Verdict::Failed(failure) => failure.exit_code(),
        }
    }
}

/// How long parts of a job took. What did not happen is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// The start of the machine's monitor until its agent was ready.
    pub spawn_to_ready: Option<Duration>,
    /// From there until the guest was set up: file trees, network, names.
    pub ready_to_set_up: Option<Duration>,
    /// The agent's readiness until the first byte of the user's script.
    pub ready_to_script: Option<Duration>,
    /// The job's begin until that byte.
    pub to_script: Option<Duration>,
    /// The end of the job's last stage until everything of the machine was gone.
    pub end_to_gone: Option<Duration>,
    /// The whole job.
    pub total: Duration,
}

/// What a job used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobUsage {
    /// CPU time of all commands in the guest.
    pub cpu: Duration,
    /// The largest memory of a stage, in bytes.
    pub memory_peak: u64,
    /// Processes that the guest's kernel killed for lack of memory.
    pub oom_kills: u64,
    /// Bytes that the scratch disk took on the host.
    pub disk: u64,
    /// What was relayed for the job.
    pub network: Counters,
    /// Bytes of output of the job's commands, before masking.
    pub output: u64,
}
