//! The working tree as a commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tart_net::{Allowed, Endpoint, NetError};
use tempfile::TempDir;

use super::git::{Git, LocalError};
use super::serve::Upload;

/// The name that guests know the snapshot's server by; no domain of the internet ends so (RFC 9476 and ICANN's
/// reservation of `internal`).
const HOST: &str = "tart.internal";

/// The port of git's own protocol.
const PORT: u16 = 9418;

/// Where the commit is found, as in a repository of GitLab.
const REF: &str = "refs/pipelines/1";

/// The working tree as a commit that a guest can fetch. The user's repository is only read: new objects are in a
/// directory of their own, which is removed when this is dropped.
#[derive(Debug)]
pub struct Snapshot {
    root: PathBuf,
    commit: Commit,
    branch: Option<String>,
    changed: bool,
    project_path: String,
    repository: PathBuf,
    /// Removed with all in it.
    _directory: TempDir,
}

/// What is known of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its full id.
    pub sha: String,
    /// The whole message.
    pub message: String,
    /// `Name <address>`.
    pub author: String,
    /// When it was made, in RFC 3339.
    pub timestamp: String,
}

impl Snapshot {
    /// Commits the working tree that `directory` is in, with everything that is not ignored. Without any change, the
    /// commit is the one that is checked out.
    ///
    /// # Errors
    /// There is no repository, or git refuses.
    pub async fn take(directory: &Path) -> Result<Self, LocalError> {
        let here = Git::new(directory);
        let root = here.run("find the working tree", &["rev-parse", "--show-toplevel"]).await;
        let root = PathBuf::from(root.map_err(|error| match error {
            LocalError::Git { .. } => LocalError::NoRepository(directory.to_owned()),
            error => error,
        })?);
        let git = Git::new(&root);
        let path = async |name: &str| {
            let arguments = ["rev-parse", "--path-format=absolute", "--git-path", name];
            git.run("find its files", &arguments).await.map(PathBuf::from)
        };
        let (objects, index, shallow) =
            (path("objects").await?, path("index").await?, path("shallow").await?);

        let directory = tempfile::Builder::new().prefix("tart-exec-").tempdir();
        let directory = directory.map_err(|source| LocalError::File { what: "make a directory", source })?;
        let repository = directory.path().join("repository.git");
        prepare_repository(&git, &repository, &objects, &shallow).await?;
        let temporary_index = directory.path().join("index");
        // With the file times that are in it, only changed files are read.
        if index.exists() {
            copy(&index, &temporary_index)?;
        }

        let committing = git
            .clone()
            .with("GIT_INDEX_FILE", &temporary_index)
            .with("GIT_OBJECT_DIRECTORY", repository.join("objects"))
            .with("GIT_ALTERNATE_OBJECT_DIRECTORIES", &objects);
        committing.run("take the working tree", &["add", "--all", "--", ":/"]).await?;
        let tree = committing.run("take the working tree", &["write-tree"]).await?;
        let head = git.ask(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await;
        let head_tree = git.ask(&["rev-parse", "--verify", "--quiet", "HEAD^{tree}"]).await;
        let (sha, changed) = match head {
            Some(head) if head_tree.as_deref() == Some(&tree) => (head, false),
            head => (commit(&committing, &tree, head.as_deref()).await?, true),
        };

        let served = Git::new(&repository);
        served.run("name the commit", &["update-ref", REF, &sha]).await?;
        let branch = git.ask(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await;
        let commit = describe(&served, sha).await?;
        let project_path = project_path(&git, &root).await;
        Ok(Self { root, commit, branch, changed, project_path, repository, _directory: directory })
    }

    /// The root of the working tree.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit.
    #[must_use]
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The branch, or what to show instead of one.
    #[must_use]
    pub fn ref_name(&self) -> &str {
        self.branch.as_deref().unwrap_or("HEAD")
    }

    /// Whether there are changes that the user has not committed.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The project's path: that of the remote `origin`, or the name of the directory.
    #[must_use]
    pub fn project_path(&self) -> &str {
        &self.project_path
    }

    /// The address that a guest fetches from.
    #[must_use]
    pub fn repo_url(&self) -> String {
        format!("git://{HOST}/{}.git", self.project_path)
    }

    /// What a guest fetches.
    #[must_use]
    pub fn refspecs(&self) -> Vec<String> {
        vec![format!("+{REF}:{REF}")]
    }

    /// What serves the address: for [`crate::JobRun::allowed`]. It lives as long as the snapshot.
    ///
    /// # Errors
    /// None that are known: the name is valid.
    pub fn allowed(&self) -> Result<Allowed, NetError> {
        let endpoint = Endpoint::new(HOST, PORT)?;
        Ok(Allowed::service(endpoint, Arc::new(Upload::new(self.repository.clone()))))
    }
}

/// A bare repository that borrows the objects of the user's.
async fn prepare_repository(
    git: &Git,
    repository: &Path,
    objects: &Path,
    shallow: &Path,
) -> Result<(), LocalError> {
    let format = git.ask(&["rev-parse", "--show-object-format"]).await.unwrap_or_else(|| "sha1".to_owned());
    let arguments = ["init", "--quiet", "--bare", "--template="].map(str::to_owned).into_iter();
    let arguments = arguments.chain([format!("--object-format={format}"), repository.display().to_string()]);
    git.run("make a repository", &arguments.collect::<Vec<_>>()).await?;
    let info = repository.join("objects/info");
    let failed = |source| LocalError::File { what: "write the snapshot", source };
    fs::create_dir_all(&info).map_err(failed)?;
    let mut line = objects.as_os_str().as_encoded_bytes().to_vec();
    line.push(b'\n');
    fs::write(info.join("alternates"), line).map_err(failed)?;
    if shallow.exists() {
        copy(shallow, &repository.join("shallow"))?;
    }
    Ok(())
}

/// Copies a file with its time. Git takes a file of the size and time that the index has for unchanged, unless the index
/// is no younger than the file: a younger copy of the index would hide a change of the same moment.
fn copy(from: &Path, to: &Path) -> Result<(), LocalError> {
    let copy = || {
        fs::copy(from, to)?;
        let time = fs::metadata(from)?.modified()?;
        fs::File::options().write(true).open(to)?.set_modified(time)
    };
    copy().map_err(|source| LocalError::File { what: "copy a file of the repository", source })
}

async fn commit(git: &Git, tree: &str, head: Option<&str>) -> Result<String, LocalError> {
    let setting = async |key: &str, default: &str| {
        git.ask(&["config", "--get", key]).await.unwrap_or_else(|| default.to_owned())
    };
    let name = setting("user.name", "tart").await;
    let email = setting("user.email", "tart@localhost").await;
    let git = ["AUTHOR", "COMMITTER"].iter().fold(git.clone(), |git, role| {
        git.with(&format!("GIT_{role}_NAME"), &name).with(&format!("GIT_{role}_EMAIL"), &email)
    });
    let mut arguments = vec!["commit-tree", "--no-gpg-sign", "-m", "Uncommitted changes of the working tree"];
    arguments.extend(head.iter().flat_map(|head| ["-p", head]));
    arguments.push(tree);
    git.run("commit the working tree", &arguments).await
}

async fn describe(git: &Git, sha: String) -> Result<Commit, LocalError> {
    let arguments = ["show", "--no-patch", "--format=%an <%ae>%n%cI%n%B", &sha];
    let text = git.run("read the commit", &arguments).await?;
    let mut lines = text.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default().to_owned();
    Ok(Commit { sha, author: next(), timestamp: next(), message: next() })
}

async fn project_path(git: &Git, root: &Path) -> String {
    let remote = git.ask(&["config", "--get", "remote.origin.url"]).await;
    remote.as_deref().and_then(path_of_remote).unwrap_or_else(|| {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        format!("local/{}", legal(&name))
    })
}

/// `group/project` of an address such as `git@host:group/project.git`. A path of this machine names no project.
fn path_of_remote(remote: &str) -> Option<String> {
    let path = match remote.split_once("://") {
        Some(("file", _)) => return None,
        Some((_, rest)) => rest.split_once('/')?.1,
        None if remote.starts_with(['/', '.']) => return None,
        None => remote.split_once(':')?.1,
    };
    let path = path.trim_matches('/');
    let parts: Vec<String> = path.strip_suffix(".git").unwrap_or(path).split('/').map(legal).collect();
    let usable = parts.len() > 1 && parts.iter().all(|part| !part.trim_matches('.').is_empty());
    usable.then(|| parts.join("/"))
}

/// What is no character of a project's path becomes a hyphen.
fn legal(part: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    part.chars().map(legal).collect()
}

#[cfg(test)]
mod tests;
