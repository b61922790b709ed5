//! Jobs as a test describes them.

mod parts;

use serde_json::{Map, Value, json};

pub use self::parts::{Artifacts, Cache, Image, Variable};
use crate::git::ProjectHandle;
use crate::job::JobHandle;

/// The fields of the payload a job from JSON may set.
const FIELDS: [&str; 18] = [
    "allow_git_fetch",
    "artifacts",
    "cache",
    "credentials",
    "dependencies",
    "features",
    "git_info",
    "hooks",
    "image",
    "inputs",
    "job_info",
    "policy_options",
    "run",
    "runner_info",
    "secrets",
    "services",
    "steps",
    "suspend_options",
];

/// What a job builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Branch(String),
    Tag(String),
    MergeRequest(u64),
}

/// A job to enqueue. The default runs nothing, on the tip of the default branch, with what a server at its
/// default settings sends.
#[derive(Clone, Debug)]
pub struct JobSpec {
    pub(crate) name: String,
    pub(crate) stage: String,
    pub(crate) project: Option<ProjectHandle>,
    pub(crate) source: Source,
    pub(crate) sha: Option<String>,
    pub(crate) depth: u64,
    pub(crate) protected: bool,
    pub(crate) steps: Vec<Value>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) image: Option<Image>,
    pub(crate) services: Vec<Image>,
    pub(crate) artifacts: Vec<Artifacts>,
    pub(crate) caches: Vec<Cache>,
    pub(crate) credentials: Vec<Value>,
    pub(crate) dependencies: Vec<u64>,
    pub(crate) hooks: Vec<Value>,
    pub(crate) tags: Vec<String>,
    pub(crate) timeout_secs: u64,
    pub(crate) allow_git_fetch: bool,
    pub(crate) trace_sections: bool,
    pub(crate) token_mask_prefixes: Vec<String>,
    pub(crate) failure_reasons: Vec<String>,
    pub(crate) needs_exit_code: bool,
    pub(crate) fields: Map<String, Value>,
    pub(crate) log_limit: usize,
    pub(crate) resend_on_mismatch: bool,
}

impl Default for JobSpec {
    fn default() -> Self {
        let reasons = [
            "unknown_failure",
            "script_failure",
            "runner_system_failure",
            "job_execution_timeout",
            "image_pull_failure",
            "runner_configuration_error",
            "runner_external_dependency_failure",
            "runner_interrupted",
        ];
        Self {
            name: "test".into(),
            stage: "test".into(),
            project: None,
            source: Source::Branch("main".into()),
            sha: None,
            depth: 20,
            protected: true,
            steps: Vec::new(),
            variables: Vec::new(),
            image: None,
            services: Vec::new(),
            artifacts: Vec::new(),
            caches: Vec::new(),
            credentials: Vec::new(),
            dependencies: Vec::new(),
            hooks: Vec::new(),
            tags: Vec::new(),
            timeout_secs: 3600,
            allow_git_fetch: true,
            trace_sections: true,
            token_mask_prefixes: ["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"].map(String::from).to_vec(),
            failure_reasons: reasons.map(String::from).to_vec(),
            needs_exit_code: false,
            fields: Map::new(),
            log_limit: 100 << 20,
            resend_on_mismatch: false,
        }
    }
}

impl JobSpec {
    /// A job with these lines as its `script`.
    pub fn script<L: Into<String>>(lines: impl IntoIterator<Item = L>) -> Self {
        Self::default().step("script", "on_success", false, lines)
    }

    /// A job of the project, with a script.
    pub fn of<L: Into<String>>(project: &ProjectHandle, lines: impl IntoIterator<Item = L>) -> Self {
        Self::script(lines).project(project)
    }

    /// Takes payload fields as they are on the wire, as [`Self::field`] does, except that `variables` are
    /// added to the predefined ones and `tag_list` chooses runners.
    ///
    /// # Errors
    /// When a field is not one of the payload, or has a shape this server cannot merge.
    pub fn from_json(value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            return Err("a job is a JSON object with fields of the job payload".into());
        };
        let mut spec = Self::default();
        if let Some(variables) = fields.remove("variables") {
            let Value::Array(variables) = variables else {
                return Err("`variables` must be a list of objects with `key` and `value`".into());
            };
            for variable in variables {
                spec.variables.push(Variable::from_json(&variable)?);
            }
        }
        if let Some(tags) = fields.remove("tag_list") {
            let tags: Option<Vec<String>> = tags
                .as_array()
                .and_then(|tags| tags.iter().map(|tag| tag.as_str().map(String::from)).collect());
            spec.tags = tags.ok_or("`tag_list` must be a list of strings")?;
        }
        if let Some(name) = fields.remove("name") {
            spec.name = name.as_str().ok_or("`name` must be a string")?.into();
        }
        if let Some(unknown) = fields.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let known = FIELDS.join("`, `");
            return Err(format!("`{unknown}` is not `name`, `tag_list`, `variables`, `{known}`"));
        }
        spec.fields = fields;
        Ok(spec)
    }

    /// The job's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The job's stage.
    pub fn stage(mut self, stage: impl Into<String>) -> Self {
        self.stage = stage.into();
        self
    }

    /// The project whose repository the job builds; without one a project with a single commit is made.
    pub fn project(mut self, project: &ProjectHandle) -> Self {
        self.project = Some(project.clone());
        self
    }

    /// Builds the tip of a branch; the default is `main`.
    pub fn branch(mut self, name: impl Into<String>) -> Self {
        self.source = Source::Branch(name.into());
        self
    }

    /// Builds a tag.
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.source = Source::Tag(name.into());
        self
    }

    /// Builds the head of a merge request made by [`ProjectHandle::merge_request`].
    pub fn merge_request(mut self, iid: u64) -> Self {
        self.source = Source::MergeRequest(iid);
        self
    }

    /// Builds this commit instead of the tip.
    pub fn sha(mut self, sha: impl Into<String>) -> Self {
        self.sha = Some(sha.into());
        self
    }

    /// The depth of the fetch; 0 is everything. The default is 20, as for a new project.
    pub fn depth(mut self, depth: u64) -> Self {
        self.depth = depth;
        self
    }

    /// Makes the ref unprotected.
    pub fn unprotected(mut self) -> Self {
        self.protected = false;
        self
    }

    /// Adds a step; `when` and `allow_failure` are for the eyes of the runner only, which ignores them.
    pub fn step<L: Into<String>>(
        mut self,
        name: &str,
        when: &str,
        allow_failure: bool,
        lines: impl IntoIterator<Item = L>,
    ) -> Self {
        let lines: Vec<String> = lines.into_iter().map(Into::into).collect();
        self.steps.push(json!({
            "name": name,
            "script": lines,
            "timeout": self.timeout_secs,
            "when": when,
            "allow_failure": allow_failure,
        }));
        self
    }

    /// Adds an `after_script`.
    pub fn after_script<L: Into<String>>(self, lines: impl IntoIterator<Item = L>) -> Self {
        self.step("after_script", "always", true, lines)
    }

    /// Adds a variable after the predefined ones.
    pub fn variable(mut self, variable: Variable) -> Self {
        self.variables.push(variable);
        self
    }

    /// Adds a plain variable.
    pub fn env(self, key: &str, value: impl Into<String>) -> Self {
        self.variable(Variable::new(key, value))
    }

    /// The job's image.
    pub fn image(mut self, image: impl Into<Image>) -> Self {
        self.image = Some(image.into());
        self
    }

    /// Adds a service.
    pub fn service(mut self, service: impl Into<Image>) -> Self {
        self.services.push(service.into());
        self
    }

    /// Adds an entry of `artifacts`.
    pub fn artifacts(mut self, artifacts: Artifacts) -> Self {
        self.artifacts.push(artifacts);
        self
    }

    /// Adds an entry of `cache`.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.caches.push(cache);
        self
    }

    /// Adds registry credentials.
    pub fn registry_credentials(mut self, url: &str, username: &str, password: &str) -> Self {
        self.credentials
            .push(json!({ "type": "registry", "url": url, "username": username, "password": password }));
        self
    }

    /// Waits for another job of this server and gets its artifacts.
    pub fn dependency(mut self, job: &JobHandle) -> Self {
        self.dependencies.push(job.id());
        self
    }

    /// Adds a hook: `pre_get_sources_script` or `post_get_sources_script`.
    pub fn hook<L: Into<String>>(mut self, name: &str, lines: impl IntoIterator<Item = L>) -> Self {
        let lines: Vec<String> = lines.into_iter().map(Into::into).collect();
        self.hooks.push(json!({ "name": name, "script": lines }));
        self
    }

    /// The tags a runner must have.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// `runner_info.timeout` in seconds.
    pub fn timeout_secs(mut self, seconds: u64) -> Self {
        self.timeout_secs = seconds;
        self
    }

    /// Makes `clone` the default git strategy instead of `fetch`.
    pub fn git_clone(mut self) -> Self {
        self.allow_git_fetch = false;
        self
    }

    /// Whether section markers are wanted in the log; the default is yes.
    pub fn trace_sections(mut self, yes: bool) -> Self {
        self.trace_sections = yes;
        self
    }

    /// The token prefixes to mask in addition to the runner's own.
    pub fn token_mask_prefixes<T: Into<String>>(mut self, prefixes: impl IntoIterator<Item = T>) -> Self {
        self.token_mask_prefixes = prefixes.into_iter().map(Into::into).collect();
        self
    }

    /// The failure reasons this server says it understands.
    pub fn failure_reasons<T: Into<String>>(mut self, reasons: impl IntoIterator<Item = T>) -> Self {
        self.failure_reasons = reasons.into_iter().map(Into::into).collect();
        self
    }

    /// Declares `allow_failure:exit_codes`, which needs a runner that returns exit codes.
    pub fn allow_failure_exit_codes(mut self) -> Self {
        self.needs_exit_code = true;
        self
    }

    /// Replaces or adds a top-level field of the payload; objects are merged one level deep.
    pub fn field(mut self, key: &str, value: Value) -> Self {
        self.fields.insert(key.into(), value);
        self
    }

    /// The log size at which the server fails the job with `trace_size_exceeded`.
    pub fn log_limit(mut self, bytes: usize) -> Self {
        self.log_limit = bytes;
        self
    }

    /// Answers a wrong checksum with 412 and takes the log again from its start, instead of counting it as
    /// a violation.
    pub fn resend_on_mismatch(mut self) -> Self {
        self.resend_on_mismatch = true;
        self
    }
}
