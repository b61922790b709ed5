//! The stages of one job, one after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tart_guest::GuestError;
use tart_job::Level;
use tart_job::flags::Flag;
use tart_job::outcome::{CANCELED_EXTERNALLY, Failure, JobStatus, Progress, Verdict, timeout_hint};
use tart_job::plan::JobPlan;
use tart_job::stages::{Place, PlannedStage, Stage, retry_delay};
use tart_job::variables::job_timeout;
use tart_spec::FailureReason;
use tokio::time::{Instant, sleep, timeout};

use super::control::{Bound, Control, Scope};
use super::log::JobLog;
use super::report::{JobUsage, Timings};
use super::script::{self, Broken, Script, Surroundings, Trail};
use super::services::Services;
use super::terminal::JobSession;
use super::{JobObserver, JobRun, explain};
use crate::HostSetup;
use crate::guest::{JobGuest, killed_for_memory};

/// How long the clean-up may take, which runs also after the job's time is over.
const CLEANUP_LIMIT: Duration = Duration::from_secs(20);

/// How long the guest may take to say how full it is.
const STATS_LIMIT: Duration = Duration::from_secs(5);

/// A job on its way.
pub(super) struct Job<'a> {
    pub(super) setup: &'a HostSetup,
    pub(super) run: &'a JobRun,
    pub(super) plan: &'a JobPlan,
    pub(super) observer: &'a dyn JobObserver,
    pub(super) log: JobLog,
    pub(super) control: Control,
    pub(super) guest: Option<JobGuest>,
    /// What the image says about running commands in it.
    pub(super) image: tart_assets::ImageConfig,
    /// Keep the images from being removed as long as the guest may use them.
    pub(super) leases: Vec<tart_images::LeasedImage>,
    pub(super) services: Services,
    /// The fingerprints of caches that were restored, by the names of their keys: what need not be saved again.
    pub(super) restored: BTreeMap<String, String>,
    pub(super) timings: Timings,
    pub(super) usage: JobUsage,
    begun: Instant,
    progress: Progress,
    limits: JobLimits,
    /// No stage may use the guest any more.
    lost: bool,
}

/// The limits that span several stages.
#[derive(Debug, Default)]
struct JobLimits {
    job: Option<Bound>,
    prepare: Option<Bound>,
    script: Option<Bound>,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        setup: &'a HostSetup,
        run: &'a JobRun,
        plan: &'a JobPlan,
        observer: &'a dyn JobObserver,
        log: JobLog,
        control: Control,
    ) -> Self {
        let now = Instant::now();
        let prepare = run.runner.prepare_timeout;
        let limits = JobLimits {
            job: Bound::new(now, job_timeout(&run.payload), Failure::Timeout),
            prepare: prepare.and_then(|limit| Bound::new(now, limit, Failure::Timeout)),
            script: None,
        };
        Self {
            setup,
            run,
            plan,
            observer,
            log,
            control,
            guest: None,
            image: tart_assets::ImageConfig::default(),
            leases: Vec::new(),
            services: Services::default(),
            restored: BTreeMap::new(),
            timings: Timings::default(),
            usage: JobUsage::default(),
            begun: now,
            progress: Progress::new(plan.settings.after_script_ignore_errors),
            limits,
            lost: false,
        }
    }

    /// Runs all stages that are due, and ends the guest.
    pub(super) async fn finish(mut self) -> (Verdict, JobLog, Timings, JobUsage) {
        let plan = self.plan;
        for planned in &plan.stages {
            if self.lost {
                break;
            }
            let pointless = match planned.stage {
                // It is over, or the job could not have been planned.
                Stage::ResolveSecrets => true,
                Stage::CleanupFileVariables => self.guest.is_none(),
                _ => false,
            };
            if pointless || !self.progress.is_due(&planned.stage) {
                continue;
            }
            if planned.stage == Stage::CleanupFileVariables {
                // While the files are there: whoever is connected wants to see what the job saw.
                self.wait_for_terminal().await;
            }
            let result = self.stage(planned).await;
            // The machine ends now: whoever asked for that does not want to wait for anything else.
            self.lost |= matches!(result, Err(Failure::Aborted | Failure::Interrupted(_)));
            // Cancelled before its scripts began, a job has no after_script either.
            let early = matches!(result, Err(Failure::Canceled)) && !self.progress.cancels_script_only();
            let stage = if early { &Stage::PrepareScript } else { &planned.stage };
            if let Some(warning) = self.progress.end(stage, result) {
                self.log.line(Level::Warning, &warning);
            }
        }
        if let Some(JobSession { session, .. }) = &self.run.session {
            session.close("the job is over");
        }
        if let Some(guest) = self.guest.take() {
            let ended = Instant::now();
            let (disk, network) = guest.end().await;
            self.timings.end_to_gone = Some(ended.elapsed());
            if let Some(text) = explain::carried(&network) {
                self.log.line(Level::Print, &text);
            }
            for warning in explain::network(&network) {
                self.log.line(Level::Warning, &warning);
            }
            (self.usage.disk, self.usage.network) = (disk, network.counters);
        }
        (self.progress.verdict(), self.log, self.timings, self.usage)
    }

    /// How long ago the job began.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// One stage with its tries.
    async fn stage(&mut self, planned: &PlannedStage) -> Result<(), Failure> {
        let stage = &planned.stage;
        let scope = self.scope(stage);
        if let Some(failure) = self.control.halted_now(&scope) {
            return Err(failure);
        }
        self.progress.begin(stage);
        self.observer.stage(stage);
        if *stage == Stage::PrepareExecutor {
            return self.section(stage, &scope, planned.attempts).await;
        }
        let mut failed = 0;
        loop {
            let failure = match self.section(stage, &scope, 1).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            failed += 1;
            let final_one = failure.ends_job() || failure == Failure::Canceled || self.lost;
            if final_one || failed >= planned.attempts {
                return Err(failure);
            }
            let delay = announce_retry(stage, &failure, failed, self.plan, &mut self.log);
            self.control.unless_halted(&scope, sleep(delay)).await?;
            if let Some(before) = &planned.before_retry {
                match self.section(before, &scope, 1).await {
                    Err(failure) if failure.ends_job() || self.lost => return Err(failure),
                    // What is in the way will show in the next try.
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }

    /// One try of a stage, as a section of the log.
    async fn section(&mut self, stage: &Stage, scope: &Scope, attempts: u32) -> Result<(), Failure> {
        let name = stage.name();
        self.log.begin_section(&name, &stage.header(super::EXECUTOR));
        let result = match stage {
            Stage::PrepareExecutor => self.prepare(scope, attempts).await,
            Stage::RestoreCache => self.restore_caches(scope).await,
            Stage::ArchiveCache | Stage::ArchiveCacheOnFailure => self.archive_caches(stage, scope).await,
            Stage::DownloadArtifacts => self.download_artifacts(scope).await,
            Stage::UploadArtifactsOnSuccess | Stage::UploadArtifactsOnFailure => {
                self.upload_artifacts(stage, scope).await
            }
            _ => self.script(stage, scope).await,
        };
        self.log.end_section(&name);
        result
    }

    /// What a stage is subject to. Limits of the stage itself begin now.
    fn scope(&mut self, stage: &Stage) -> Scope {
        let settings = &self.plan.settings;
        let now = Instant::now();
        let own = match stage {
            Stage::PrepareExecutor | Stage::PrepareScript => self.limits.prepare.clone(),
            Stage::GetSources => {
                let limit = self.run.runner.get_sources_timeout;
                limit.and_then(|limit| Bound::new(now, limit, Failure::Timeout))
            }
            Stage::Step(_) => {
                if self.limits.script.is_none() {
                    let limit = settings.script_timeout;
                    self.limits.script =
                        limit.and_then(|limit| Bound::new(now, limit, Failure::ScriptTimeout));
                }
                self.limits.script.clone()
            }
            Stage::AfterScript => Bound::new(now, settings.after_script_timeout, Failure::ScriptTimeout),
            Stage::CleanupFileVariables => Bound::new(now, CLEANUP_LIMIT, Failure::ScriptTimeout),
            _ => None,
        };
        let job = self.limits.job.clone().filter(|_| *stage != Stage::CleanupFileVariables);
        Scope { bounds: own.into_iter().chain(job).collect(), cancellable: is_cancellable(stage) }
    }

    /// What is left of the job's time.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.limits.job.as_ref().map(Bound::left)
    }

    /// A stage that is a script in the guest.
    async fn script(&mut self, stage: &Stage, scope: &Scope) -> Result<(), Failure> {
        let (payload, context) = (&self.run.payload, &self.run.context);
        if let Some(work) = self.plan.direct(stage, context, &self.hostname()) {
            return self.direct(stage, &work, scope).await;
        }
        let text = self.plan.script(stage, payload, context);
        let Some(text) = text.map_err(|error| Failure::configuration(error.to_string()))? else {
            return Ok(());
        };
        let Some(place) = stage.place() else { return Ok(()) };
        let Some(guest) = self.guest.take() else { return Err(Failure::system("there is no guest")) };
        let script = self.describe(stage, place, text, self.progress.status_in(stage), &guest);
        if matches!(stage, Stage::Step(_)) {
            self.offer_terminal(&script, guest.agent());
        }
        let mut trail = Trail::default();
        let halt = |failure: &Failure, log: &mut JobLog| say_halt(stage, failure, log);
        let surroundings = Surroundings {
            scope,
            control: &mut self.control,
            log: &mut self.log,
            services: &mut self.services,
        };
        let ran = script::run(guest.agent(), &script, surroundings, &mut trail, halt).await;
        self.account(stage, &trail, &guest);
        let result = match ran {
            Ok(status) => script::outcome(status),
            Err(broken) => Err(self.broken(broken, &guest).await),
        };
        if matches!(result, Err(Failure::ExitCode(_))) {
            self.explain(&trail, &guest).await;
        }
        self.guest = Some(guest);
        match (stage, result) {
            (Stage::PrepareScript, Err(failure @ Failure::ExitCode(_))) => Err(Failure::Prepare {
                message: failure.to_string(),
                reason: FailureReason::RunnerSystemFailure,
            }),
            (_, result) => result,
        }
    }

    fn describe(
        &self,
        stage: &Stage,
        place: Place,
        text: String,
        status: JobStatus,
        guest: &JobGuest,
    ) -> Script {
        let plan = self.plan;
        let mut environment = if place == Place::Job { self.image.env.clone() } else { Vec::new() };
        environment.extend_from_slice(guest.proxy_env());
        environment.extend(plan.environment(stage, status, &self.run.context));
        let only_sh = self.run.runner.shell == tart_config::Shell::Sh;
        Script {
            text,
            place,
            shells: match place {
                Place::Helper => vec![script::helper_shell(&self.image.user)],
                Place::Job => script::job_shells(&self.image, only_sh, guest.shell),
            },
            environment,
            user: self.image.user.clone(),
            cgroup: script::cgroup(&stage.name()),
            directory: plan.dirs.temp_dir.clone(),
            files: if *stage == Stage::CleanupFileVariables { Vec::new() } else { plan.variables.files() },
        }
    }

    fn account(&mut self, stage: &Stage, trail: &Trail, guest: &JobGuest) {
        self.usage.output += trail.output;
        if let Some(exited) = trail.exited {
            self.usage.cpu += Duration::from_micros(exited.cpu_usec);
            self.usage.memory_peak = self.usage.memory_peak.max(exited.memory_peak_bytes);
            self.usage.oom_kills += exited.oom_kills;
        }
        if let (Stage::Step(_), Some(first)) = (stage, trail.first_output) {
            self.timings.ready_to_script.get_or_insert(first - guest.ready);
            self.timings.to_script.get_or_insert(first - self.begun);
        }
    }

    pub(super) async fn broken(&mut self, broken: Broken, guest: &JobGuest) -> Failure {
        match broken {
            Broken::Halted(failure) => failure,
            Broken::Stuck(failure) => {
                self.lost = true;
                self.log.line(Level::Warning, "the guest did not stop the script; the microVM is ended");
                failure
            }
            Broken::NoShell => Failure::configuration(match self.image.entrypoint.first() {
                Some(program) => format!(
                    "the image's entrypoint `{program}` is not in it; replace it with `image:entrypoint`, which may \
                     be `[\"\"]` for none"
                ),
                None => "the image has no shell: neither bash nor sh is in /usr/local/bin, /usr/bin or /bin; a job's \
                         scripts need one"
                    .to_owned(),
            }),
            Broken::Guest(GuestError::TooLarge { .. }) => Failure::configuration(
                "the job's variables are too large together to be given to a script; make the large ones file variables",
            ),
            Broken::Guest(error) if error.failure_kind().is_some() => {
                Failure::system(format!("the guest cannot run the script: {error}"))
            }
            Broken::Guest(error) => {
                self.lost = true;
                let cause = guest.cause_of_death(&error).await;
                self.log.line(Level::Warning, &cause);
                Failure::system(explain::first_line(&cause))
            }
        }
    }

    /// Says it if the guest's limits are why a script failed.
    async fn explain(&mut self, trail: &Trail, guest: &JobGuest) {
        let config = &self.setup.config;
        let kills = trail.exited.map_or(0, |exited| exited.oom_kills);
        if kills > 0 {
            let names = killed_for_memory(&guest.console_tail());
            self.log.line(Level::Warning, &explain::out_of_memory(kills, &names, config.memory));
        }
        let stats = timeout(STATS_LIMIT, guest.agent().stats()).await;
        if let Ok(Ok(stats)) = stats
            && explain::is_full(stats.disk_free_bytes, stats.disk_total_bytes)
        {
            self.log.line(Level::Warning, &explain::disk_full(config.disk));
        }
    }
}

/// Says why a stage has to stop.
pub(super) fn say_halt(stage: &Stage, failure: &Failure, log: &mut JobLog) {
    match failure {
        Failure::Timeout(_) | Failure::ScriptTimeout(_) => log.line(Level::Warning, &timeout_hint(stage)),
        Failure::Canceled => log.line(Level::Warning, CANCELED_EXTERNALLY),
        _ => {}
    }
}

/// Says why a stage is tried again, and after what time that is.
pub(super) fn announce_retry(
    stage: &Stage,
    failure: &dyn fmt::Display,
    failed: u32,
    plan: &JobPlan,
    log: &mut JobLog,
) -> Duration {
    let delay = retry_delay(failed, plan.flags.is_on(Flag::ExponentialBackoffStageRetry));
    let text = format!("{} failed: {failure}; retrying in {} s...", stage.name(), delay.as_secs());
    log.line(Level::Warning, &text);
    delay
}

/// Whether a request to cancel ends the stage. After the script there is nothing left to cancel.
fn is_cancellable(stage: &Stage) -> bool {
    match stage {
        Stage::ResolveSecrets
        | Stage::PrepareExecutor
        | Stage::PrepareScript
        | Stage::GetSources
        | Stage::ClearWorktree
        | Stage::RestoreCache
        | Stage::DownloadArtifacts
        | Stage::Step(_) => true,
        Stage::AfterScript
        | Stage::ArchiveCache
        | Stage::ArchiveCacheOnFailure
        | Stage::UploadArtifactsOnSuccess
        | Stage::UploadArtifactsOnFailure
        | Stage::CleanupFileVariables => false,
    }
}
