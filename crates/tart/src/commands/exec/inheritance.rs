//! What a job gets of those that ran before it: artifacts, and variables of dotenv reports.

use std::io;

use tart_ci_file::{Dependency, Job, MAX_DOTENV_BYTES, dotenv};
use tart_runner::LocalArtifacts;

/// The kind of report with variables for later jobs.
pub(super) const DOTENV: &str = "dotenv";

/// What other jobs left for one.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    pub(super) dependencies: Vec<Dependency>,
    pub(super) variables: Vec<(String, String)>,
    /// Jobs that were to leave an archive and have left none.
    pub(super) missing: Vec<String>,
    /// What was left and cannot be used.
    pub(super) problems: Vec<String>,
}

impl Inheritance {
    /// What is here of jobs. Blocks.
    pub(super) fn of<'a>(
        jobs: impl IntoIterator<Item = &'a Job>,
        artifacts: &LocalArtifacts,
    ) -> io::Result<Self> {
        let mut found = Self::default();
        for (id, job) in (1..).zip(jobs) {
            let Some(kept) = &job.artifacts else { continue };
            match artifacts.archive_size(&job.name)? {
                Some(size) => {
                    let file_name = format!("{}.zip", kept.name.as_deref().unwrap_or("artifacts"));
                    found.dependencies.push(Dependency { id, name: job.name.clone(), file_name, size });
                }
                None if !kept.paths.is_empty() || kept.untracked => found.missing.push(job.name.clone()),
                None => {}
            }
            if kept.reports.iter().any(|report| report.kind == DOTENV) {
                found.read_variables(&job.name, artifacts);
            }
        }
        Ok(found)
    }

    /// The last of a name wins, and jobs are in their order.
    fn read_variables(&mut self, job: &str, artifacts: &LocalArtifacts) {
        let report = artifacts.report(job, DOTENV, MAX_DOTENV_BYTES).map_err(|error| error.to_string());
        match report.and_then(|report| dotenv(&report.unwrap_or_default())) {
            Ok(variables) => self.variables.extend(variables),
            Err(why) => self.problems.push(format!("the dotenv report of `{job}` is not used: {why}")),
        }
    }
}
