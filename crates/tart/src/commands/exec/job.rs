//! The job as a server would send it, and what the runner adds.

use std::time::Duration;

use anyhow::Context as _;
use tart_ci_file::{Commit, ExecContext, Job, Sources};
use tart_job::context::RunnerContext;
use tart_runner::local::Snapshot;
use tart_spec::JobPayload;

use super::Repository;
use crate::product;

/// How many commits a job gets: as many as in new projects of GitLab.
const DEPTH: u32 = 20;

pub(super) fn payload(
    job: &Job,
    file: &str,
    repository: &Repository,
    snapshot: &Snapshot,
    (timeout, variables): (Duration, Vec<(String, String)>),
) -> anyhow::Result<JobPayload> {
    let commit = snapshot.commit();
    let context = ExecContext {
        job_id: 1,
        pipeline_id: 1,
        config_path: file.to_owned(),
        project: repository.project(snapshot.project_path(), snapshot.ref_name()),
        commit: Commit {
            sha: commit.sha.clone(),
            ref_name: snapshot.ref_name().to_owned(),
            is_tag: false,
            message: commit.message.clone(),
            author: commit.author.clone(),
            timestamp: commit.timestamp.clone(),
        },
        sources: Sources { repo_url: snapshot.repo_url(), refspecs: snapshot.refspecs(), depth: DEPTH },
        user: repository.user(),
        server_url: repository.server_url(),
        timeout,
        variables,
        file_versions: repository.versions(job.cache_key_files()),
    };
    let wire = job.to_wire(&context)?;
    serde_json::from_value(wire).context("the job cannot be expressed as GitLab would send it")
}

pub(super) fn context() -> RunnerContext {
    RunnerContext::plain(product::of_jobs())
}
