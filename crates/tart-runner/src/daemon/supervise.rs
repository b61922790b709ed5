//! One job from its assignment to the last word to its server.

use std::sync::Arc;

use futures::FutureExt as _;
use tart_gitlab::{
    Acknowledgement, AssignedJob, FinalState, FinishOutcome, JobHandle, JobTrace, RemoteSignal, TraceOptions,
};
use tart_images::chain;
use tart_job::flags::Flag;
use tart_job::outcome::{Failure, Verdict};
use tart_job::plan::JobPlan;
use tart_job::{Level, log::runner_line};
use tart_spec::FailureReason;
use tokio::sync::watch;
use tokio::time::Instant;

use super::entry::Entry;
use super::executor::JobExecutor;
use super::slots::Slot;
use super::{DaemonOptions, context};
use crate::{JobObserver, JobReport, JobSession, JobSignal};

/// A job, and what it is run with.
pub(super) struct Assignment {
    pub(super) entry: Arc<Entry>,
    pub(super) job: Box<AssignedJob>,
    pub(super) slot: Slot,
    pub(super) options: DaemonOptions,
    pub(super) executor: Arc<dyn JobExecutor>,
    pub(super) session: Option<JobSession>,
    pub(super) interrupt: watch::Receiver<Option<String>>,
}

/// The end of a job.
#[derive(Debug)]
pub(super) struct JobEnd {
    pub(super) slot: Slot,
    pub(super) succeeded: bool,
}

/// Runs a job and tells its server of it.
pub(super) async fn run(assignment: Assignment) -> JobEnd {
    let start = Instant::now();
    let slot = assignment.slot.clone();
    let (id, runner) = (assignment.job.payload.id, assignment.entry.token.short());
    let project = assignment.slot.project;
    let verdict = execute(assignment).await;
    let duration_s = start.elapsed().as_secs_f64();
    let succeeded = verdict == Some(Verdict::Success);
    match verdict {
        None => tracing::warn!(job = id, runner, project, "The server took the job back"),
        Some(Verdict::Success) => tracing::info!(job = id, runner, project, duration_s, "Job succeeded"),
        Some(Verdict::Failed(failure)) => tracing::warn!(
            job = id,
            runner,
            project,
            duration_s,
            failure_reason = failure.reason().as_str(),
            exit_code = failure.exit_code(),
            "Job failed: {failure}"
        ),
    }
    JobEnd { slot, succeeded }
}

async fn execute(assignment: Assignment) -> Option<Verdict> {
    let Assignment { entry, job, slot, options, executor, session, interrupt } = assignment;
    let payload = &job.payload;
    let token = payload.token.clone().into();
    let handle = JobHandle::new(entry.client.clone(), payload.id, token, Arc::clone(&entry.info));
    // First of all: the server gives the job to somebody else if it hears nothing within two minutes.
    let canceled = match handle.acknowledge().await {
        Acknowledgement::Abandon => return None,
        Acknowledgement::Canceling => true,
        Acknowledgement::Run => false,
        Acknowledgement::Unknown(error) => {
            tracing::warn!(job = payload.id, error = chain(&error), "The job could not be acknowledged");
            false
        }
    };
    let trace = match JobTrace::start(Arc::new(handle.clone()), trace_options(&entry, &job, &options)) {
        Ok(trace) => trace,
        Err(error) => {
            tracing::error!(job = payload.id, error = error.to_string(), "The job's log cannot be kept");
            let failure = Failure::system(format!("the runner cannot keep the job's log: {error}"));
            tell_without_log(&handle, &failure).await;
            return Some(Verdict::Failed(failure));
        }
    };
    let verdict = if canceled {
        let failure = Failure::Canceled;
        trace.writer().write(runner_line(Level::Error, &format!("Job failed: {failure}")).as_bytes());
        Verdict::Failed(failure)
    } else {
        let run = context::job_run(&entry, &job, &slot, &options, &handle, session).await;
        let (_signals, signal) = merge(trace.signals(), interrupt);
        let observer = Observer { trace: &trace };
        let running = executor.run(run, trace.writer(), signal, &observer);
        // A mistake of ours in one job must cost neither the others nor the server's knowledge of this one.
        match std::panic::AssertUnwindSafe(running).catch_unwind().await {
            Ok(report) => {
                record(payload.id, &report);
                report.verdict
            }
            Err(_) => Verdict::Failed(Failure::system("the runner made a mistake; its own log says more")),
        }
    };
    if let Some(problem) = trace.write_failure() {
        tracing::error!(job = payload.id, error = problem, "The job's log is incomplete");
    }
    if let FinishOutcome::GaveUp { attempts, error } = trace.finish(final_state(&verdict)).await {
        tracing::error!(
            job = payload.id,
            attempts,
            error = chain(&error),
            "The server could not be told of the job's end"
        );
    }
    Some(verdict)
}

fn trace_options(entry: &Entry, job: &AssignedJob, options: &DaemonOptions) -> TraceOptions {
    let runner = &entry.runner;
    TraceOptions {
        directory: options.log_directory.clone(),
        output_limit: u64::from(runner.output_limit) * 1024,
        final_update_attempts: runner.job_status_final_update_retry_limit,
        dynamic_force_send: runner
            .feature_flags
            .get("FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL")
            .copied()
            .unwrap_or(false),
        failure_reasons: job.payload.features.failure_reasons.clone(),
        ..TraceOptions::default()
    }
}

fn final_state(verdict: &Verdict) -> FinalState {
    match verdict {
        Verdict::Success => FinalState::success(),
        Verdict::Failed(failure) => FinalState::failed(failure.reason(), failure.exit_code()),
    }
}

async fn tell_without_log(handle: &JobHandle, failure: &Failure) {
    use tart_gitlab::{JobApi as _, JobUpdate};
    let reason = match failure.reason() {
        FailureReason::RunnerSystemFailure => FailureReason::RunnerSystemFailure,
        _ => FailureReason::ScriptFailure,
    };
    let update = JobUpdate {
        state: tart_spec::JobState::Failed,
        failure_reason: Some(reason),
        exit_code: None,
        output: None,
    };
    handle.update(&update).await;
}

fn record(job: i64, report: &JobReport) {
    let usage = &report.usage;
    tracing::info!(
        job,
        cpu_s = usage.cpu.as_secs_f64(),
        memory_peak_bytes = usage.memory_peak,
        disk_bytes = usage.disk,
        oom_kills = usage.oom_kills,
        network_up_bytes = usage.network.bytes_up,
        network_down_bytes = usage.network.bytes_down,
        network_connections = usage.network.connections,
        network_refused = usage.network.refused,
        "Job used"
    );
}

/// Says to the server whether the log is a debug trace, as soon as that is known.
struct Observer<'a> {
    trace: &'a JobTrace,
}

impl JobObserver for Observer<'_> {
    fn planned(&self, plan: &JobPlan) {
        self.trace.set_debug_trace(plan.settings.debug_trace);
        tracing::debug!(timestamps = plan.flags.is_on(Flag::Timestamps), "the job is planned");
    }
}

/// One channel of signals from the server's and the daemon's. The guard ends the task that merges them.
fn merge(
    mut remote: watch::Receiver<RemoteSignal>,
    mut interrupt: watch::Receiver<Option<String>>,
) -> (tokio_util::task::AbortOnDropHandle<()>, watch::Receiver<JobSignal>) {
    let (sender, receiver) = watch::channel(JobSignal::None);
    let task = tokio::spawn(async move {
        loop {
            let stop = interrupt.borrow_and_update().clone();
            let remote_signal = *remote.borrow_and_update();
            // What the server asks for with `Abort` needs no word back, so it goes before our own end.
            let signal = match (remote_signal, stop) {
                (RemoteSignal::Abort, _) => JobSignal::Abort,
                (_, Some(signal)) => JobSignal::Interrupt(signal),
                (RemoteSignal::Cancel, None) => JobSignal::Cancel,
                (RemoteSignal::None, None) => JobSignal::None,
            };
            sender.send_if_modified(|current| {
                let changes = *current != signal;
                *current = signal;
                changes
            });
            tokio::select! {
                changed = remote.changed() => if changed.is_err() { return },
                changed = interrupt.changed() => if changed.is_err() { return },
            }
        }
    });
    (tokio_util::task::AbortOnDropHandle::new(task), receiver)
}
