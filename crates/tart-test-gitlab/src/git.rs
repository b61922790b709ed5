//! Projects: real bare repositories, served over smart HTTP with LFS.

mod commit;
pub(crate) mod http;
pub(crate) mod lfs;
mod project;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

pub use self::commit::CommitBuilder;
pub use self::project::ProjectHandle;

/// A project as the server knows it.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) id: u64,
    /// `group/name`, in more groups if wanted.
    pub(crate) path: String,
    pub(crate) repository: PathBuf,
    /// `sha1` or `sha256`.
    pub(crate) object_format: &'static str,
    /// Whether everyone may read it.
    pub(crate) public: bool,
    /// The projects whose job tokens may read this one; itself always may.
    pub(crate) allowed: BTreeSet<u64>,
}

impl Project {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Where the project's LFS objects are, by their SHA-256.
    pub(crate) fn lfs_objects(&self) -> PathBuf {
        self.repository.join("lfs/objects")
    }
}

/// What a job builds, read from the repository when the job is enqueued.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) reference: String,
    pub(crate) sha: String,
    pub(crate) before_sha: String,
    pub(crate) is_tag: bool,
    pub(crate) message: String,
    pub(crate) author: String,
    pub(crate) timestamp: String,
}

/// Why git did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Git could not be run.
    #[error("cannot run `git {command}`; is git installed")]
    Spawn {
        /// The arguments.
        command: String,
        /// The cause.
        source: io::Error,
    },
    /// Git ran and said no.
    #[error("`git {command}` failed: {message}")]
    Failed {
        /// The arguments.
        command: String,
        /// What git wrote to its standard error.
        message: String,
    },
}

/// A git command that sees no configuration of the user or the machine.
pub(crate) fn command(repository: &Path) -> Command {
    let mut command = Command::new("git");
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("GIT_") {
            command.env_remove(key);
        }
    }
    command
        .env("GIT_DIR", repository)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Ada Lovelace")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada Lovelace")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .kill_on_drop(true);
    command
}

/// Runs git in a bare repository and returns its output without the last line end.
pub(crate) async fn git<A: AsRef<OsStr>>(
    repository: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String, GitError> {
    let mut git = command(repository);
    git.args(arguments);
    run(git, &[]).await
}

/// Runs a prepared git command with this input.
pub(crate) async fn run(mut command: Command, input: &[u8]) -> Result<String, GitError> {
    let arguments: Vec<_> = command.as_std().get_args().map(OsStr::to_string_lossy).collect();
    let arguments = arguments.join(" ");
    let spawn_error = |source| GitError::Spawn { command: arguments.clone(), source };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(spawn_error)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let feed = async move {
        // Git may leave without reading its input; its status tells why.
        stdin.write_all(input).await.ok();
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(spawn_error)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(GitError::Failed { command: arguments, message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}
