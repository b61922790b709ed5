//! Commits made without a work tree.

use crate::git::{ProjectHandle, command, git, run};

enum Change {
    Blob { mode: &'static str, path: String, contents: Vec<u8> },
    Submodule { path: String, sha: String },
    Remove { path: String },
}

/// A commit in the making, on top of a branch.
#[must_use = "a commit is made by `create`"]
pub struct CommitBuilder<'a> {
    project: &'a ProjectHandle,
    branch: String,
    message: Option<String>,
    changes: Vec<Change>,
    modules: String,
}

impl std::fmt::Debug for CommitBuilder<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CommitBuilder").field("branch", &self.branch).finish_non_exhaustive()
    }
}

impl<'a> CommitBuilder<'a> {
    pub(crate) fn new(project: &'a ProjectHandle, branch: &str) -> Self {
        Self { project, branch: branch.into(), message: None, changes: Vec::new(), modules: String::new() }
    }

    /// The message; the default names the branch.
    pub fn message(mut self, text: impl Into<String>) -> Self {
        self.message = Some(text.into());
        self
    }

    /// Adds or replaces a file.
    pub fn file(self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.blob("100644", path, contents.into())
    }

    /// Adds or replaces an executable file.
    pub fn executable(self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.blob("100755", path, contents.into())
    }

    /// Adds or replaces a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.blob("120000", path, target.into())
    }

    /// Adds a file kept in LFS; its pattern must be in `.gitattributes` for a client to see it, see
    /// [`Self::lfs_attributes`].
    pub fn lfs_file(self, path: &str, contents: &[u8]) -> Self {
        let pointer = self.project.lfs_pointer(contents);
        self.file(path, pointer)
    }

    /// Writes `.gitattributes` so that files matching these patterns are kept in LFS.
    pub fn lfs_attributes(self, patterns: &[&str]) -> Self {
        let lines: String = patterns
            .iter()
            .map(|pattern| format!("{pattern} filter=lfs diff=lfs merge=lfs -text\n"))
            .collect();
        self.file(".gitattributes", lines)
    }

    /// Adds a submodule at a commit of another repository; a relative URL as `../lib.git` is resolved by
    /// the client. All submodules of a commit must be given at once.
    pub fn submodule(mut self, path: &str, url: &str, sha: &str) -> Self {
        self.modules.push_str(&format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"));
        self.changes.push(Change::Submodule { path: path.into(), sha: sha.into() });
        self
    }

    /// Removes a file.
    pub fn remove(mut self, path: &str) -> Self {
        self.changes.push(Change::Remove { path: path.into() });
        self
    }

    /// Makes the commit, moves the branch and returns the commit.
    ///
    /// # Panics
    /// When git refuses.
    pub async fn create(mut self) -> String {
        if !self.modules.is_empty() {
            let modules = std::mem::take(&mut self.modules);
            self = self.blob("100644", ".gitmodules", modules.into());
        }
        let repository = self.project.repository();
        let reference = format!("refs/heads/{}", self.branch);
        let parent = git(repository, ["rev-parse", "--verify", "--quiet", &reference]).await.ok();

        let scratch = tempfile::tempdir().expect("the temporary directory is writable");
        let index = scratch.path().join("index");
        let in_index = |arguments: &[&str]| {
            let mut git = command(repository);
            git.env("GIT_INDEX_FILE", &index).args(arguments);
            git
        };
        if let Some(parent) = &parent {
            must(run(in_index(&["read-tree", parent]), &[]).await);
        }
        let mut entries = Vec::new();
        for change in &self.changes {
            match change {
                Change::Blob { mode, path, contents } => {
                    let store = in_index(&["hash-object", "-w", "--stdin"]);
                    let blob = must(run(store, contents).await);
                    entries.extend(format!("{mode} {blob}\t{path}\0").into_bytes());
                }
                Change::Submodule { path, sha } => {
                    entries.extend(format!("160000 {sha}\t{path}\0").into_bytes());
                }
                Change::Remove { path } => {
                    let nothing = "0".repeat(parent.as_ref().map_or(40, String::len));
                    entries.extend(format!("0 {nothing}\t{path}\0").into_bytes());
                }
            }
        }
        must(run(in_index(&["update-index", "-z", "--index-info"]), &entries).await);
        let tree = must(run(in_index(&["write-tree"]), &[]).await);

        let message = self.message.unwrap_or_else(|| format!("Change {}", self.branch));
        let mut arguments = vec!["commit-tree", &tree];
        if let Some(parent) = &parent {
            arguments.extend(["-p", parent]);
        }
        let sha = must(run(in_index(&arguments), message.as_bytes()).await);
        self.project.update_ref(&reference, &sha).await;
        sha
    }

    fn blob(mut self, mode: &'static str, path: &str, contents: Vec<u8>) -> Self {
        self.changes.push(Change::Blob { mode, path: path.into(), contents });
        self
    }
}

fn must(result: Result<String, crate::git::GitError>) -> String {
    result.unwrap_or_else(|error| panic!("{error}"))
}
