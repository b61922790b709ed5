//! What a job of a server's pipeline would know besides the CI file.

use std::{collections::BTreeMap, time::Duration};

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
    /// For `cache:key:files`, what tells a file's versions apart, such as its last commit; see
    /// [`crate::Job::cache_key_files`]. Files that do not exist are absent.
    pub file_versions: BTreeMap<String, String>,
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
