//! `tart exec --all`: the jobs of a pipeline in their order, several at a time.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tart_ci_file::{Ending, Job, Plan, PlannedJob, Schedule, State, When};
use tart_job::outcome::Verdict;
use tart_runner::{HostSetup, JobReport, JobSignal, NoObserver, run_job};
use tart_spec::FailureReason;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Event;
use super::job::Workshop;
use super::summary::{self, Outcome};
use super::view::View;
use crate::failure::{Annotate as _, Exit};
use crate::output;
use crate::progress::seconds;
use crate::signals::Ends;

/// How many jobs run at a time at most, if the user does not say.
const CONCURRENCY: usize = 4;

/// How often the last line of a terminal is renewed.
const TICK: Duration = Duration::from_secs(1);

/// How a pipeline is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "All jobs")]
pub(super) struct AllArgs {
    /// Run all jobs of the pipeline, in the order of their stages and needs
    #[arg(long, conflicts_with_all = ["job", "list"])]
    pub(super) all: bool,
    /// How many jobs run at a time; without it as many as the host has processors, and at most 4
    #[arg(long, value_name = "COUNT", requires = "all", value_parser = clap::value_parser!(u16).range(1..=100))]
    concurrency: Option<u16>,
    /// A manual job that is to run too; may be repeated
    #[arg(long, value_name = "JOB", requires = "all")]
    manual: Vec<String>,
}

impl AllArgs {
    /// Checks whether a pipeline can be run so.
    pub(super) fn check(&self, plan: &Plan, event: &Event) -> anyhow::Result<()> {
        if let Some(why) = &plan.refused {
            let refused: anyhow::Result<()> =
                Err(anyhow::anyhow!("GitLab would make no pipeline for a {}: {why}", event.describe()));
            return refused.hint(
                "`tart exec --list` says which jobs are for it; choose another with --ref or --source",
            );
        }
        let manual = |job: &&PlannedJob| job.job.when == When::Manual;
        for name in &self.manual {
            if !plan.jobs.iter().filter(manual).any(|planned| is_named(&planned.job, name)) {
                let known: Vec<String> = plan
                    .jobs
                    .iter()
                    .filter(manual)
                    .map(|planned| format!("`{}`", planned.job.name))
                    .collect();
                let known = if known.is_empty() {
                    "it has none".to_owned()
                } else {
                    format!("manual ones: {}", known.join(", "))
                };
                bail!("--manual: `{name}` is no manual job of this pipeline ({known})");
            }
        }
        Ok(())
    }

    fn concurrency(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from).min(CONCURRENCY);
        self.concurrency.map_or_else(processors, usize::from)
    }
}

/// A name may be that of all instances of a job.
fn is_named(job: &Job, name: &str) -> bool {
    job.name == name || job.base == name
}

/// Runs a pipeline to its end. The first signal ends its jobs in order; by the second nothing is waited for.
pub(super) async fn run(
    plan: &Plan,
    args: &AllArgs,
    workshop: &Workshop<'_>,
    setup: HostSetup,
    ends: &mut Ends,
) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let wanted = |job: &Job| args.manual.iter().any(|name| is_named(job, name));
    let (interrupt, signals) = watch::channel(JobSignal::None);
    let mut pipeline = Running {
        plan,
        workshop,
        setup: Arc::new(setup),
        schedule: Schedule::new(plan.tasks(wanted)),
        outcomes: vec![Outcome::default(); plan.jobs.len()],
        since: vec![None; plan.jobs.len()],
        started: 0,
        view: View::start(plan.jobs.iter().map(|planned| planned.job.name.as_str())),
        signals,
        tasks: JoinSet::new(),
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut signalled = false;
    loop {
        pipeline.start(args.concurrency());
        if pipeline.tasks.is_empty() {
            break;
        }
        tokio::select! {
            Some(ended) = pipeline.tasks.join_next() => {
                let (at, report) = ended.context("a job ended by a mistake of tart's own")?;
                pipeline.end(at, &report);
            }
            signal = ends.next() => {
                if signalled {
                    pipeline.tasks.shutdown().await;
                    return Err(anyhow::anyhow!("ended by a second signal ({signal})")).exit(Exit::Interrupted);
                }
                signalled = true;
                pipeline.schedule.cancel();
                interrupt.send_replace(JobSignal::Interrupt(signal.to_owned()));
            }
            _ = ticks.tick(), if pipeline.view.is_live() => pipeline.status(),
        }
    }
    let Running { schedule, outcomes, view, .. } = pipeline;
    view.finish().await;
    let table = summary::table(plan, &schedule, &outcomes);
    output::to_stdout(&format!("\n{table}\n{}\n", summary::verdict(plan, &schedule, begun.elapsed())))?;
    Ok(exit(&schedule, signalled))
}

fn exit(schedule: &Schedule, signalled: bool) -> ExitCode {
    if signalled {
        Exit::Interrupted.into()
    } else if schedule.states().contains(&State::Failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// How a job ended, for the jobs after it.
fn ending(report: &JobReport) -> Ending {
    match report.failure_reason() {
        None => Ending::Success,
        Some(FailureReason::RunnerInterrupted | FailureReason::JobCanceled) => Ending::Canceled,
        Some(reason) => Ending::Failed { reason: reason.as_str().to_owned(), exit_code: report.exit_code() },
    }
}

/// A pipeline on its way.
struct Running<'a> {
    plan: &'a Plan,
    workshop: &'a Workshop<'a>,
    setup: Arc<HostSetup>,
    schedule: Schedule,
    outcomes: Vec<Outcome>,
    /// When jobs started.
    since: Vec<Option<Instant>>,
    /// How many were started; their numbers.
    started: u64,
    view: View,
    signals: watch::Receiver<JobSignal>,
    tasks: JoinSet<(usize, JobReport)>,
}

impl Running<'_> {
    /// Starts what may start.
    fn start(&mut self, concurrency: usize) {
        while self.tasks.len() < concurrency
            && let Some(at) = self.schedule.start()
        {
            let Some(planned) = self.plan.jobs.get(at) else { continue };
            // Those that need it go on, as if the server had done its part.
            let ending = if planned.job.not_runnable.is_some() {
                Some(Ending::Success)
            } else {
                self.launch(at, planned).err().map(|error| {
                    self.note(at, format!("{error:#}"));
                    let reason = FailureReason::RunnerSystemFailure.as_str().to_owned();
                    Ending::Failed { reason, exit_code: None }
                })
            };
            if let Some(ending) = ending {
                self.schedule.end(at, &ending);
            }
        }
    }

    fn launch(&mut self, at: usize, planned: &PlannedJob) -> anyhow::Result<()> {
        let job = &planned.job;
        self.started += 1;
        let (run, inheritance) = self.workshop.job(job, self.started, self.sources(planned))?;
        self.workshop.clear(job)?;
        if let Some(since) = self.since.get_mut(at) {
            *since = Some(Instant::now());
        }
        let mut notes: Vec<String> =
            inheritance.problems.iter().map(|problem| format!("warning: {problem}")).collect();
        notes.push(summary::start(planned, self.schedule.retried(at)));
        let (setup, view, signals) = (self.setup.clone(), self.view.job(at, &job.name), self.signals.clone());
        let said = self.view.job(at, &job.name);
        self.tasks.spawn(async move {
            for note in notes {
                said.say(&note).await;
            }
            let report = run_job(&setup, run, view, signals, &NoObserver).await;
            let result = match ending(&report) {
                Ending::Success => "passed",
                Ending::Failed { .. } => "failed",
                Ending::Canceled => "canceled",
            };
            said.say(&format!("{result} after {}", seconds(report.timings.total))).await;
            (at, report)
        });
        Ok(())
    }

    /// The jobs of this run whose artifacts one gets. Others of the pipeline may have left some in an earlier run.
    fn sources(&self, planned: &PlannedJob) -> Vec<&Job> {
        let ran = |at: &&usize| {
            matches!(self.schedule.state(**at), State::Success | State::Failed | State::Warning)
        };
        let found = planned.artifacts_of.iter().filter(ran).filter_map(|at| self.plan.jobs.get(*at));
        found.map(|other| &other.job).collect()
    }

    fn end(&mut self, at: usize, report: &JobReport) {
        self.schedule.end(at, &ending(report));
        let note = match &report.verdict {
            Verdict::Success => String::new(),
            Verdict::Failed(failure) => failure.to_string(),
        };
        self.note(at, note);
        if let Some(outcome) = self.outcomes.get_mut(at) {
            outcome.took = Some(report.timings.total);
        }
    }

    fn note(&mut self, at: usize, note: String) {
        if let Some(outcome) = self.outcomes.get_mut(at) {
            outcome.note = note;
        }
    }

    fn status(&self) {
        let ages: Vec<Option<Duration>> =
            self.since.iter().map(|since| since.map(|since| since.elapsed())).collect();
        self.view.status(&summary::status(self.plan, &self.schedule, &ages));
    }
}
