//! The answer to `jobs/request`: a job as it is on the wire.

use serde_json::{Value, json};

use crate::git::{Project, Revision};
use crate::job::{Job, JobState};
use crate::runner::Runner;
use crate::settings::Settings;
use crate::spec::{Source, Variable};
use crate::state::State;
use crate::variables::predefined;

/// The variables of a job in the order they are sent: the job's own come last and win.
pub(crate) fn variables(settings: &Settings, runner: &Runner, project: &Project, job: &Job) -> Vec<Variable> {
    let mut variables = predefined(settings, runner, project, job);
    variables.extend(job.spec.variables.iter().cloned());
    variables
}

/// The body of the 201.
pub(crate) fn payload(
    settings: &Settings,
    state: &State,
    project: &Project,
    job: &Job,
    variables: &[Variable],
) -> Value {
    let spec = &job.spec;
    let mut credentials = vec![json!({
        "type": "registry",
        "url": registry(settings),
        "username": "gitlab-ci-token",
        "password": job.token,
    })];
    credentials.extend(spec.credentials.iter().cloned());
    let running = state.jobs.values().filter(|other| other.state.is_active()).count();
    let waiting = state.jobs.values().filter(|other| other.state == JobState::Pending).count();
    let artifacts: Vec<Value> = spec.artifacts.iter().map(|entry| entry.to_json()).collect();
    let mut body = json!({
        "id": job.id,
        "token": job.token,
        "allow_git_fetch": spec.allow_git_fetch,
        "job_info": {
            "id": job.id,
            "name": spec.name,
            "stage": spec.stage,
            "pipeline_id": job.pipeline_id,
            "project_id": project.id,
            "project_name": project.name(),
            "project_full_path": project.path,
            "namespace_id": 1,
            "root_namespace_id": 1,
            "organization_id": 1,
            "instance_id": "test",
            "instance_uuid": "00000000-0000-4000-8000-000000000000",
            "user_id": 1,
            "scoped_user_id": null,
            "time_in_queue_seconds": job.created_at.elapsed().unwrap_or_default().as_secs_f64(),
            "project_jobs_running_on_instance_runners_count": running.to_string(),
            "queue_size": waiting,
            "queue_depth": 0,
        },
        "git_info": git_info(settings, project, job),
        "runner_info": {
            "timeout": spec.timeout_secs,
            "runner_session_url": format!("{}/-/jobs/{}/session", settings.url, job.id),
        },
        "inputs": [],
        "variables": variables.iter().map(Variable::to_json).collect::<Vec<_>>(),
        "steps": spec.steps,
        "image": spec.image.as_ref().map(|image| image.to_json(false)),
        "services": spec.services.iter().map(|service| service.to_json(true)).collect::<Vec<_>>(),
        "artifacts": if artifacts.is_empty() { Value::Null } else { artifacts.into() },
        "cache": spec.caches.iter().map(|cache| cache.to_json()).collect::<Vec<_>>(),
        "credentials": credentials,
        "dependencies": dependencies(state, job),
        "features": {
            "trace_sections": spec.trace_sections,
            "token_mask_prefixes": spec.token_mask_prefixes,
            "failure_reasons": spec.failure_reasons,
        },
        "secrets": {},
        "hooks": spec.hooks,
        "policy_options": null,
    });
    if spec.fields.contains_key("run")
        && let Some(body) = body.as_object_mut()
    {
        body.remove("steps");
    }
    for (key, value) in &spec.fields {
        match (body.get_mut(key).and_then(Value::as_object_mut), value) {
            (Some(sent), Value::Object(fields)) => {
                sent.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            _ => body[key] = value.clone(),
        }
    }
    body
}

fn dependencies(state: &State, job: &Job) -> Vec<Value> {
    let sent = job.spec.dependencies.iter().filter_map(|id| state.jobs.get(id)).map(|other| {
        let file = other
            .archive()
            .map(|archive| json!({ "filename": archive.filename, "size": archive.content.len() }));
        json!({ "id": other.id, "token": job.token, "name": other.spec.name, "artifacts_file": file })
    });
    sent.collect()
}

fn git_info(settings: &Settings, project: &Project, job: &Job) -> Value {
    let Revision { reference, sha, before_sha, is_tag, .. } = &job.revision;
    json!({
        "repo_url": repository_url(settings, project, &job.token),
        "repo_object_format": project.object_format,
        "ref": reference,
        "sha": sha,
        "before_sha": before_sha,
        "ref_type": if *is_tag { "tag" } else { "branch" },
        "refspecs": refspecs(job),
        "depth": job.spec.depth,
        "protected": job.spec.protected,
    })
}

fn refspecs(job: &Job) -> Vec<String> {
    let pipeline = job.pipeline_id;
    let mut refspecs = vec![format!("+refs/pipelines/{pipeline}:refs/pipelines/{pipeline}")];
    match (&job.spec.source, job.spec.depth) {
        (Source::MergeRequest(_), 1..) => {}
        (Source::Branch(name), 1..) => {
            refspecs.push(format!("+refs/heads/{name}:refs/remotes/origin/{name}"));
        }
        (Source::Tag(name), 1..) => refspecs.push(format!("+refs/tags/{name}:refs/tags/{name}")),
        (_, 0) => {
            refspecs.push("+refs/heads/*:refs/remotes/origin/*".into());
            refspecs.push("+refs/tags/*:refs/tags/*".into());
        }
    }
    refspecs
}

/// The clone URL with the job's credentials in it.
pub(crate) fn repository_url(settings: &Settings, project: &Project, token: &str) -> String {
    let (scheme, rest) = settings.url.split_once("://").unwrap_or(("http", &settings.url));
    format!("{scheme}://gitlab-ci-token:{token}@{rest}/{}.git", project.path)
}

/// The host of the container registry the variables name; nothing serves it.
pub(crate) fn registry(settings: &Settings) -> String {
    let host = settings.url.split_once("://").map_or(settings.url.as_str(), |(_, rest)| rest);
    format!("registry.{host}")
}

/// The features a runner must have for the job, or the job is failed instead of given to it.
pub(crate) fn needed_features(job: &Job) -> Vec<&'static str> {
    let spec = &job.spec;
    let field = |key: &str| spec.fields.get(key).unwrap_or(&Value::Null);
    let mut needed = Vec::new();
    let mut need = |feature, condition: bool| {
        if condition {
            needed.push(feature);
        }
    };
    need("fallback_cache_keys", spec.caches.iter().any(|cache| !cache.fallback_keys.is_empty()));
    need("upload_multiple_artifacts", spec.artifacts.iter().any(|entry| entry.kind != "archive"));
    need("artifacts_exclude", spec.artifacts.iter().any(|entry| !entry.exclude.is_empty()));
    need("refspecs", matches!(spec.source, Source::MergeRequest(_)));
    need("multi_build_steps", spec.steps.iter().any(|step| step["name"] == "release"));
    need("vault_secrets", field("secrets").as_object().is_some_and(|secrets| !secrets.is_empty()));
    need("return_exit_code", spec.needs_exit_code);
    needed
}
