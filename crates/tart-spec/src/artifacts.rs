use std::fmt;

use serde::{Deserialize, Deserializer};

use crate::null::wire;

/// For which outcomes of a job something is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum When {
    /// The job is well so far.
    #[default]
    OnSuccess,
    /// The job failed.
    OnFailure,
    /// In any case.
    Always,
    /// A word that no runner knows, or a template that inputs are still to be put into. Never done.
    Other(String),
}

impl From<String> for When {
    fn from(text: String) -> Self {
        match text.as_str() {
            "" | "on_success" => Self::OnSuccess,
            "on_failure" => Self::OnFailure,
            "always" => Self::Always,
            _ => Self::Other(text),
        }
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

wire! {
    /// One upload of artifacts.
    #[derive(Debug, Eq)]
    pub struct Artifact {
        /// The archive's name; `artifacts` if there is none.
        pub name: Option<String>,
        /// Files git does not track, too.
        pub untracked: bool,
        /// Globs.
        pub paths: Vec<String>,
        /// Globs of what stays out.
        pub exclude: Vec<String>,
        /// For which outcomes.
        pub when: When,
        /// `archive`, or the kind of a report.
        pub artifact_type: String,
        /// `zip`, `gzip`, `raw`, `zipzstd`, `tarzstd`; empty means `zip`.
        pub artifact_format: String,
        /// Passed on as it is.
        pub expire_in: Option<String>,
    }

    /// A cache.
    #[derive(Debug, Eq)]
    pub struct Cache {
        /// May hold references to variables.
        pub key: String,
        /// Files git does not track, too.
        pub untracked: bool,
        /// `pull-push`, `pull` or `push`, after expansion; empty means `pull-push`.
        pub policy: String,
        /// Globs.
        pub paths: Vec<String>,
        /// For which outcomes it is saved.
        pub when: When,
        /// Keys to try after `key`.
        pub fallback_keys: Vec<String>,
    }

    /// What a registry wants to know. `Debug` does not show the password.
    #[derive(Eq)]
    pub struct Credentials {
        /// `registry`.
        pub r#type: String,
        /// The host, with a port perhaps.
        pub url: String,
        /// The user.
        pub username: String,
        /// The password.
        pub password: String,
    }

    /// A job whose artifacts this one gets. `Debug` does not show the token.
    #[derive(Eq)]
    pub struct Dependency {
        /// The other job.
        pub id: i64,
        /// The token for its artifacts.
        pub token: String,
        /// The other job's name, for the log.
        pub name: String,
        /// Without it, or without a name in it, there is nothing to get.
        pub artifacts_file: Option<ArtifactsFile>,
    }

    /// The archive of a dependency.
    #[derive(Debug, Eq)]
    pub struct ArtifactsFile {
        /// Its name.
        pub filename: String,
        /// Its size in bytes.
        pub size: i64,
    }
}

impl Dependency {
    /// Whether there is an archive to get.
    pub fn has_artifacts(&self) -> bool {
        self.artifacts_file.as_ref().is_some_and(|file| !file.filename.is_empty())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("type", &self.r#type)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependency")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("artifacts_file", &self.artifacts_file)
            .finish_non_exhaustive()
    }
}
