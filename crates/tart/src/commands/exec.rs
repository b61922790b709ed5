//! `tart exec`

mod all;
mod event;
mod inheritance;
mod job;
mod lines;
mod list;
mod log;
mod repository;
mod summary;
mod tree;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tart_ci_file::{ExecContext, Pipeline, Plan};
use tart_config::{ByteSize, MicroVm, Runner};
use tart_runner::local::{Snapshot, TerminalSink};
use tart_runner::{
    HostSetup, JobReport, JobRun, JobSignal, LocalArtifacts, NoObserver, PrepareOptions, run_job,
};
use tart_spec::FailureReason;
use tokio::sync::watch;

use crate::failure::{Annotate as _, Exit};
use crate::globals::Globals;
use crate::progress::Steps;
use crate::signals::{Ends, end_programs};
use crate::values::{assignment, duration, size};
use crate::{output, product};
use all::AllArgs;
use event::{Event, EventArgs};
use job::Workshop;
use log::Uncoloured;
use repository::Repository;
use tree::Tree;

/// Run jobs of a local .gitlab-ci.yml in microVMs, without GitLab
///
/// Jobs get the working tree as it is, with changes that are not committed; files that git ignores are left out. The
/// repository itself is only read. Artifacts are kept on this host, for later jobs that need them.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 the job succeeded, 5 it failed, 1 wrong usage or CI file, or a \
                        job of --all failed that may not, 2 this host cannot run jobs, 4 interrupted.")]
pub(crate) struct ExecArgs {
    /// The job
    #[arg(required_unless_present_any = ["list", "all"])]
    job: Option<String>,
    /// The CI file; .gitlab-ci.yml at the top of the repository without it
    #[arg(long, short = 'f', value_name = "PATH")]
    file: Option<PathBuf>,
    /// A directory of the repository, instead of the current one
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    cwd: PathBuf,
    /// A variable for the job, which wins over those of the file; may be repeated
    #[arg(long = "variable", visible_alias = "env", value_name = "KEY=VALUE")]
    variables: Vec<String>,
    /// The image, whatever the job says: the name of an imported one, or the path of a root file system
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The time limit of a job that has none of its own
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    timeout: Duration,
    /// Virtual processors of the machine
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=256))]
    vcpus: u32,
    /// Memory of the machine
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = size)]
    memory: ByteSize,
    /// The most that the job may store
    #[arg(long, value_name = "SIZE", default_value = "20g", value_parser = size)]
    disk: ByteSize,
    /// List the jobs of the pipeline instead, and why they are in it
    #[arg(long, conflicts_with = "job")]
    list: bool,
    #[command(flatten)]
    all: AllArgs,
    #[command(flatten)]
    event: EventArgs,
}

pub(crate) async fn run(args: ExecArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    // Not by the parser of the command line: it repeats values, and these may be secrets.
    let parsed: Result<Vec<_>, String> = args.variables.iter().map(|text| assignment(text)).collect();
    let variables = parsed.map_err(|why| anyhow::anyhow!("--variable: {why}"))?;
    let repository = Repository::find(&args.cwd)?;
    let file = repository.ci_file(args.file.as_deref())?;
    let mut ends = Ends::listen()?;
    let snapshot = tokio::select! {
        snapshot = Snapshot::take(repository.root()) => snapshot?,
        signal = ends.next() => return Err(interrupted(signal)),
    };
    let event = Event::find(&args.event, &repository, snapshot.ref_name())?;
    let context = job::context_of(&file, &repository, &snapshot, &event, (args.timeout, variables));
    let tree = Tree::new(&repository, event.base.clone());
    let files = tart_ci_file::Repository::new(repository.root())?;
    let pipeline = Pipeline::load_for(&files, &file, &context, &tree)?;
    for warning in &pipeline.warnings {
        tracing::warn!("{warning}");
    }
    if args.list {
        return list::show(&plan(&pipeline, &context, &tree)?, &event);
    }
    let config = MicroVm { vcpus: args.vcpus, memory: args.memory, disk: args.disk, ..MicroVm::default() };
    let artifacts = LocalArtifacts::open(&config, repository.root())
        .context("there is no place for artifacts of jobs")
        .exit(Exit::Host)?;
    let workshop = Workshop {
        repository: &repository,
        snapshot: &snapshot,
        context: &context,
        artifacts,
        runner: Arc::new(local_runner()),
        image: args.image.clone(),
    };
    let Some(name) = &args.job else {
        let plan = plan(&pipeline, &context, &tree)?;
        args.all.check(&plan, &event)?;
        let setup = prepare(&config, &mut ends).await?;
        return all::run(&plan, &args.all, &workshop, setup, &mut ends).await;
    };
    let selection = pipeline.select(name, &context, &tree)?;
    if let Some(why) = &selection.left_out {
        tracing::warn!("`{name}` would not run for a {}: {why}", event.describe());
    }
    let (run, inheritance) = workshop.job(&selection.job, 1, &selection.artifacts_of)?;
    if !inheritance.missing.is_empty() {
        let jobs: Vec<String> = inheritance.missing.iter().map(|job| format!("`{job}`")).collect();
        let jobs = jobs.join(", ");
        tracing::warn!("`{name}` gets no artifacts of {jobs}: an earlier `tart exec` has left none here");
    }
    for problem in &inheritance.problems {
        tracing::warn!("{problem}");
    }
    let setup = prepare(&config, &mut ends).await?;
    workshop.clear(&selection.job)?;
    let report = supervise(&setup, run, &mut ends).await?;
    finish(&report)
}

/// The pipeline that GitLab would make. What is doubtful is said.
fn plan(pipeline: &Pipeline, context: &ExecContext, tree: &Tree<'_>) -> anyhow::Result<Plan> {
    let plan = pipeline.plan(context, tree)?;
    for note in &plan.notes {
        tracing::warn!("{note}");
    }
    Ok(plan)
}

/// Prepares the host, unless a signal ends that.
async fn prepare(config: &MicroVm, ends: &mut Ends) -> anyhow::Result<HostSetup> {
    let setup = tokio::select! {
        prepared = prepare_host(config) => prepared?,
        signal = ends.next() => {
            end_programs().await;
            return Err(interrupted(signal));
        }
    };
    for line in setup.describe() {
        tracing::info!("{line}");
    }
    Ok(setup)
}

async fn prepare_host(config: &MicroVm) -> anyhow::Result<HostSetup> {
    let steps = Steps::show();
    let options = PrepareOptions { progress: steps.clone(), agent: product::agent(), pool: false };
    let prepared = HostSetup::prepare(config, options).await;
    steps.finish();
    prepared
        .context("this host cannot run the job")
        .hint("`tart doctor` checks what a host needs")
        .exit(Exit::Host)
}

fn interrupted(signal: &str) -> anyhow::Error {
    let error: anyhow::Result<()> = Err(anyhow::anyhow!("ended by a signal ({signal}) before the job began"));
    match error.exit(Exit::Interrupted) {
        Err(error) => error,
        Ok(()) => anyhow::anyhow!("ended by a signal"),
    }
}

/// Runs the job. The first signal ends it in order; by the second nothing is waited for, and still nothing is left.
async fn supervise(setup: &HostSetup, run: JobRun, ends: &mut Ends) -> anyhow::Result<JobReport> {
    let (sender, signals) = watch::channel(JobSignal::None);
    let sink = Uncoloured::new(TerminalSink::new(tokio::io::stdout()), output::takes_colours());
    let running = run_job(setup, run, sink, signals, &NoObserver);
    let mut running = std::pin::pin!(running);
    let mut signalled = false;
    loop {
        tokio::select! {
            report = &mut running => return Ok(report),
            signal = ends.next() => {
                if signalled {
                    return Err(anyhow::anyhow!("ended by a second signal ({signal})")).exit(Exit::Interrupted);
                }
                signalled = true;
                sender.send_replace(JobSignal::Interrupt(signal.to_owned()));
            }
        }
    }
}

fn finish(report: &JobReport) -> anyhow::Result<ExitCode> {
    tracing::info!(timings = ?report.timings, usage = ?report.usage, "the job has ended");
    let exit = match report.failure_reason() {
        None => return Ok(ExitCode::SUCCESS),
        Some(FailureReason::RunnerSystemFailure) => Exit::Host,
        Some(FailureReason::RunnerInterrupted) => Exit::Interrupted,
        Some(_) => Exit::Job,
    };
    Ok(exit.into())
}

/// The runner of local jobs. Who works on a job does not want to wait for a registry each time.
fn local_runner() -> Runner {
    let mut runner = Runner { name: "local".to_owned(), ..Runner::default() };
    runner.docker.pull_policy = vec![tart_config::PullPolicy::IfNotPresent];
    runner
}
