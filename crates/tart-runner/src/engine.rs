//! One job from its first log line to its last.

mod artifacts;
mod cache;
mod control;
mod direct;
mod explain;
mod image;
mod job;
mod log;
mod prepare;
mod report;
mod script;
mod secrets;
mod services;
mod terminal;
mod transfer;

use std::fmt;
use std::sync::Arc;

use tart_job::Level;
use tart_job::context::RunnerContext;
use tart_job::flags::Flag;
use tart_job::log::{LogOptions, feature_flags_line, running_on_line, running_with_line};
use tart_job::mask::MaskRules;
use tart_job::outcome::{Failure, Verdict};
use tart_job::plan::{JobPlan, PlanError};
use tart_job::stages::Stage;
use tart_net::Allowed;
use tart_spec::JobPayload;
use tokio::sync::watch;
use tokio::time::Instant;

pub use log::JobLogSink;
pub use report::{JobReport, JobUsage, Timings};
pub use terminal::JobSession;

use crate::{ArtifactPlace, CachePlace, HostSetup};
use control::Control;
use job::Job;
use log::JobLog;

/// A job to run. `Debug` shows only which.
#[derive(Clone)]
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
    /// Where its artifacts go, and where those of other jobs come from; without it, it has none.
    pub artifacts: Option<ArtifactPlace>,
    /// Where its caches are; without it, it has none.
    pub cache: Option<CachePlace>,
    /// Lets people into it by a terminal.
    pub session: Option<JobSession>,
    /// A log for a terminal: neither timestamps nor section markers.
    pub plain_log: bool,
}

impl fmt::Debug for JobRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRun").field("id", &self.payload.id).finish_non_exhaustive()
    }
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

/// The executor's name in logs.
const EXECUTOR: &str = "microvm";

/// Runs a job to its end. Whatever happens, also if the future is dropped, nothing of the job stays behind on the
/// host: no process, no file, no connection.
pub async fn run_job(
    setup: &HostSetup,
    mut run: JobRun,
    sink: impl JobLogSink + 'static,
    signal: watch::Receiver<JobSignal>,
    observer: &dyn JobObserver,
) -> JobReport {
    let start = Instant::now();
    let plan = tart_job::inputs::interpolate(&mut run.payload, &run.context)
        .map_err(PlanError::from)
        .and_then(|()| JobPlan::new(&run.payload, &run.context));
    let mut log = JobLog::new(log_options(&run, plan.as_ref().ok()), Box::new(sink));
    write_header(&mut log, &run, plan.as_ref().ok());
    let mut control = Control::new(signal);
    let plan = match plan {
        Ok(plan) if !run.payload.secrets.is_empty() => {
            observer.stage(&Stage::ResolveSecrets);
            secrets::resolve(&mut run, plan, &mut log, &mut control).await
        }
        plan => plan.map_err(Failure::from),
    };
    let (verdict, mut log, mut timings, usage) = match plan {
        Ok(plan) => {
            observer.planned(&plan);
            Job::new(setup, &run, &plan, observer, log, control).finish().await
        }
        Err(failure) => (Verdict::Failed(failure), log, Timings::default(), JobUsage::default()),
    };
    let (level, text) = verdict.line();
    log.line(level, &text);
    log.finish().await;
    timings.total = start.elapsed();
    let report = JobReport { verdict, timings, usage };
    report.record(run.payload.id);
    report
}

/// How the log is written. A job that cannot be planned has secrets too.
fn log_options(run: &JobRun, plan: Option<&JobPlan>) -> LogOptions {
    let payload = &run.payload;
    let mut options = plan.map_or_else(
        || {
            let masked = payload.variables.iter().filter(|variable| variable.masked);
            let phrases = masked.map(|variable| variable.value.as_str()).chain([payload.token.as_str()]);
            let prefixes = payload.features.token_mask_prefixes.iter().map(String::as_str);
            LogOptions {
                mask: MaskRules::new(phrases, prefixes, true),
                timestamps: Flag::Timestamps.default_value(),
                sections: payload.features.trace_sections,
            }
        },
        |plan| plan.log_options(payload),
    );
    if run.plain_log {
        (options.timestamps, options.sections) = (false, false);
    }
    options
}

fn write_header(log: &mut JobLog, run: &JobRun, plan: Option<&JobPlan>) {
    let (product, context) = (&run.context.product, &run.context);
    log.line(Level::Print, &running_with_line(&product.name, &product.version, &product.revision));
    let name = run.runner.display_name();
    log.line(Level::Print, &running_on_line(&name, &context.short_token, &run.system_id));
    let Some(plan) = plan else { return };
    if let Some(line) = feature_flags_line(&plan.flags) {
        log.line(Level::Print, &line);
    }
    for warning in &plan.warnings {
        log.line(Level::Warning, warning);
    }
}
