//! A job with everything resolved.

mod image;
mod inputs;
mod read;
mod storage;

use std::time::Duration;

use indexmap::{IndexMap, IndexSet};

pub use image::{Image, Service};
pub use storage::{Artifacts, Cache, CacheKey, Report};

pub(crate) use image::{image, services};
pub(crate) use read::{Reader, job, needs};
pub(crate) use storage::cache_list;

use crate::{error::Location, policy::Policies, rules::Rule, variables::Variable};

/// A job of the file. Jobs with `parallel` are one of these for each of their instances.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The name, for instances such as `test 1/3` or `test: [linux, 3.2]`.
    pub name: String,
    /// The name in the file, which all instances share.
    pub base: String,
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
    pub when: When,
    /// How long a delayed job is to wait, as it is written.
    pub start_in: Option<String>,
    /// Which failures do not fail the pipeline.
    pub allow_failure: AllowFailure,
    /// Jobs of the same group do not run at the same time.
    pub resource_group: Option<String>,
    /// The first rule that holds says whether and when the job runs.
    pub(crate) rules: Option<Vec<Rule>>,
    /// Older ways to say when a job runs.
    pub(crate) policies: Policies,
    /// Which variables of the file the job inherits, and which it sets itself.
    pub(crate) scope: VariableScope,
    /// The instance of a job with `parallel`.
    pub instance: Option<Instance>,
    /// Why the job cannot run on this machine, if it cannot.
    pub not_runnable: Option<&'static str>,
    /// Keywords that are kept as they are written: `rules`, `only`, `except`, `allow_failure`, `environment` and others.
    pub raw: IndexMap<String, serde_json::Value>,
}

/// When a job runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    /// If all before it succeeded.
    #[default]
    OnSuccess,
    /// If any before it failed.
    OnFailure,
    /// Once all before it have ended.
    Always,
    /// As [`Self::OnSuccess`], if somebody asks for it.
    Manual,
    /// As [`Self::OnSuccess`], some time later.
    Delayed,
    /// Not at all.
    Never,
}

impl When {
    pub(crate) const JOB: &[(&str, Self)] = &[
        ("on_success", Self::OnSuccess),
        ("on_failure", Self::OnFailure),
        ("always", Self::Always),
        ("manual", Self::Manual),
        ("delayed", Self::Delayed),
        ("never", Self::Never),
    ];
    pub(crate) const WORKFLOW: &[(&str, Self)] = &[("always", Self::Always), ("never", Self::Never)];

    /// As it is written in a CI file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::JOB.iter().find(|(_, when)| *when == self).map_or("", |(text, _)| text)
    }
}

/// Which failures of a job do not fail the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AllowFailure {
    /// None.
    #[default]
    No,
    /// All.
    Yes,
    /// Those by these exit codes.
    ExitCodes(Vec<i64>),
}

/// Which variables of the top of the file reach a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct VariableScope {
    pub(crate) inherited: Inherited,
    /// Names that the job sets itself.
    pub(crate) own: IndexSet<String>,
}

/// What a job inherits.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Inherited {
    #[default]
    All,
    None,
    Only(Vec<String>),
}

impl Inherited {
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(names) => names.iter().any(|only| only == name),
        }
    }
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
