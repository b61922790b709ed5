//! Evaluates a local `.gitlab-ci.yml` into jobs, without a GitLab server.
//!
//! [`Pipeline::load`] reads the file and its `include:local` files through [`Files`], which keeps to the repository,
//! resolves `extends`, `!reference`, `default` and `parallel` as GitLab does, and gives typed jobs. A job becomes what
//! a server would send by [`Job::to_wire`]. Input is bounded: file size, nesting, and what aliases and the like may
//! copy.

mod context;
mod duration;
mod error;
mod extends;
mod files;
mod include;
mod job;
mod node;
mod parallel;
mod payload;
mod pipeline;
mod predefined;
mod reference;
mod scalar;
mod variables;
mod yaml;

pub use context::{Commit, ExecContext, Project, Sources, User};
pub use error::{Error, Location, Result};
pub use files::{Files, Repository};
pub use job::{Artifacts, Cache, CacheKey, Image, Instance, Job, Need, Report, Retry, Service};
pub use pipeline::Pipeline;
pub use variables::Variable;

#[cfg(test)]
mod tests;
