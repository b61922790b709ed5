//! The job as a server would send it, and what the runner adds.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use tart_ci_file::{Commit, ExecContext, Job, Project, Sources};
use tart_job::context::RunnerContext;
use tart_runner::local::Snapshot;
use tart_spec::JobPayload;

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

/// A job as a server would send it.
pub(super) fn payload(
    job: &Job,
    repository: &Repository,
    mut context: ExecContext,
) -> anyhow::Result<JobPayload> {
    context.file_versions = repository.versions(job.cache_key_files());
    let wire = job.to_wire(&context)?;
    serde_json::from_value(wire).context("the job cannot be expressed as GitLab would send it")
}

pub(super) fn context() -> RunnerContext {
    RunnerContext::plain(product::of_jobs())
}
