//! The parts of a job: variables, images, artifacts, caches.

use serde_json::{Value, json};

/// A variable of a job or of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) public: bool,
    pub(crate) masked: bool,
    pub(crate) file: bool,
    pub(crate) raw: bool,
}

impl Variable {
    /// A public variable.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), public: true, masked: false, file: false, raw: false }
    }

    /// A private and masked variable, as one from the project's settings.
    pub fn masked(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { public: false, masked: true, ..Self::new(key, value) }
    }

    /// Makes it private.
    pub fn private(mut self) -> Self {
        self.public = false;
        self
    }

    /// Makes it a file variable.
    pub fn file(mut self) -> Self {
        self.file = true;
        self
    }

    /// Forbids expansion of references in it.
    pub fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        let key = text("key").ok_or_else(|| format!("a variable without a `key`: {value}"))?;
        Ok(Self {
            key: key.into(),
            value: text("value").unwrap_or_default().into(),
            public: flag("public").unwrap_or(true),
            masked: flag("masked").unwrap_or(false),
            file: flag("file").unwrap_or(false),
            raw: flag("raw").unwrap_or(false),
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "key": self.key,
            "value": self.value,
            "public": self.public,
            "masked": self.masked,
            "file": self.file,
            "raw": self.raw,
        })
    }
}

/// The image of a job or of a service.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) name: String,
    alias: Option<String>,
    entrypoint: Option<Vec<String>>,
    command: Option<Vec<String>>,
    pull_policy: Vec<String>,
    executor_opts: Value,
    variables: Vec<Variable>,
}

impl From<&str> for Image {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl Image {
    /// An image by name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            alias: None,
            entrypoint: None,
            command: None,
            pull_policy: Vec::new(),
            executor_opts: json!({}),
            variables: Vec::new(),
        }
    }

    /// Host names of a service, separated by commas or spaces.
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.alias = Some(alias.into());
        self
    }

    /// Replaces the image's entrypoint.
    pub fn entrypoint<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.entrypoint = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Replaces a service's command.
    pub fn command<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// `always`, `if-not-present` or `never`, in the order to try.
    pub fn pull_policy<A: Into<String>>(mut self, policies: impl IntoIterator<Item = A>) -> Self {
        self.pull_policy = policies.into_iter().map(Into::into).collect();
        self
    }

    /// The `executor_opts` object.
    pub fn executor_opts(mut self, options: Value) -> Self {
        self.executor_opts = options;
        self
    }

    /// Adds a variable of the service.
    pub fn variable(mut self, variable: Variable) -> Self {
        self.variables.push(variable);
        self
    }

    pub(crate) fn to_json(&self, service: bool) -> Value {
        let mut image = json!({
            "name": self.name,
            "entrypoint": self.entrypoint,
            "executor_opts": self.executor_opts,
            "ports": [],
            "pull_policy": (!self.pull_policy.is_empty()).then_some(&self.pull_policy),
        });
        if service {
            image["alias"] = json!(self.alias);
            image["command"] = json!(self.command);
            image["variables"] = self.variables.iter().map(Variable::to_json).collect();
        }
        image
    }
}

/// One entry of `artifacts`.
#[derive(Clone, Debug)]
pub struct Artifacts {
    name: Option<String>,
    untracked: bool,
    paths: Vec<String>,
    pub(crate) exclude: Vec<String>,
    when: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) expire_in: Option<String>,
}

impl Artifacts {
    /// An archive of these paths.
    pub fn paths<P: Into<String>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self {
            name: None,
            untracked: false,
            paths: paths.into_iter().map(Into::into).collect(),
            exclude: Vec::new(),
            when: "on_success".into(),
            kind: "archive".into(),
            format: "zip".into(),
            expire_in: None,
        }
    }

    /// A report: its type, its format (`gzip` or `raw`) and the name the server gives the file.
    pub fn report(kind: &str, format: &str, name: &str, path: &str) -> Self {
        Self {
            name: Some(name.into()),
            when: "always".into(),
            kind: kind.into(),
            format: format.into(),
            ..Self::paths([path])
        }
    }

    /// The name of the archive.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds the untracked files.
    pub fn untracked(mut self) -> Self {
        self.untracked = true;
        self
    }

    /// Patterns to leave out.
    pub fn exclude<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.exclude.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// `on_success`, `on_failure` or `always`.
    pub fn when(mut self, when: &str) -> Self {
        self.when = when.into();
        self
    }

    /// The lifetime, as written in the project's file.
    pub fn expire_in(mut self, time: &str) -> Self {
        self.expire_in = Some(time.into());
        self
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut artifacts = json!({
            "name": self.name,
            "untracked": self.untracked,
            "paths": self.paths,
            "when": self.when,
            "expire_in": self.expire_in,
            "artifact_type": self.kind,
            "artifact_format": self.format,
        });
        if !self.exclude.is_empty() {
            artifacts["exclude"] = json!(self.exclude);
        }
        artifacts
    }
}

/// One entry of `cache`.
#[derive(Clone, Debug)]
pub struct Cache {
    key: String,
    untracked: bool,
    policy: String,
    paths: Vec<String>,
    when: String,
    pub(crate) fallback_keys: Vec<String>,
}

impl Cache {
    /// A cache of these paths; the key is sent as it is, so with the suffix `-protected` if that is wanted.
    pub fn new<P: Into<String>>(key: &str, paths: impl IntoIterator<Item = P>) -> Self {
        Self {
            key: key.into(),
            untracked: false,
            policy: "pull-push".into(),
            paths: paths.into_iter().map(Into::into).collect(),
            when: "on_success".into(),
            fallback_keys: Vec::new(),
        }
    }

    /// `pull-push`, `pull`, `push` or a variable.
    pub fn policy(mut self, policy: &str) -> Self {
        self.policy = policy.into();
        self
    }

    /// `on_success`, `on_failure` or `always`.
    pub fn when(mut self, when: &str) -> Self {
        self.when = when.into();
        self
    }

    /// Adds the untracked files.
    pub fn untracked(mut self) -> Self {
        self.untracked = true;
        self
    }

    /// The keys to try when the first finds nothing.
    pub fn fallback_keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.fallback_keys.extend(keys.into_iter().map(Into::into));
        self
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "key": self.key,
            "untracked": self.untracked,
            "policy": self.policy,
            "paths": self.paths,
            "when": self.when,
            "fallback_keys": self.fallback_keys,
        })
    }
}
