//! What rules ask about the files of the repository.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use tart_ci_file::WorkTree;

use super::Repository;

/// The working tree, with changes that are not committed.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    repository: &'a Repository,
    /// What changes are compared with.
    base: Option<String>,
    changed: OnceCell<Option<Vec<String>>>,
    files: OnceCell<Vec<String>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(repository: &'a Repository, base: Option<String>) -> Self {
        Self { repository, base, changed: OnceCell::new(), files: OnceCell::new() }
    }

    fn since(&self, commit: &str) -> Option<Vec<String>> {
        let mut paths: BTreeSet<String> = self.repository.paths(&[
            "diff",
            "--no-ext-diff",
            "--no-renames",
            "--name-only",
            "-z",
            commit,
            "--",
        ])?;
        paths.extend(self.repository.paths(UNTRACKED)?);
        Some(paths.into_iter().collect())
    }
}

/// New files that git does not ignore.
const UNTRACKED: &[&str] = &["ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", ":/"];

impl WorkTree for Tree<'_> {
    fn changed(&self) -> Option<Vec<String>> {
        self.changed.get_or_init(|| self.since(self.base.as_deref()?)).clone()
    }

    fn changed_since(&self, reference: &str) -> Result<Vec<String>, String> {
        let found = self.repository.branch_tip(reference).or_else(|| self.repository.commit(reference));
        let commit = found.ok_or_else(|| "there is no such branch, tag or commit here".to_owned())?;
        self.since(&commit).ok_or_else(|| "git does not say what has changed".to_owned())
    }

    fn files(&self) -> Vec<String> {
        let list = || {
            let tracked = self.repository.paths(&["ls-files", "-z", "--full-name", "--", ":/"]);
            let mut files = tracked.unwrap_or_default();
            let gone = self.repository.paths(&["ls-files", "-z", "--deleted", "--full-name", "--", ":/"]);
            for path in gone.unwrap_or_default() {
                files.remove(&path);
            }
            files.extend(self.repository.paths(UNTRACKED).unwrap_or_default());
            files.into_iter().collect()
        };
        self.files.get_or_init(list).clone()
    }
}
