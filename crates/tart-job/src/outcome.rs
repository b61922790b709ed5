//! How a job ends: which stages are still due after a failure, and what is said about it.

use std::time::Duration;

use tart_spec::FailureReason;

use crate::literal::format_duration;
use crate::log::Level;
use crate::stages::Stage;

/// Why a stage, and with it perhaps the job, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A script ended with this exit code, which is not 0. A signal counts as 128 and its number.
    #[error("exit code {0}")]
    ExitCode(i32),
    /// The job, or a stage with a limit of its own, took longer than this.
    #[error("execution took longer than {} seconds", format_duration(*.0))]
    Timeout(Duration),
    /// All steps together took longer than `RUNNER_SCRIPT_TIMEOUT`. Unlike after the job's timeout, the later
    /// stages run.
    #[error("execution took longer than {} seconds", format_duration(*.0))]
    ScriptTimeout(Duration),
    /// Somebody cancelled the job, and the server lets it end in order.
    #[error("canceled")]
    Canceled,
    /// The server wants to hear no more of the job.
    #[error("canceled")]
    Aborted,
    /// The runner was told to stop, by this signal.
    #[error("aborted: {0}")]
    Interrupted(String),
    /// The guest could not be prepared.
    #[error("prepare environment: {message}")]
    Prepare {
        /// What went wrong.
        message: String,
        /// Its classification.
        reason: FailureReason,
    },
    /// Anything else, with its classification.
    #[error("{message}")]
    Other {
        /// What went wrong.
        message: String,
        /// Its classification.
        reason: FailureReason,
    },
}

impl Failure {
    /// A failure of the runner itself.
    pub fn system(message: impl Into<String>) -> Self {
        Self::Other { message: message.into(), reason: FailureReason::RunnerSystemFailure }
    }

    /// A failure that the job's author, or the runner's administrator, can correct.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::Other { message: message.into(), reason: FailureReason::RunnerConfigurationError }
    }

    /// The classification, before it is mapped to what the server understands.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::ExitCode(_) => FailureReason::ScriptFailure,
            Self::Timeout(_) | Self::ScriptTimeout(_) => FailureReason::JobExecutionTimeout,
            Self::Canceled | Self::Aborted => FailureReason::JobCanceled,
            Self::Interrupted(_) => FailureReason::RunnerInterrupted,
            Self::Prepare { reason, .. } | Self::Other { reason, .. } => reason.clone(),
        }
    }

    /// The exit code to report, for a failed script.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::ExitCode(code) => Some(*code),
            _ => None,
        }
    }

    /// Whether the rest of the job, apart from the clean-up, is not even tried.
    pub fn ends_job(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Aborted | Self::Interrupted(_))
    }
}

/// What a program learns from `CI_JOB_STATUS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// Until the steps have ended.
    Running,
    /// All is well so far.
    Success,
    /// Something failed.
    Failed,
    /// Somebody cancelled the job.
    Canceled,
    /// A time limit was exceeded.
    TimedOut,
}

impl JobStatus {
    /// The value of the variable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut => "timedout",
        }
    }
}

/// A job on its way through its stages.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    ignore_after_script_errors: bool,
    steps_begun: bool,
    /// A stage before the steps failed: the steps and `after_script` do not run.
    before_steps: Option<Failure>,
    script: Option<Failure>,
    after_script: Option<Failure>,
    cache: Option<Failure>,
    artifacts: Option<Failure>,
    /// Nothing but the clean-up is left to do.
    ended: bool,
}

impl Progress {
    /// A job that has not begun. `ignore_after_script_errors` is `AFTER_SCRIPT_IGNORE_ERRORS`.
    pub fn new(ignore_after_script_errors: bool) -> Self {
        Self { ignore_after_script_errors, ..Self::default() }
    }

    /// Whether a stage, whose turn it is, runs.
    pub fn is_due(&self, stage: &Stage) -> bool {
        match stage {
            Stage::CleanupFileVariables => true,
            _ if self.ended => false,
            Stage::Step(_) => self.before_steps.is_none() && self.script.is_none(),
            Stage::AfterScript => self.before_steps.is_none(),
            Stage::ArchiveCache | Stage::UploadArtifactsOnSuccess => self.is_good(),
            Stage::ArchiveCacheOnFailure | Stage::UploadArtifactsOnFailure => !self.is_good(),
            _ => self.before_steps.is_none(),
        }
    }

    /// Says that a stage begins.
    pub fn begin(&mut self, stage: &Stage) {
        self.steps_begun |= matches!(stage, Stage::Step(_));
    }

    /// Says how a stage ended, after its last try. Gives a warning for the log, if the failure is passed over.
    pub fn end(&mut self, stage: &Stage, result: Result<(), Failure>) -> Option<String> {
        let failure = result.err()?;
        self.ended |= failure.ends_job();
        let mut warning = None;
        match stage {
            Stage::CleanupFileVariables => return Some(format!("cleaning up failed: {failure}")),
            Stage::ResolveSecrets | Stage::PrepareExecutor | Stage::PrepareScript => {
                self.ended = true;
                self.before_steps.get_or_insert(failure);
            }
            Stage::GetSources | Stage::ClearWorktree | Stage::RestoreCache | Stage::DownloadArtifacts => {
                // Cancelled before the user's scripts began, a job has nothing to save.
                self.ended |= failure == Failure::Canceled;
                self.before_steps.get_or_insert(failure);
            }
            Stage::Step(_) => {
                self.script.get_or_insert(failure);
            }
            Stage::AfterScript => {
                if self.ignore_after_script_errors && !failure.ends_job() {
                    warning =
                        Some(format!("after_script failed, but job will continue unaffected: {failure}"));
                } else {
                    self.after_script.get_or_insert(failure);
                }
            }
            Stage::ArchiveCache | Stage::ArchiveCacheOnFailure => {
                self.cache.get_or_insert(failure);
            }
            Stage::UploadArtifactsOnSuccess | Stage::UploadArtifactsOnFailure => {
                self.artifacts.get_or_insert(failure);
            }
        }
        warning
    }

    /// Whether a request to cancel only stops the script, so that the later stages still run. Before the steps the
    /// whole job is cancelled, and after them there is nothing left to cancel.
    pub fn cancels_script_only(&self) -> bool {
        self.steps_begun
    }

    /// The value of `CI_JOB_STATUS` in a stage.
    pub fn status_in(&self, stage: &Stage) -> JobStatus {
        match self.script_failure() {
            None if self.steps_begun && !matches!(stage, Stage::Step(_)) => JobStatus::Success,
            None => JobStatus::Running,
            Some(Failure::Canceled | Failure::Aborted) => JobStatus::Canceled,
            Some(Failure::Timeout(_) | Failure::ScriptTimeout(_)) => JobStatus::TimedOut,
            Some(_) => JobStatus::Failed,
        }
    }

    /// How the job ended.
    pub fn verdict(&self) -> Verdict {
        let failure = self.script_failure().or(self.cache.as_ref()).or(self.artifacts.as_ref());
        failure.map_or(Verdict::Success, |failure| Verdict::Failed(failure.clone()))
    }

    fn script_failure(&self) -> Option<&Failure> {
        self.before_steps.as_ref().or(self.script.as_ref()).or(self.after_script.as_ref())
    }

    fn is_good(&self) -> bool {
        self.script_failure().is_none()
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Success,
    /// Not well.
    Failed(Failure),
}

impl Verdict {
    /// The last line of the job's log: its level and its text.
    pub fn line(&self) -> (Level, String) {
        match self {
            Self::Success => (Level::Info, "Job succeeded".to_owned()),
            Self::Failed(failure) => {
                let kind = match failure.reason() {
                    FailureReason::RunnerSystemFailure => " (system failure)",
                    _ => "",
                };
                (Level::Error, format!("Job failed{kind}: {failure}"))
            }
        }
    }
}

/// The warning about a stage that a time limit ended.
pub fn timeout_hint(stage: &Stage) -> String {
    format!(
        "{} could not run to completion because the timeout was exceeded. For more control over job and script \
         timeouts see: https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after_script-timeouts",
        stage.name()
    )
}

/// The warning about a script that was cancelled.
pub const CANCELED_EXTERNALLY: &str = "script canceled externally (UI, API)";

#[cfg(test)]
mod tests;
