//! Running git on the host.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// Why a working tree cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// There is no git.
    #[error("cannot run git: {0}; install the package git")]
    NoGit(std::io::Error),
    /// There is no repository.
    #[error("`{0}` is not in the working tree of a git repository; `git init` makes one")]
    NoRepository(PathBuf),
    /// Git refuses.
    #[error("git cannot {what}: {message}")]
    Git {
        /// What was tried.
        what: &'static str,
        /// What git said.
        message: String,
    },
    /// A file of the snapshot.
    #[error("cannot {what}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// Git in a directory, with more of its environment.
#[derive(Debug, Clone)]
pub(super) struct Git {
    directory: PathBuf,
    environment: Vec<(String, PathBuf)>,
}

impl Git {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), environment: Vec::new() }
    }

    /// The same with another variable.
    pub(super) fn with(mut self, key: &str, value: impl AsRef<Path>) -> Self {
        self.environment.push((key.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What git prints, without the final line feed.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        what: &'static str,
        arguments: &[A],
    ) -> Result<String, LocalError> {
        let mut command = Command::new("git");
        // Root may run jobs of a repository that is a user's: no hook or program of it is run here.
        command.args([
            "-c",
            "safe.directory=*",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
        ]);
        command.args(arguments).current_dir(&self.directory);
        command.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        let output =
            command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(LocalError::NoGit)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let message = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
            return Err(LocalError::Git { what, message: message.trim().to_owned() });
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    /// The same where a failure means that there is no answer.
    pub(super) async fn ask<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Option<String> {
        self.run("answer", arguments).await.ok().filter(|text| !text.is_empty())
    }
}
