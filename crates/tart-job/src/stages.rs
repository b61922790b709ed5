//! The stages of a job: what there is to do, where, how often, and what to wait between two tries.

use std::borrow::Cow;
use std::time::Duration;

use tart_spec::{Artifact, Cache, JobPayload, When};

use crate::settings::Attempts;

/// A stage of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Fetching secrets from their providers.
    ResolveSecrets,
    /// Making the guest.
    PrepareExecutor,
    /// The first script in the guest.
    PrepareScript,
    /// Fetching the sources.
    GetSources,
    /// What runs between two tries of [`Stage::GetSources`].
    ClearWorktree,
    /// Extracting the caches.
    RestoreCache,
    /// Extracting the artifacts of other jobs.
    DownloadArtifacts,
    /// A step of the user, with its name as in the payload.
    Step(String),
    /// The user's `after_script`.
    AfterScript,
    /// Saving the caches of a job that succeeded.
    ArchiveCache,
    /// Saving the caches of a job that failed.
    ArchiveCacheOnFailure,
    /// Uploading the artifacts of a job that succeeded.
    UploadArtifactsOnSuccess,
    /// Uploading the artifacts of a job that failed.
    UploadArtifactsOnFailure,
    /// Removing what must not stay.
    CleanupFileVariables,
}

/// The file tree a stage's script runs in. Both see the same builds and cache directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The helper disk: bash, git, coreutils.
    Helper,
    /// The image of the job.
    Job,
}

impl Stage {
    /// The name of the stage, and of its section in the log.
    pub fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::ResolveSecrets => "resolve_secrets",
            Self::PrepareExecutor => "prepare_executor",
            Self::PrepareScript => "prepare_script",
            Self::GetSources => "get_sources",
            Self::ClearWorktree => "clear_worktree",
            Self::RestoreCache => "restore_cache",
            Self::DownloadArtifacts => "download_artifacts",
            Self::Step(name) => return Cow::Owned(format!("step_{}", name.to_lowercase())),
            Self::AfterScript => "after_script",
            Self::ArchiveCache => "archive_cache",
            Self::ArchiveCacheOnFailure => "archive_cache_on_failure",
            Self::UploadArtifactsOnSuccess => "upload_artifacts_on_success",
            Self::UploadArtifactsOnFailure => "upload_artifacts_on_failure",
            Self::CleanupFileVariables => "cleanup_file_variables",
        })
    }

    /// The text of the stage's header line. `executor` is shown for [`Stage::PrepareExecutor`].
    pub fn header(&self, executor: &str) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::ResolveSecrets => "Resolving secrets",
            Self::PrepareExecutor => return Cow::Owned(format!("Preparing the \"{executor}\" executor")),
            Self::PrepareScript => "Preparing environment",
            Self::GetSources => "Getting source from Git repository",
            Self::ClearWorktree => "Deleting all tracked and untracked files due to source fetch failure",
            Self::RestoreCache => "Restoring cache",
            Self::DownloadArtifacts => "Downloading artifacts",
            Self::Step(_) => {
                return Cow::Owned(format!("Executing \"{}\" stage of the job script", self.name()));
            }
            Self::AfterScript => "Running after_script",
            Self::ArchiveCache => "Saving cache for successful job",
            Self::ArchiveCacheOnFailure => "Saving cache for failed job",
            Self::UploadArtifactsOnSuccess => "Uploading artifacts for successful job",
            Self::UploadArtifactsOnFailure => "Uploading artifacts for failed job",
            Self::CleanupFileVariables => "Cleaning up project directory and file based variables",
        })
    }

    /// Where the stage runs in the guest; `None` for a stage of the runner itself.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::ResolveSecrets | Self::PrepareExecutor => None,
            Self::Step(_) | Self::AfterScript => Some(Place::Job),
            _ => Some(Place::Helper),
        }
    }
}

/// A stage that a job has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStage {
    /// Which.
    pub stage: Stage,
    /// How often it is tried, at least once.
    pub attempts: u32,
    /// What runs before every try but the first.
    pub before_retry: Option<Stage>,
}

/// Tries of [`Stage::PrepareExecutor`]; only errors without a classification are worth another.
const PREPARE_ATTEMPTS: u32 = 3;

/// The pause between the tries of [`Stage::PrepareExecutor`].
pub const PREPARE_RETRY_DELAY: Duration = Duration::from_secs(3);

/// The stages of a job, in their order. A job runs only some of them: those on success and on failure exclude each
/// other, and [`Progress`](crate::outcome::Progress) knows which are due.
pub fn stages(payload: &JobPayload, attempts: Attempts) -> Vec<PlannedStage> {
    let mut plan = Plan::default();
    if !payload.secrets.is_empty() {
        plan.tried(Stage::ResolveSecrets, attempts.secrets);
    }
    plan.tried(Stage::PrepareExecutor, PREPARE_ATTEMPTS);
    plan.once(Stage::PrepareScript);
    plan.tried(Stage::GetSources, attempts.get_sources);
    if payload.cache.iter().any(is_cache) {
        plan.tried(Stage::RestoreCache, attempts.restore_cache);
    }
    if payload.dependencies.iter().any(tart_spec::Dependency::has_artifacts) {
        plan.tried(Stage::DownloadArtifacts, attempts.download_artifacts);
    }
    for step in payload.steps.iter().filter(|step| !step.script.is_empty()) {
        if step.name != AFTER_SCRIPT {
            plan.once(Stage::Step(step.name.clone()));
        }
    }
    if payload.steps.iter().any(|step| step.name == AFTER_SCRIPT && !step.script.is_empty()) {
        plan.once(Stage::AfterScript);
    }
    for (stage, succeeded) in [(Stage::ArchiveCache, true), (Stage::ArchiveCacheOnFailure, false)] {
        if payload.cache.iter().any(|cache| is_cache(cache) && is_due(&cache.when, succeeded)) {
            plan.once(stage);
        }
    }
    for (stage, succeeded) in
        [(Stage::UploadArtifactsOnSuccess, true), (Stage::UploadArtifactsOnFailure, false)]
    {
        if payload.artifacts.iter().any(|artifact| is_artifact(artifact) && is_due(&artifact.when, succeeded))
        {
            plan.once(stage);
        }
    }
    plan.once(Stage::CleanupFileVariables);
    plan.stages
}

/// The name of the step that is `after_script`.
pub const AFTER_SCRIPT: &str = "after_script";

/// Whether an entry of `cache` saves or restores anything at all.
pub fn is_cache(cache: &Cache) -> bool {
    !cache.paths.is_empty() || cache.untracked
}

/// Whether an entry of `artifacts` uploads anything at all.
pub fn is_artifact(artifact: &Artifact) -> bool {
    !artifact.paths.is_empty() || artifact.untracked
}

/// Whether something with this `when` is done for a job that succeeded, or did not.
pub fn is_due(when: &When, succeeded: bool) -> bool {
    match when {
        When::Always => true,
        When::OnFailure => !succeeded,
        When::OnSuccess => succeeded,
        When::Other(_) => false,
    }
}

#[derive(Default)]
struct Plan {
    stages: Vec<PlannedStage>,
}

impl Plan {
    fn once(&mut self, stage: Stage) {
        self.tried(stage, 1);
    }

    fn tried(&mut self, stage: Stage, attempts: u32) {
        let before_retry = (stage == Stage::GetSources).then_some(Stage::ClearWorktree);
        self.stages.push(PlannedStage { stage, attempts: attempts.max(1), before_retry });
    }
}

/// The pause before a try of a stage; `failed` tries, at least one, have been made. `exponential` is
/// `FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY`.
pub fn retry_delay(failed: u32, exponential: bool) -> Duration {
    let (first, longest) = if exponential { (5, 300) } else { (1, 5) };
    let doubled = 2_u64.saturating_pow(failed.saturating_sub(1)).saturating_mul(first);
    Duration::from_secs(doubled.min(longest))
}

#[cfg(test)]
mod tests;
