//! Evaluates a local `.gitlab-ci.yml` into jobs, without a GitLab server.
//!
//! [`Pipeline::load`] reads the file and its `include:local` files through [`Files`], which keeps to the repository,
//! resolves `extends`, `!reference`, `default` and `parallel` as GitLab does, and gives typed jobs. A job becomes what
//! a server would send by [`Job::to_wire`]. [`Pipeline::plan`] evaluates `rules`, `only`, `except` and `workflow` for an
//! event, and [`Schedule`] says in what order the jobs of a plan run. Input is bounded: file size, nesting, and what
//! aliases and the like may copy.

mod conditions;
mod context;
mod dotenv;
mod duration;
mod error;
mod expand;
mod expression;
mod extends;
mod files;
mod glob;
mod include;
mod job;
mod node;
mod parallel;
mod payload;
mod pipeline;
mod plan;
mod policy;
mod predefined;
mod reference;
mod rules;
mod scalar;
mod schedule;
mod variables;
mod workflow;
mod yaml;

pub use conditions::WorkTree;
pub use context::{Commit, Dependency, ExecContext, MergeRequest, Project, Source, Sources, User};
pub use dotenv::{MAX_DOTENV_BYTES, dotenv};
pub use error::{Error, Location, Result};
pub use files::{Files, Repository};
pub use job::{
    AllowFailure, Artifacts, Cache, CacheKey, Image, Instance, Job, Need, Report, Retry, Service, When,
};
pub use pipeline::Pipeline;
pub use plan::{Plan, PlannedJob, Selection};
pub use schedule::{Ending, PipelineStatus, Schedule, State, Task};
pub use variables::Variable;

#[cfg(test)]
mod tests;
