//! The job as a server would send it, and what the runner adds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tart_ci_file::{Commit, ExecContext, Job, Project, Sources};
use tart_config::Runner;
use tart_job::context::RunnerContext;
use tart_runner::local::Snapshot;
use tart_runner::{CachePlace, CacheScope, JobRun, LocalArtifacts};
use tart_spec::JobPayload;

use super::inheritance::{DOTENV, Inheritance};
use super::{Event, Repository};
use crate::product;

/// How many commits a job gets: as many as in new projects of GitLab.
const DEPTH: u32 = 20;

/// What all jobs of the pipeline have in common.
pub(super) fn context_of(
    file: &str,
    repository: &Repository,
    snapshot: &Snapshot,
    event: &Event,
    (timeout, variables): (Duration, Vec<(String, String)>),
) -> ExecContext {
    let commit = snapshot.commit();
    ExecContext {
        job_id: 1,
        pipeline_id: 1,
        config_path: file.to_owned(),
        project: Project {
            id: 1,
            path: snapshot.project_path().to_owned(),
            default_branch: event.default_branch.clone(),
        },
        commit: Commit {
            sha: commit.sha.clone(),
            ref_name: event.ref_name.clone(),
            is_tag: event.is_tag,
            is_protected: event.is_protected(),
            message: commit.message.clone(),
            author: commit.author.clone(),
            timestamp: commit.timestamp.clone(),
        },
        source: event.source,
        merge_request: event.merge_request.clone(),
        sources: Sources { repo_url: snapshot.repo_url(), refspecs: snapshot.refspecs(), depth: DEPTH },
        user: repository.user(),
        server_url: repository.server_url(),
        timeout,
        variables,
        inherited: Vec::new(),
        dependencies: Vec::new(),
        file_versions: BTreeMap::new(),
    }
}

/// Makes jobs ready to run.
#[derive(Debug)]
pub(super) struct Workshop<'a> {
    pub(super) repository: &'a Repository,
    pub(super) snapshot: &'a Snapshot,
    pub(super) context: &'a ExecContext,
    pub(super) artifacts: LocalArtifacts,
    pub(super) runner: Arc<Runner>,
    /// The image, whatever jobs say.
    pub(super) image: Option<String>,
}

impl Workshop<'_> {
    /// A job of this number that gets artifacts of others, and what it gets.
    pub(super) fn job<'a>(
        &self,
        job: &Job,
        number: u64,
        artifacts_of: impl IntoIterator<Item = &'a Job>,
    ) -> anyhow::Result<(JobRun, Inheritance)> {
        let inheritance = Inheritance::of(artifacts_of, &self.artifacts);
        let mut inheritance = inheritance.context("cannot read the artifacts of other jobs")?;
        let context = ExecContext {
            job_id: number,
            inherited: std::mem::take(&mut inheritance.variables),
            dependencies: std::mem::take(&mut inheritance.dependencies),
            file_versions: self.repository.versions(job.cache_key_files()),
            ..self.context.clone()
        };
        let payload = payload(job, &context)?;
        let run = JobRun {
            payload,
            context: RunnerContext::plain(product::of_jobs()),
            runner: self.runner.clone(),
            system_id: "exec".to_owned(),
            allowed: vec![self.snapshot.allowed()?],
            image: self.image.clone(),
            artifacts: Some(self.artifacts.of_job(&job.name)),
            cache: Some(CachePlace::Host(CacheScope::directory(self.repository.root()))),
            session: None,
            plain_log: true,
        };
        Ok((run, inheritance))
    }

    /// Removes what the last run of a job left, so that nobody takes it for what the next one leaves.
    pub(super) fn clear(&self, job: &Job) -> anyhow::Result<()> {
        self.artifacts.forget(&job.name).context("cannot remove the artifacts of the last run")
    }
}

/// A job as a server would send it.
fn payload(job: &Job, context: &ExecContext) -> anyhow::Result<JobPayload> {
    let wire = job.to_wire(context)?;
    let payload: Result<JobPayload, _> = serde_json::from_value(wire);
    let mut payload = payload.context("the job cannot be expressed as GitLab would send it")?;
    // The host takes nothing apart, and is to read this one itself.
    for report in payload.artifacts.iter_mut().filter(|artifact| artifact.artifact_type == DOTENV) {
        "raw".clone_into(&mut report.artifact_format);
    }
    Ok(payload)
}
