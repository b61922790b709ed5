//! Jobs of a local repository, without a GitLab server: `tart exec`.

use std::path::PathBuf;

use tart_net::Allowed;

/// The working tree as a commit that a guest can fetch. The repository itself is not touched: new objects live in a
/// directory of their own, which is removed when this is dropped.
#[derive(Debug)]
pub struct Snapshot {
    /// The root of the working tree.
    pub root: PathBuf,
    /// The commit with the uncommitted changes.
    pub sha: String,
    /// The checked out branch, or the commit's id.
    pub branch: String,
}

/// Why a working tree cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// Git is missing or refuses.
    #[error("git {what}: {message}")]
    Git {
        /// What was tried.
        what: String,
        /// What git said.
        message: String,
    },
}

impl Snapshot {
    /// Commits the working tree that `directory` is in, with everything that is not ignored.
    ///
    /// # Errors
    /// There is no repository, or git refuses.
    pub async fn take(directory: &std::path::Path) -> Result<Self, LocalError> {
        let _ = directory;
        todo!()
    }

    /// The address that a guest fetches from.
    #[must_use]
    pub fn repo_url(&self) -> String {
        todo!()
    }

    /// What serves the address: for [`crate::JobRun::allowed`].
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        todo!()
    }
}
