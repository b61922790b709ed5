//! Jobs: what the server knows of them, and their state machine.

mod handle;

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::Instant;

pub use self::handle::JobHandle;
use crate::git::Revision;
use crate::spec::{JobSpec, Variable};

/// The states of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for a runner, or for the runner that got it to say `running`.
    Pending,
    /// Runs.
    Running,
    /// Was cancelled and may finish what must be finished.
    Canceling,
    /// Ended by cancellation.
    Canceled,
    /// Ended well.
    Success,
    /// Ended badly.
    Failed,
}

impl JobState {
    /// The word of the `Job-Status` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Canceling => "canceling",
            Self::Canceled => "canceled",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }

    /// Whether a runner may send log, artifacts and updates.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Canceling)
    }

    /// Whether nothing changes any more.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Canceled | Self::Success | Self::Failed)
    }
}

/// One `PUT jobs/:id` that had an effect or was refused for the state of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// When it came.
    pub at: SystemTime,
    /// The state the runner sent.
    pub state: String,
    /// Its `failure_reason`.
    pub failure_reason: Option<String>,
    /// Its `exit_code`.
    pub exit_code: Option<i64>,
    /// Its `output.checksum`.
    pub checksum: Option<String>,
    /// Its `output.bytesize`.
    pub bytesize: Option<u64>,
    /// The status it was answered with.
    pub status: u16,
}

/// One uploaded artifact.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// `archive` or the type of a report.
    pub kind: String,
    /// `zip`, `gzip` or `raw`, and what else a runner may send.
    pub format: String,
    /// The file name of the upload.
    pub filename: String,
    /// `expire_in` of the upload.
    pub expire_in: Option<String>,
    /// The bytes.
    pub content: Bytes,
}

/// The interactive session a runner offered when it asked for the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where the session listens.
    pub url: String,
    /// The PEM certificate it shows.
    pub certificate: String,
    /// The value of the `Authorization` header it wants.
    pub authorization: String,
}

/// The runner a job was given to.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) runner_id: u64,
    pub(crate) system_id: String,
    pub(crate) features: Map<String, Value>,
    pub(crate) session: Option<Session>,
    /// Until when the job must be acknowledged.
    pub(crate) deadline: Instant,
}

impl Assignment {
    pub(crate) fn feature(&self, name: &str) -> bool {
        self.features.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// A job as the server knows it.
#[derive(Clone, Debug)]
pub struct Job {
    pub(crate) id: u64,
    pub(crate) pipeline_id: u64,
    pub(crate) project_id: u64,
    pub(crate) spec: JobSpec,
    pub(crate) revision: Revision,
    pub(crate) token: String,
    pub(crate) state: JobState,
    pub(crate) assignment: Option<Assignment>,
    pub(crate) failure_reason: Option<String>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) log: Vec<u8>,
    pub(crate) debug_trace: bool,
    /// The next chunk may start at 0 again, after a 412.
    pub(crate) resend_allowed: bool,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) updates: Vec<Update>,
    /// The variables as they were sent, for the search of leaked values.
    pub(crate) sent_variables: Vec<Variable>,
    pub(crate) created_at: SystemTime,
    pub(crate) started_at: Option<SystemTime>,
}

impl Job {
    /// The number of the job.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name of the job.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The state of now.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// The number of the runner that got the job, and the system id of its manager.
    pub fn assigned_to(&self) -> Option<(u64, &str)> {
        self.assignment.as_ref().map(|by| (by.runner_id, by.system_id.as_str()))
    }

    /// The log so far, with bytes that are not UTF-8 replaced.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    /// The log so far.
    pub fn log_bytes(&self) -> &[u8] {
        &self.log
    }

    /// Why the job failed.
    pub fn failure_reason(&self) -> Option<&str> {
        self.failure_reason.as_deref()
    }

    /// The exit code of the final update.
    pub fn exit_code(&self) -> Option<i64> {
        self.exit_code
    }

    /// The updates so far.
    pub fn updates(&self) -> &[Update] {
        &self.updates
    }

    /// The artifacts so far, in the order of their upload.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// The uploaded archive, which other jobs can download.
    pub(crate) fn archive(&self) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.kind == "archive")
    }

    /// Whether the job may be given to a runner.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state == JobState::Pending && self.assignment.is_none()
    }

    /// Ends the job from the server's side.
    pub(crate) fn drop_with(&mut self, reason: &str) {
        self.state = JobState::Failed;
        self.failure_reason = Some(reason.into());
    }

    /// What a person who cancels the job in the web page does to it.
    pub(crate) fn cancel(&mut self) {
        let graceful = self.assignment.as_ref().is_some_and(|by| by.feature("cancel_gracefully"));
        self.state = match self.state {
            JobState::Running if graceful => JobState::Canceling,
            JobState::Pending | JobState::Running => JobState::Canceled,
            other => other,
        };
    }

    /// What cancelling without grace does to it.
    pub(crate) fn abort(&mut self) {
        if !self.state.is_finished() {
            self.state = JobState::Canceled;
        }
    }
}
