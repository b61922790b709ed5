//! What a job of a server's pipeline would know besides the CI file.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

/// The surroundings of a job that is run locally: the commit, the project, the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecContext {
    /// The number of the job.
    pub job_id: u64,
    /// The number of the pipeline.
    pub pipeline_id: u64,
    /// The path of the CI file.
    pub config_path: String,
    /// The project.
    pub project: Project,
    /// The commit.
    pub commit: Commit,
    /// What the pipeline is made for.
    pub source: Source,
    /// The merge request that it is made for, if it is.
    pub merge_request: Option<MergeRequest>,
    /// Where the job fetches its sources.
    pub sources: Sources,
    /// Who runs the job.
    pub user: User,
    /// The address of the instance that the project is from, without a slash at its end.
    pub server_url: String,
    /// The bound on jobs without a timeout of their own.
    pub timeout: Duration,
    /// Variables of the command line. They win over all others.
    pub variables: Vec<(String, String)>,
    /// Variables of the dotenv reports of other jobs. They win over those of the file.
    pub inherited: Vec<(String, String)>,
    /// Jobs whose artifacts the job fetches.
    pub dependencies: Vec<Dependency>,
    /// For `cache:key:files`, what tells a file's versions apart, such as its last commit; see
    /// [`crate::Job::cache_key_files`]. Files that do not exist are absent.
    pub file_versions: BTreeMap<String, String>,
}

/// A job whose artifacts another one fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The name of its archive.
    pub file_name: String,
    /// The bytes of its archive.
    pub size: u64,
}

/// A merge request from the branch of [`Commit::ref_name`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeRequest {
    /// The branch that it is for.
    pub target_branch: String,
    /// The commit of that branch; empty if it is not known here.
    pub target_sha: String,
    /// The commit that both branches have in common; empty if there is none.
    pub base_sha: String,
}

/// What a pipeline is made for: the values of `CI_PIPELINE_SOURCE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as GitLab names them")]
pub enum Source {
    #[default]
    Push,
    Web,
    Schedule,
    Api,
    Trigger,
    MergeRequestEvent,
    Pipeline,
    ParentPipeline,
    External,
    ExternalPullRequestEvent,
    Chat,
    WebIde,
    OndemandDastScan,
    OndemandDastValidation,
    SecurityOrchestrationPolicy,
}

impl Source {
    /// All of them, the common ones first.
    pub const ALL: &[Self] = &[
        Self::Push,
        Self::MergeRequestEvent,
        Self::Schedule,
        Self::Web,
        Self::Api,
        Self::Trigger,
        Self::Pipeline,
        Self::ParentPipeline,
        Self::External,
        Self::ExternalPullRequestEvent,
        Self::Chat,
        Self::WebIde,
        Self::OndemandDastScan,
        Self::OndemandDastValidation,
        Self::SecurityOrchestrationPolicy,
    ];

    /// The value of `CI_PIPELINE_SOURCE`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.names().0
    }

    /// The word for it in `only` and `except`.
    pub(crate) fn policy(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Push => ("push", "pushes"),
            Self::Web => ("web", "web"),
            Self::Schedule => ("schedule", "schedules"),
            Self::Api => ("api", "api"),
            Self::Trigger => ("trigger", "triggers"),
            Self::MergeRequestEvent => ("merge_request_event", "merge_requests"),
            Self::Pipeline => ("pipeline", "pipelines"),
            Self::ParentPipeline => ("parent_pipeline", "parent_pipelines"),
            Self::External => ("external", "external"),
            Self::ExternalPullRequestEvent => ("external_pull_request_event", "external_pull_requests"),
            Self::Chat => ("chat", "chat"),
            Self::WebIde => ("webide", "webide"),
            Self::OndemandDastScan => ("ondemand_dast_scan", "ondemand_dast_scans"),
            Self::OndemandDastValidation => ("ondemand_dast_validation", "ondemand_dast_validations"),
            Self::SecurityOrchestrationPolicy => {
                ("security_orchestration_policy", "security_orchestration_policies")
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = match text {
            "mr" | "merge_request" => "merge_request_event",
            other => other,
        };
        Self::ALL.iter().copied().find(|source| source.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|source| source.as_str()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its number.
    pub id: u64,
    /// Its path with all groups, such as `group/sub/name`.
    pub path: String,
    /// Its default branch.
    pub default_branch: String,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its full id.
    pub sha: String,
    /// The branch or tag.
    pub ref_name: String,
    /// Whether `ref_name` is a tag.
    pub is_tag: bool,
    /// Whether the branch or tag is protected.
    pub is_protected: bool,
    /// The whole message.
    pub message: String,
    /// `Name <address>`.
    pub author: String,
    /// When it was made, in RFC 3339.
    pub timestamp: String,
}

/// Where sources are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The address of the repository.
    pub repo_url: String,
    /// What to fetch.
    pub refspecs: Vec<String>,
    /// How many commits; 0 means all.
    pub depth: u32,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub login: String,
    /// The full name.
    pub name: String,
    /// The mail address.
    pub email: String,
}
