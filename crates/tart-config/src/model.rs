//! The configuration with types. Only keys that Tart acts on, or will, are here; [`crate::support`] says which.

mod cache;
mod docker;
mod microvm;
mod runner;
mod wire;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

pub use cache::{AuthenticationType, Azure, Cache, CacheType, Gcs, S3};
pub use docker::{Docker, DockerService, PullPolicy};
pub use microvm::{
    Accel, Driver, EgressMode, Factor, HugePages, MicroVm, Network, NetworkMode, Pool, PoolPolicy,
    SnapshotMemory,
};
pub use runner::{
    Artifact, BootVerify, CustomBuildDir, Executor, JobQueuingDuration, Monitoring, Runner,
    RunnerExperimental, Shell,
};

/// A whole config.toml.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many jobs run at once, at least 1.
    pub concurrent: u32,
    /// Time between two requests for a job, divided among the runners.
    #[serde(with = "wire::seconds")]
    pub check_interval: Duration,
    /// The least severe messages printed.
    pub log_level: LogLevel,
    /// The form of messages.
    pub log_format: LogFormat,
    /// How long a connection to GitLab is kept.
    #[serde(with = "wire::go_duration")]
    pub connection_max_age: Duration,
    /// Where metrics and health are served, as `host:port`.
    pub listen_address: Option<String>,
    /// The bound on a forceful shutdown.
    #[serde(with = "wire::seconds")]
    pub shutdown_timeout: Duration,
    /// Labels of runners that have none of their own.
    pub labels: BTreeMap<String, String>,
    /// The terminal server.
    pub session_server: SessionServer,
    /// Settings that may change.
    pub experimental: Experimental,
    /// The runners, in the order of the file.
    pub runners: Vec<Runner>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrent: 1,
            check_interval: Duration::from_secs(3),
            log_level: LogLevel::Info,
            log_format: LogFormat::Runner,
            connection_max_age: Duration::from_secs(15 * 60),
            listen_address: None,
            shutdown_timeout: Duration::from_secs(30),
            labels: BTreeMap::new(),
            session_server: SessionServer::default(),
            experimental: Experimental::default(),
            runners: Vec::new(),
        }
    }
}

/// `log_level`, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what ends the process by a bug.
    Panic,
    /// Only what ends the process.
    Fatal,
    /// Failures.
    Error,
    /// Doubtful things too.
    #[serde(alias = "warn")]
    Warning,
    /// What happens.
    Info,
    /// Everything.
    Debug,
}

/// `log_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines as GitLab Runner prints them.
    Runner,
    /// `key=value` pairs.
    Text,
    /// One JSON object in a line.
    Json,
}

/// `[session_server]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionServer {
    /// Where the server listens; off without it.
    pub listen_address: Option<String>,
    /// The address GitLab is told; `listen_address` without it.
    pub advertise_address: Option<String>,
    /// How long an open terminal may hold a finished job.
    #[serde(with = "wire::seconds")]
    pub session_timeout: Duration,
}

impl Default for SessionServer {
    fn default() -> Self {
        Self { listen_address: None, advertise_address: None, session_timeout: Duration::from_secs(1800) }
    }
}

/// `[experimental]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Experimental {
    /// Records of jobs.
    pub usage_logger: UsageLogger,
}

/// `[experimental.usage_logger]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageLogger {
    /// Whether records are written.
    pub enabled: bool,
    /// Which writers get them.
    pub writers: Vec<String>,
    /// The directory of the records.
    pub log_dir: Option<PathBuf>,
    /// How many old files are kept.
    pub max_backup_files: Option<u32>,
    /// After which time a new file is begun.
    #[serde(with = "wire::optional_duration")]
    pub max_rotation_age: Option<Duration>,
    /// Labels of every record.
    pub labels: BTreeMap<String, String>,
}
