//! `[[runners]]`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use super::{Cache, Docker, MicroVm, wire};
use crate::secret::Secret;

/// One `[[runners]]` entry.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runner {
    /// The name in messages; empty if the file gives none.
    pub name: String,
    /// The instance, expanded, without `/ci` and without a slash at its end.
    pub url: String,
    /// The runner's token, expanded.
    pub token: Secret,
    /// The runner's number in GitLab; 0 if unknown.
    pub id: u64,
    /// When the token was given out.
    #[serde(with = "wire::optional_time")]
    pub token_obtained_at: Option<Timestamp>,
    /// When the token expires.
    #[serde(with = "wire::optional_time")]
    pub token_expires_at: Option<Timestamp>,
    /// Certificate authorities for GitLab.
    #[serde(rename = "tls-ca-file")]
    pub tls_ca_file: Option<PathBuf>,
    /// Client certificate for GitLab.
    #[serde(rename = "tls-cert-file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the client certificate.
    #[serde(rename = "tls-key-file")]
    pub tls_key_file: Option<PathBuf>,
    /// How many jobs run at once; 0 is no limit.
    pub limit: u32,
    /// The most requests open at once, at least 1.
    pub request_concurrency: u32,
    /// Whether to wait for `check_interval` after a job too.
    pub strict_check_interval: bool,
    /// The cut of a job's log, in KiB.
    pub output_limit: u32,
    /// After how many failed requests the runner pauses.
    pub unhealthy_requests_limit: u32,
    /// The longest pause.
    #[serde(with = "wire::go_duration")]
    pub unhealthy_interval: Duration,
    /// How often the final report is retried.
    pub job_status_final_update_retry_limit: u32,
    /// The executor.
    pub executor: Executor,
    /// The shell of scripts.
    pub shell: Shell,
    /// Where projects are checked out, in the VM.
    pub builds_dir: String,
    /// Where caches are, in the VM.
    pub cache_dir: String,
    /// `KEY=value` variables for every job.
    pub environment: Vec<String>,
    /// Replaces scheme and host of fetch addresses.
    pub clone_url: Option<String>,
    /// Runs before sources are fetched.
    pub pre_get_sources_script: Option<String>,
    /// Runs after sources were fetched.
    pub post_get_sources_script: Option<String>,
    /// Runs before the job's script.
    pub pre_build_script: Option<String>,
    /// Runs after the job's script.
    pub post_build_script: Option<String>,
    /// The bound on making the VM; the job's timeout without it.
    #[serde(with = "wire::optional_duration")]
    pub prepare_timeout: Option<Duration>,
    /// The bound on fetching sources; the job's timeout without it.
    #[serde(with = "wire::optional_duration")]
    pub get_sources_timeout: Option<Duration>,
    /// Whether jobs' debug traces are forbidden.
    pub debug_trace_disabled: bool,
    /// Whether the checkout is marked safe for git.
    pub safe_directory_checkout: Option<bool>,
    /// Whether leftover git configuration is removed.
    pub clean_git_config: bool,
    /// Whether each VM gets the control group of its slot.
    pub use_slot_cgroups: bool,
    /// The name of that group.
    pub slot_cgroup_template: Option<String>,
    /// Labels of this runner; the global ones if empty.
    pub labels: BTreeMap<String, String>,
    /// Feature flags.
    pub feature_flags: BTreeMap<String, bool>,
    /// `[runners.custom_build_dir]`.
    pub custom_build_dir: CustomBuildDir,
    /// `[runners.artifact]`.
    pub artifact: Artifact,
    /// `[runners.monitoring]`.
    pub monitoring: Monitoring,
    /// `[runners.experimental]`.
    pub experimental: RunnerExperimental,
    /// `[runners.microvm]`.
    pub microvm: MicroVm,
    /// `[runners.docker]`.
    pub docker: Docker,
    /// `[runners.cache]`.
    pub cache: Cache,
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            token: Secret::default(),
            id: 0,
            token_obtained_at: None,
            token_expires_at: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            limit: 0,
            request_concurrency: 1,
            strict_check_interval: false,
            output_limit: 4096,
            unhealthy_requests_limit: 3,
            unhealthy_interval: Duration::from_secs(3600),
            job_status_final_update_retry_limit: 10,
            executor: Executor::default(),
            shell: Shell::default(),
            builds_dir: "/builds".into(),
            cache_dir: "/cache".into(),
            environment: Vec::new(),
            clone_url: None,
            pre_get_sources_script: None,
            post_get_sources_script: None,
            pre_build_script: None,
            post_build_script: None,
            prepare_timeout: None,
            get_sources_timeout: None,
            debug_trace_disabled: false,
            safe_directory_checkout: None,
            clean_git_config: true,
            use_slot_cgroups: false,
            slot_cgroup_template: None,
            labels: BTreeMap::new(),
            feature_flags: BTreeMap::new(),
            custom_build_dir: CustomBuildDir::default(),
            artifact: Artifact::default(),
            monitoring: Monitoring::default(),
            experimental: RunnerExperimental::default(),
            microvm: MicroVm::default(),
            docker: Docker::default(),
            cache: Cache::default(),
        }
    }
}

impl Runner {
    /// How the runner is called in messages: its name, else the shown part of its token.
    pub fn display_name(&self) -> String {
        if self.name.is_empty() { self.token.shortened() } else { self.name.clone() }
    }
}

/// The executor as it is written. All run jobs in microVMs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// Tart's own name.
    #[default]
    Microvm,
    /// The name in configurations of the official runner.
    Docker,
}

/// The shell of job scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shell {
    /// GNU bash.
    #[default]
    Bash,
    /// Any POSIX shell.
    Sh,
}

impl Shell {
    /// The name as GitLab is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Sh => "sh",
        }
    }
}

/// `[runners.custom_build_dir]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CustomBuildDir {
    /// Whether jobs may set `GIT_CLONE_PATH`.
    pub enabled: bool,
}

impl Default for CustomBuildDir {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[runners.artifact]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Artifact {
    /// The bound on one upload.
    #[serde(with = "wire::go_duration")]
    pub upload_timeout: Duration,
    /// How long the answer to an upload may take.
    #[serde(with = "wire::go_duration")]
    pub response_header_timeout: Duration,
}

impl Default for Artifact {
    fn default() -> Self {
        Self { upload_timeout: Duration::from_secs(3600), response_header_timeout: Duration::from_secs(600) }
    }
}

/// `[runners.monitoring]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Monitoring {
    /// `[[runners.monitoring.job_queuing_durations]]`.
    pub job_queuing_durations: Vec<JobQueuingDuration>,
}

/// When a wait in the queue counts as too long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobQueuingDuration {
    /// Cron patterns of the times it holds.
    pub periods: Vec<String>,
    /// Their time zone.
    pub timezone: Option<String>,
    /// The longest acceptable wait.
    #[serde(with = "wire::optional_duration")]
    pub threshold: Option<Duration>,
    /// A pattern on the project's number of running jobs.
    pub jobs_running_for_project: Option<String>,
}

/// `[runners.experimental]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerExperimental {
    /// The trial job.
    pub boot_verify: BootVerify,
}

/// `[runners.experimental.boot_verify]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootVerify {
    /// Whether it runs.
    pub enabled: bool,
    /// Its bound.
    #[serde(with = "wire::go_duration")]
    pub timeout: Duration,
    /// The first pause between trials.
    #[serde(with = "wire::go_duration")]
    pub acquire_min_backoff: Duration,
    /// The longest pause between trials.
    #[serde(with = "wire::go_duration")]
    pub acquire_max_backoff: Duration,
}

impl Default for BootVerify {
    fn default() -> Self {
        Self {
            enabled: false,
            timeout: Duration::from_secs(300),
            acquire_min_backoff: Duration::from_secs(1),
            acquire_max_backoff: Duration::from_secs(10),
        }
    }
}
