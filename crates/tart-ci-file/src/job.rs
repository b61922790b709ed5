//! A job with everything resolved.

mod image;
mod inputs;
mod read;
mod storage;

use std::time::Duration;

use indexmap::IndexMap;

pub use image::{Image, Service};
pub use storage::{Artifacts, Cache, CacheKey, Report};

pub(crate) use image::{image, services};
pub(crate) use read::{Reader, job};
pub(crate) use storage::cache_list;

use crate::{error::Location, variables::Variable};

/// A job of the file. Jobs with `parallel` are one of these for each of their instances.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The name, for instances such as `test 1/3` or `test: [linux, 3.2]`.
    pub name: String,
    /// Where the job is written.
    pub at: Location,
    /// The stage.
    pub stage: String,
    /// Commands before the script.
    pub before_script: Vec<String>,
    /// The script. Empty only for jobs of other kinds, see [`Job::not_runnable`].
    pub script: Vec<String>,
    /// Commands after the script, whatever its result.
    pub after_script: Vec<String>,
    /// The image.
    pub image: Option<Image>,
    /// The services.
    pub services: Vec<Service>,
    /// Variables of the file: inherited ones, the job's own, those of its `parallel:matrix`.
    pub variables: IndexMap<String, Variable>,
    /// The job's own timeout.
    pub timeout: Option<Duration>,
    /// When the job is run again.
    pub retry: Retry,
    /// Tags of runners.
    pub tags: Vec<String>,
    /// Jobs that this one waits for; `None` means all of earlier stages.
    pub needs: Option<Vec<Need>>,
    /// Jobs whose artifacts are fetched; `None` means all that it waits for.
    pub dependencies: Option<Vec<String>>,
    /// What is kept of the job.
    pub artifacts: Option<Artifacts>,
    /// Caches.
    pub cache: Vec<Cache>,
    /// Inputs, as a server sends them.
    pub inputs: Vec<serde_json::Value>,
    /// Scripts of `hooks`, by hook name.
    pub hooks: IndexMap<String, Vec<String>>,
    /// `when`, `on_success` if not given.
    pub when: String,
    /// The instance of a job with `parallel`.
    pub instance: Option<Instance>,
    /// Why the job cannot run on this machine, if it cannot.
    pub not_runnable: Option<&'static str>,
    /// Keywords that are kept as they are written: `rules`, `only`, `except`, `allow_failure`, `environment` and others.
    pub raw: IndexMap<String, serde_json::Value>,
}

/// Which instance of a job with `parallel` it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// From 1.
    pub index: usize,
    /// How many there are.
    pub total: usize,
}

/// `retry`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// How often at most, 0 to 2.
    pub max: u32,
    /// On which failures; all if empty.
    pub when: Vec<String>,
    /// On which exit codes; all if empty.
    pub exit_codes: Vec<i64>,
}

/// An entry of `needs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The job.
    pub job: String,
    /// Whether its artifacts are fetched.
    pub artifacts: bool,
    /// Whether the job may be absent.
    pub optional: bool,
}
