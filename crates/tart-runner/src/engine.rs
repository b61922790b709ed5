//! One job from its first log line to its last.

mod log;
mod report;

use std::sync::Arc;

use tart_job::context::RunnerContext;
use tart_job::plan::JobPlan;
use tart_job::stages::Stage;
use tart_net::Allowed;
use tart_spec::JobPayload;
use tokio::sync::watch;

pub use log::JobLogSink;
pub use report::{JobReport, JobUsage, Timings};

use crate::HostSetup;

/// A job to run.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// What the server sent.
    pub payload: JobPayload,
    /// What the runner adds.
    pub context: RunnerContext,
    /// The runner's configuration.
    pub runner: Arc<tart_config::Runner>,
    /// Identifies this installation in the log's second line.
    pub system_id: String,
    /// What the guest reaches where it has no network of its own: the GitLab server at least.
    pub allowed: Vec<Allowed>,
    /// The image to use whatever the job and the configuration say: a name or a path of the host.
    pub image: Option<String>,
    /// A log for a terminal: neither timestamps nor section markers.
    pub plain_log: bool,
}

/// What somebody wants of a running job. A later signal replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum JobSignal {
    /// Go on.
    #[default]
    None,
    /// Stop the script, and let the job end in order (`canceling`).
    Cancel,
    /// Stop everything: nobody wants to hear of the job any more (`canceled`, 403).
    Abort,
    /// Stop everything: the runner ends because of the signal of this name.
    Interrupt(String),
}

/// Hears how a job goes on. Calls are short and never block.
pub trait JobObserver: Send + Sync {
    /// The job was understood; whether its log is a debug trace is among its settings.
    fn planned(&self, _plan: &JobPlan) {}

    /// A stage begins.
    fn stage(&self, _stage: &Stage) {}
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl JobObserver for NoObserver {}

/// Runs a job to its end. Whatever happens, also if the future is dropped, nothing of the job stays behind on the
/// host: no process, no file, no connection.
pub async fn run_job(
    setup: &HostSetup,
    run: JobRun,
    sink: impl JobLogSink + 'static,
    signal: watch::Receiver<JobSignal>,
    observer: &dyn JobObserver,
) -> JobReport {
    let _ = (setup, run, sink, signal, observer);
    todo!()
}
