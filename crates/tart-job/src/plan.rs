//! Everything that is decided about a job before it runs.

mod direct;

use std::collections::{HashMap, HashSet};

use tart_spec::JobPayload;

use crate::context::RunnerContext;
use crate::dirs::{DirsError, DirsRequest, JobDirs};
use crate::flags::{FeatureFlags, Flag};
use crate::git::{GitConfig, GitConfigRequest, Remote, RemoteError, RemoteRequest, SshAddress};
use crate::inputs::InputsError;
use crate::log::LogOptions;
use crate::mask::MaskRules;
use crate::outcome::{Failure, JobStatus};
use crate::scripts::{
    Commands, ScriptOptions, SectionPrefix, Sources, SourcesError, cleanup, clear_worktree, get_sources,
    prepare, user_script,
};
use crate::settings::{GitStrategy, JobSettings, SettingDefaults};
use crate::stages::{AFTER_SCRIPT, Place, PlannedStage, Stage, stages};
use crate::variables::{JobVariables, job_timeout};
pub use direct::DirectWork;

/// Why a job cannot be planned: a mistake of its configuration or the runner's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No directory for the job.
    #[error(transparent)]
    Dirs(#[from] DirsError),
    /// No address for the sources.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Its inputs cannot be put into it.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// The job asks for options of executors that do not exist.
    #[error("unsupported executor options: {}", .0.join(", "))]
    UnsupportedOptions(Vec<String>),
    /// The job uses `run`.
    #[error("the `run` keyword is not supported by this runner; use `script`")]
    NativeSteps,
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        match error {
            // What the official runner says of such a job (protocol reference 2.6).
            PlanError::UnsupportedOptions(_) => Self::system(error.to_string()),
            _ => Self::configuration(error.to_string()),
        }
    }
}

impl From<SourcesError> for Failure {
    fn from(error: SourcesError) -> Self {
        Self::configuration(error.to_string())
    }
}

/// A job, planned. Made again when secrets have been resolved.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// Its variables.
    pub variables: JobVariables,
    /// Its feature flags.
    pub flags: FeatureFlags,
    /// Its settings.
    pub settings: JobSettings,
    /// Its directories in the guest.
    pub dirs: JobDirs,
    /// Where its sources are.
    pub remote: Remote,
    /// Its stages, in order.
    pub stages: Vec<PlannedStage>,
    /// What the job's author should know: settings that are not usable and the like.
    pub warnings: Vec<String>,
}

impl JobPlan {
    /// Plans a job.
    ///
    /// # Errors
    /// The job or the runner is configured in a way that leaves no place for the job.
    pub fn new(payload: &JobPayload, context: &RunnerContext) -> Result<Self, PlanError> {
        let unsupported = payload.unsupported_options();
        if !unsupported.is_empty() {
            return Err(PlanError::UnsupportedOptions(unsupported));
        }
        if !payload.run.is_empty() {
            return Err(PlanError::NativeSteps);
        }
        let mut warnings = Vec::new();
        let flags = resolve_flags(payload, context, &mut warnings);
        let defaults = SettingDefaults {
            allow_git_fetch: payload.allow_git_fetch,
            git_depth: git_depth(payload),
            job_timeout: job_timeout(payload),
            debug_trace_disabled: context.debug_trace_disabled,
        };

        // The place of the project may itself depend on variables, such as that of the builds directory.
        let usual = dirs(payload, context, "", GitStrategy::Fetch)?;
        let before = JobVariables::build(payload, context, &flags, &usual, &mut Vec::new());
        let strategy = JobSettings::read(|key| before.value(key), defaults, &mut Vec::new()).git.strategy;
        let dirs = dirs(payload, context, before.value("GIT_CLONE_PATH").unwrap_or_default(), strategy)?;

        let variables = JobVariables::build(payload, context, &flags, &dirs, &mut warnings);
        let settings = JobSettings::read(|key| variables.value(key), defaults, &mut warnings);
        let remote = Remote::new(&RemoteRequest {
            repo_url: &payload.git_info.repo_url,
            clone_url: context.clone_url.as_deref(),
            project_path: variables.value("CI_PROJECT_PATH").unwrap_or(&dirs.project_slug),
            server_url: variables.value("CI_SERVER_URL").unwrap_or_default(),
            job_token: &payload.token,
        })?;
        let stages = stages(payload, settings.attempts);
        Ok(Self { variables, flags, settings, dirs, remote, stages, warnings })
    }

    /// How the job's log is written.
    pub fn log_options(&self, payload: &JobPayload) -> LogOptions {
        let phrases = self.variables.masked_phrases().chain([self.remote.password.as_str()]);
        let prefixes = payload.features.token_mask_prefixes.iter().map(String::as_str);
        LogOptions {
            mask: MaskRules::new(phrases, prefixes, self.flags.is_on(Flag::MaskAllDefaultTokens)),
            timestamps: self.flags.is_on(Flag::Timestamps),
            sections: payload.features.trace_sections,
        }
    }

    /// The whole environment of a stage's script, apart from what its tree sets. Empty for a stage of the runner.
    pub fn environment(
        &self,
        stage: &Stage,
        status: JobStatus,
        context: &RunnerContext,
    ) -> Vec<(String, String)> {
        let Some(place) = stage.place() else { return Vec::new() };
        let mut environment = self.variables.environment(place, status);
        let taken = environment.iter().find(|(key, _)| key == "GIT_CONFIG_COUNT");
        let taken = taken.and_then(|(_, count)| count.trim().parse::<u16>().ok()).unwrap_or(0);
        let mut own = self.git_config(place, context).environment(taken.into());
        if place == Place::Helper {
            own.extend(
                [("GIT_TERMINAL_PROMPT", "0"), ("GCM_INTERACTIVE", "Never")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
            );
        }
        let names: HashSet<&str> = own.iter().map(|(key, _)| key.as_str()).collect();
        environment.retain(|(key, _)| !names.contains(key.as_str()));
        environment.extend(own);
        environment
    }

    /// The script of a stage; `None` if the stage runs no script, or the runner does its work.
    ///
    /// # Errors
    /// A setting about the sources that cannot be followed: the stage fails with this text.
    pub fn script(
        &self,
        stage: &Stage,
        payload: &JobPayload,
        context: &RunnerContext,
    ) -> Result<Option<String>, SourcesError> {
        let debug_trace = self.settings.debug_trace;
        Ok(match stage {
            Stage::PrepareScript => Some(prepare(&self.dirs, context.host_name.as_deref(), debug_trace)),
            Stage::GetSources => Some(self.sources_script(payload, context)?),
            Stage::ClearWorktree => Some(clear_worktree(&self.dirs, debug_trace)),
            Stage::Step(name) => {
                let step = payload.steps.iter().find(|step| step.name == *name);
                step.map(|step| self.step_script(&step.name, &step.script, context, payload))
            }
            Stage::AfterScript => {
                let step = payload.steps.iter().find(|step| step.name == AFTER_SCRIPT);
                step.map(|step| {
                    let group = Commands { prefix: SectionPrefix::AfterScript, commands: &step.script };
                    user_script(&self.dirs.build_dir, &[group], self.script_options(payload))
                })
            }
            Stage::CleanupFileVariables => Some(cleanup(&self.dirs, debug_trace)),
            _ => None,
        })
    }

    fn step_script(
        &self,
        name: &str,
        lines: &[String],
        context: &RunnerContext,
        payload: &JobPayload,
    ) -> String {
        let lines: Vec<String> = match name {
            // The server leaves the references in the lines it generates for `release` to the runner.
            "release" => lines.iter().map(|line| self.variables.expand(line)).collect(),
            _ => lines.to_vec(),
        };
        let before = configured(&context.scripts.pre_build);
        let after = configured(&context.scripts.post_build);
        let groups = [
            Commands { prefix: SectionPrefix::PreBuild, commands: &before },
            Commands { prefix: SectionPrefix::Script, commands: &lines },
            Commands { prefix: SectionPrefix::PostBuild, commands: &after },
        ];
        user_script(&self.dirs.build_dir, &groups, self.script_options(payload))
    }

    fn sources_script(&self, payload: &JobPayload, context: &RunnerContext) -> Result<String, SourcesError> {
        let hook = |name: &str| {
            let hooks = payload.hooks.iter().filter(|hook| hook.name == name);
            hooks.flat_map(|hook| hook.script.clone()).collect::<Vec<String>>()
        };
        let mut before = configured(&context.scripts.pre_get_sources);
        before.extend(hook("pre_get_sources_script"));
        let mut after = hook("post_get_sources_script");
        after.extend(configured(&context.scripts.post_get_sources));
        let git_info = &payload.git_info;
        get_sources(&Sources {
            dirs: &self.dirs,
            git: &self.settings.git,
            remote_url: &self.remote.url,
            object_format: &git_info.repo_object_format,
            sha: &git_info.sha,
            git_ref: &git_info.r#ref,
            refspecs: &git_info.refspecs,
            depth: git_depth(payload),
            clean_git_config: context.clean_git_config,
            before: &before,
            after: &after,
            options: self.script_options(payload),
        })
    }

    fn script_options(&self, payload: &JobPayload) -> ScriptOptions {
        ScriptOptions {
            debug_trace: self.settings.debug_trace,
            exit_code_check: self.flags.is_on(Flag::BashExitCodeCheck),
            sections: payload.features.trace_sections && self.flags.is_on(Flag::ScriptSections),
        }
    }

    fn git_config(&self, place: Place, context: &RunnerContext) -> GitConfig {
        let path = |key: &str| self.variables.file_path(key);
        let (ca, certificate, key) =
            (path("CI_SERVER_TLS_CA_FILE"), path("CI_SERVER_TLS_CERT_FILE"), path("CI_SERVER_TLS_KEY_FILE"));
        let mut config = GitConfig::new(&GitConfigRequest {
            remote: &self.remote,
            job_token: self.variables.value("CI_JOB_TOKEN"),
            ca_file: ca.as_deref(),
            certificate_file: certificate.as_deref(),
            key_file: key.as_deref(),
        });
        if place == Place::Job {
            return config;
        }
        let product = &context.product;
        let agent = format!("{} {} {}/{}", product.name, product.version, product.os, product.architecture);
        config.push("http.userAgent", &agent);
        config.use_lfs();
        if self.flags.is_on(Flag::GitBundleUris) {
            config.push("transfer.bundleURI", "true");
        }
        if self.flags.is_on(Flag::GitProactiveAuth) {
            config.push("http.proactiveAuth", "basic");
        }
        if let Some(id) =
            context.correlation_id.as_deref().filter(|_| self.flags.is_on(Flag::GitalyCorrelationId))
        {
            config.correlate(&self.remote, id);
        }
        if self.settings.git.submodule_force_https {
            config.force_https(&self.remote, &self.ssh_address());
        }
        config
    }

    fn ssh_address(&self) -> SshAddress {
        let set = |key: &str| self.variables.value(key).filter(|value| !value.is_empty());
        SshAddress {
            host: set("CI_SERVER_SHELL_SSH_HOST")
                .or_else(|| set("CI_SERVER_HOST"))
                .unwrap_or_default()
                .to_owned(),
            port: set("CI_SERVER_SHELL_SSH_PORT").and_then(|port| port.parse().ok()).unwrap_or(22),
        }
    }
}

/// A script of the runner's configuration as commands.
fn configured(script: &str) -> Vec<String> {
    if script.trim().is_empty() { Vec::new() } else { vec![script.to_owned()] }
}

fn git_depth(payload: &JobPayload) -> u32 {
    u32::try_from(payload.git_info.depth).unwrap_or(0)
}

/// The feature flags of a job; what is wrong with them is added to the warnings.
pub(crate) fn resolve_flags(
    payload: &JobPayload,
    context: &RunnerContext,
    warnings: &mut Vec<String>,
) -> FeatureFlags {
    let job: HashMap<&str, &str> =
        payload.variables.iter().map(|variable| (variable.key.as_str(), variable.value.as_str())).collect();
    let environment: HashMap<&str, &str> =
        context.environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    FeatureFlags::resolve(
        &context.feature_flags,
        |name| job.get(name).copied(),
        |name| environment.get(name).copied(),
        warnings,
    )
}

fn dirs(
    payload: &JobPayload,
    context: &RunnerContext,
    clone_path: &str,
    strategy: GitStrategy,
) -> Result<JobDirs, DirsError> {
    JobDirs::new(&DirsRequest {
        repo_url: &payload.git_info.repo_url,
        project_id: payload.job_info.project_id,
        builds_dir: &context.builds_dir,
        cache_dir: &context.cache_dir,
        shared_by: context
            .shared_builds_dir
            .then_some((context.short_token.as_str(), context.concurrent_project_id)),
        clone_path,
        clone_path_allowed: context.custom_build_dir,
        empty_strategy: strategy == GitStrategy::Empty,
    })
}

#[cfg(test)]
mod tests;
