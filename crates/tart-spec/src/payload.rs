use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::artifacts::{Artifact, Cache, Credentials, Dependency, When};
use crate::image::{Image, Service};
use crate::null::wire;
use crate::secret::Secret;
use crate::variable::Variable;

wire! {
    /// A job, as the server assigns it (protocol reference section 3). `Debug` shows no token and no value of a
    /// variable.
    pub struct JobPayload {
        /// The job's id.
        pub id: i64,
        /// The job token.
        pub token: String,
        /// The default git strategy is `fetch`, or else `clone`.
        pub allow_git_fetch: bool,
        /// What the job is.
        pub job_info: JobInfo,
        /// What it is about.
        pub git_info: GitInfo,
        /// How the runner is to treat it.
        pub runner_info: RunnerInfo,
        /// Values for templates in the job.
        pub inputs: Vec<Input>,
        /// In the order in which later ones win.
        pub variables: Vec<Variable>,
        /// What it does, in order. Empty when there is `run`.
        pub steps: Vec<Step>,
        /// The image it runs in.
        pub image: Option<Image>,
        /// What runs beside it.
        pub services: Vec<Service>,
        /// What it uploads.
        pub artifacts: Vec<Artifact>,
        /// Its caches.
        pub cache: Vec<Cache>,
        /// For registries.
        pub credentials: Vec<Credentials>,
        /// The jobs whose artifacts it gets.
        pub dependencies: Vec<Dependency>,
        /// What the server understands and wants.
        pub features: JobFeatures,
        /// Secrets to be fetched, by the name of their variable.
        pub secrets: BTreeMap<String, Secret>,
        /// Commands around the fetch of the sources.
        pub hooks: Vec<Hook>,
        /// Steps of the step runner: a text that holds a JSON array. Empty if there are none.
        pub run: String,
        /// About execution policies.
        pub policy_options: PolicyOptions,
        /// About suspended environments.
        pub suspend_options: SuspendOptions,
    }

    /// What a job is.
    #[derive(Debug)]
    pub struct JobInfo {
        /// The job's id again.
        pub id: i64,
        /// Its name.
        pub name: String,
        /// Its stage.
        pub stage: String,
        /// Its pipeline.
        pub pipeline_id: i64,
        /// Its project.
        pub project_id: i64,
        /// The project's name.
        pub project_name: String,
        /// The project's path with its groups.
        pub project_full_path: String,
        /// The project's group.
        pub namespace_id: i64,
        /// The outermost group.
        pub root_namespace_id: i64,
        /// The organization.
        pub organization_id: i64,
        /// The GitLab instance.
        pub instance_id: String,
        /// The same, for good.
        pub instance_uuid: String,
        /// Who runs it.
        pub user_id: i64,
        /// On whose behalf.
        pub scoped_user_id: Option<i64>,
        /// How long it waited.
        pub time_in_queue_seconds: f64,
        /// Such as `3`, `5+` or `+Inf`.
        pub project_jobs_running_on_instance_runners_count: String,
        /// Jobs in the queue.
        pub queue_size: i64,
        /// How deep in the queue it was found.
        pub queue_depth: i64,
    }

    /// What a job is about. `Debug` does not show `repo_url`.
    pub struct GitInfo {
        /// With credentials in it.
        pub repo_url: String,
        /// `sha1` or `sha256`; empty means `sha1`.
        pub repo_object_format: String,
        /// The branch or tag.
        pub r#ref: String,
        /// The commit.
        pub sha: String,
        /// The commit before.
        pub before_sha: String,
        /// `branch` or `tag`.
        pub ref_type: String,
        /// Exactly what is to be fetched.
        pub refspecs: Vec<String>,
        /// How much history; 0 means all. `GIT_DEPTH` is already in it.
        pub depth: i64,
        /// Old servers do not say.
        pub protected: Option<bool>,
    }

    /// How the runner is to treat a job.
    #[derive(Debug)]
    pub struct RunnerInfo {
        /// The job's timeout in seconds; two hours if it is not positive.
        pub timeout: i64,
        /// The runner's id.
        pub uuid: String,
    }

    /// One step of a job.
    #[derive(Debug)]
    pub struct Step {
        /// `script`, `after_script`, `release` or one of the future.
        pub name: String,
        /// Its commands, of one or more lines each.
        pub script: Vec<String>,
        /// No runner minds it.
        pub timeout: i64,
        /// No runner minds it.
        pub when: When,
        /// No runner minds it.
        pub allow_failure: bool,
    }

    /// What the server understands and wants.
    #[derive(Debug)]
    pub struct JobFeatures {
        /// The log has sections.
        pub trace_sections: bool,
        /// Tokens that begin so are masked, too.
        pub token_mask_prefixes: Vec<String>,
        /// Texts of [`crate::FailureReason`] the server knows.
        pub failure_reasons: Vec<String>,
        /// Where to send spans.
        pub tracing: Option<Tracing>,
    }

    /// Where to send spans.
    #[derive(Debug)]
    pub struct Tracing {
        /// The trace they belong to.
        pub trace_id: String,
        /// Their parent.
        pub span_parent_id: String,
        /// The receivers.
        pub otel_endpoints: Vec<OtelEndpoint>,
    }

    /// A receiver of spans.
    #[derive(Debug)]
    pub struct OtelEndpoint {
        /// Its address.
        pub url: String,
        /// How to authenticate.
        pub auth: OtelAuth,
    }

    /// How to authenticate to a receiver of spans.
    #[derive(Debug)]
    pub struct OtelAuth {
        /// The kind.
        pub r#type: String,
        /// For a bearer token of Google Cloud.
        pub http_bearer_gcp_oidc: OtelGcpOidc,
    }

    /// For a bearer token of Google Cloud.
    #[derive(Debug)]
    pub struct OtelGcpOidc {
        /// Whom the token is for.
        pub audience: String,
    }

    /// Commands around the fetch of the sources.
    #[derive(Debug)]
    pub struct Hook {
        /// `pre_get_sources_script` or `post_get_sources_script`.
        pub name: String,
        /// Its commands.
        pub script: Vec<String>,
    }

    /// A value for templates in the job.
    #[derive(Debug)]
    pub struct Input {
        /// Its name.
        pub key: String,
        /// Its value.
        pub value: InputValue,
    }

    /// The value of an input. `Debug` does not show it.
    pub struct InputValue {
        /// `string`, `number`, `boolean`, `array` or `struct`.
        pub r#type: String,
        /// Of that type.
        pub content: Value,
        /// Must not be put into a template.
        pub sensitive: bool,
    }

    /// About execution policies.
    #[derive(Debug)]
    pub struct PolicyOptions {
        /// A policy made the job.
        pub execution_policy_job: bool,
        /// The policy.
        pub policy_name: String,
        /// Whether variables of the project win over those of the policy.
        pub policy_variables_override_allowed: Option<bool>,
        /// Variables for which it is the other way round.
        pub policy_variables_override_exceptions: Vec<String>,
    }

    /// About suspended environments.
    #[derive(Debug)]
    pub struct SuspendOptions {
        /// A job that succeeds is kept.
        pub suspend_on_success: bool,
        /// A job that fails is kept.
        pub suspend_on_failure: bool,
        /// What to resume.
        pub runtime_environment_key: String,
    }
}

impl JobPayload {
    /// Options of the image and the services that no runner knows, such as `image: docker.gpus`. A job with any of
    /// them must fail before it runs (protocol reference 2.6).
    pub fn unsupported_options(&self) -> Vec<String> {
        let image = self.image.iter().map(|image| ("image".to_owned(), image));
        let services = self.services.iter().map(|service| (format!("service {}", service.name), service));
        let options = image.chain(services).flat_map(|(owner, image)| {
            image.executor_opts.unsupported.iter().map(move |option| format!("{owner}: {option}"))
        });
        options.collect()
    }
}

impl fmt::Debug for JobPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobPayload")
            .field("id", &self.id)
            .field("job_info", &self.job_info)
            .field("git_info", &self.git_info)
            .field("runner_info", &self.runner_info)
            .field("variables", &self.variables)
            .field("steps", &self.steps)
            .field("image", &self.image)
            .field("services", &self.services)
            .field("artifacts", &self.artifacts)
            .field("cache", &self.cache)
            .field("credentials", &self.credentials)
            .field("dependencies", &self.dependencies)
            .field("features", &self.features)
            .field("secrets", &self.secrets)
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for GitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitInfo")
            .field("ref", &self.r#ref)
            .field("sha", &self.sha)
            .field("refspecs", &self.refspecs)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InputValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputValue")
            .field("type", &self.r#type)
            .field("sensitive", &self.sensitive)
            .finish_non_exhaustive()
    }
}
