//! What the runner says of itself and adds to a job.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tart_config::Runner;
use tart_gitlab::{AssignedJob, JobHandle};
use tart_job::context::{Product, RunnerContext, RunnerScripts, TlsFiles};
use tart_net::{Allowed, Endpoint};
use tart_spec::{ConfigInfo, Features, VersionInfo};
use url::Url;

use super::DaemonOptions;
use super::entry::Entry;
use super::slots::Slot;
use crate::{ArtifactPlace, CachePlace, CacheScope, JobRun, JobSession, ObjectCaches};

/// What this version can do. A server fails jobs that need what is missing here, so this is kept truthful: features
/// come with the code that has them.
fn features() -> Features {
    Features {
        variables: true,
        image: true,
        image_executor_opts: true,
        services: true,
        artifacts: true,
        artifacts_exclude: true,
        cache: true,
        session: true,
        terminal: true,
        fallback_cache_keys: true,
        upload_multiple_artifacts: true,
        upload_raw_artifacts: true,
        service_variables: true,
        service_multiple_aliases: true,
        service_executor_opts: true,
        refspecs: true,
        masking: true,
        raw_variables: true,
        multi_build_steps: true,
        trace_reset: true,
        trace_checksum: true,
        trace_size: true,
        cancelable: true,
        return_exit_code: true,
        cancel_gracefully: true,
        two_phase_job_commit: true,
        vault_secrets: true,
        job_inputs: true,
        ..Features::default()
    }
}

/// What a server is told of this program and a runner of it. `labels` are those of runners without their own.
#[must_use]
pub fn version_info(product: &Product, runner: &Runner, labels: &BTreeMap<String, String>) -> VersionInfo {
    let labels = if runner.labels.is_empty() { labels } else { &runner.labels };
    VersionInfo {
        name: product.name.clone(),
        version: product.version.clone(),
        revision: product.revision.clone(),
        platform: product.os.clone(),
        architecture: product.architecture.clone(),
        executor: "microvm".to_owned(),
        shell: runner.shell.as_str().to_owned(),
        features: features(),
        config: ConfigInfo::default(),
        labels: labels.clone(),
    }
}

/// The job with all that the runner adds.
pub(super) async fn job_run(
    entry: &Entry,
    job: &AssignedJob,
    slot: &Slot,
    options: &DaemonOptions,
    handle: &JobHandle,
    session: Option<JobSession>,
) -> JobRun {
    let runner = &entry.runner;
    let context = RunnerContext {
        product: options.product.clone(),
        short_token: entry.token.short(),
        host_name: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        environment: environment(&runner.environment),
        feature_flags: runner.feature_flags.clone(),
        builds_dir: runner.builds_dir.clone(),
        cache_dir: runner.cache_dir.clone(),
        // Every job has its own machine.
        shared_builds_dir: false,
        custom_build_dir: runner.custom_build_dir.enabled,
        clean_git_config: runner.clean_git_config,
        debug_trace_disabled: runner.debug_trace_disabled,
        concurrent_id: slot.id,
        concurrent_project_id: slot.project_id,
        clone_url: runner.clone_url.clone(),
        tls: TlsFiles {
            ca: job.tls_certificates.clone(),
            certificate: pem(runner.tls_cert_file.as_deref()).await,
            key: pem(runner.tls_key_file.as_deref()).await,
        },
        correlation_id: Some(job.correlation_id.clone()),
        scripts: scripts(runner),
        secrets: Vec::new(),
    };
    JobRun {
        allowed: allowed(runner, &job.payload.git_info.repo_url),
        payload: job.payload.clone(),
        context,
        runner: Arc::clone(runner),
        system_id: options.system_id.as_str().to_owned(),
        image: None,
        artifacts: Some(ArtifactPlace::Server(handle.clone())),
        cache: Some(cache_place(entry, job.payload.job_info.project_id)),
        session,
        plain_log: false,
    }
}

fn cache_place(entry: &Entry, project: i64) -> CachePlace {
    let (runner, cache) = (entry.token.short(), &entry.runner.cache);
    match &entry.objects {
        Some(store) => {
            let runner = (!cache.shared).then_some(runner.as_str());
            CachePlace::Objects(ObjectCaches::new(
                store.clone(),
                &cache.path,
                runner,
                project,
                !cache.redact_url,
            ))
        }
        None => CachePlace::Host(CacheScope::project(&entry.runner.url, &runner, cache.shared, project)),
    }
}

/// `KEY=value` lines; the configuration's check has refused others.
fn environment(lines: &[String]) -> Vec<(String, String)> {
    let pair = |line: &String| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    lines.iter().filter_map(pair).collect()
}

fn scripts(runner: &Runner) -> RunnerScripts {
    let text = |script: &Option<String>| script.clone().unwrap_or_default();
    RunnerScripts {
        pre_get_sources: text(&runner.pre_get_sources_script),
        post_get_sources: text(&runner.post_get_sources_script),
        pre_build: text(&runner.pre_build_script),
        post_build: text(&runner.post_build_script),
    }
}

/// A file that cannot be read now was read when the connection was made; the job then goes without it.
async fn pem(path: Option<&Path>) -> Option<String> {
    let path = path?;
    tokio::fs::read_to_string(path)
        .await
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot read a file of TLS"))
        .ok()
}

/// The servers that every job may reach: GitLab itself, by the address that the runner knows, the one that jobs are to
/// clone from, and the one that the server names. A job's variables have no say: whoever sets them could otherwise
/// reach any service of this host.
fn allowed(runner: &Runner, repo_url: &str) -> Vec<Allowed> {
    let urls = [Some(runner.url.as_str()), runner.clone_url.as_deref(), Some(repo_url)];
    let endpoint = |text: &str| Endpoint::of_url(&Url::parse(text).ok()?).ok();
    let endpoints: BTreeSet<Endpoint> = urls.into_iter().flatten().filter_map(endpoint).collect();
    endpoints.into_iter().map(Allowed::direct).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_reach_the_servers_that_the_configuration_and_the_server_name() {
        let runner = Runner {
            url: "https://gitlab.example.com".into(),
            clone_url: Some("http://10.0.0.1:8080".into()),
            ..Runner::default()
        };
        let allowed = allowed(&runner, "https://gitlab-ci-token:secret@git.example.com/a/b.git");
        let names: Vec<_> = allowed.iter().map(|allowed| allowed.endpoint.to_string()).collect();
        assert_eq!(names, ["10.0.0.1:8080", "git.example.com:443", "gitlab.example.com:443"]);
    }

    #[test]
    fn values_of_the_environment_may_hold_equals_signs() {
        assert_eq!(environment(&["A=b=c".into()]), [("A".to_owned(), "b=c".to_owned())]);
    }
}
