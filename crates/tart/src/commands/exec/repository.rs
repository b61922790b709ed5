//! What `tart exec` asks git about the user's repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tart_ci_file::User;

use crate::failure::Annotate as _;

/// The CI file of a repository.
const CI_FILE: &str = ".gitlab-ci.yml";

/// The server of a repository that does not say where it is from.
const DEFAULT_SERVER: &str = "https://gitlab.com";

/// The repository that a directory is in.
#[derive(Debug)]
pub(super) struct Repository {
    /// The given directory, absolute.
    directory: PathBuf,
    root: PathBuf,
}

impl Repository {
    /// Finds the top of the working tree.
    pub(super) fn find(directory: &Path) -> anyhow::Result<Self> {
        let directory = directory
            .canonicalize()
            .with_context(|| format!("cannot use the directory {}", directory.display()))?;
        let output = git(&directory, &["rev-parse", "--show-toplevel"]).output();
        let output = output.context("cannot run git").hint("install it with `apt-get install git`")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(anyhow::anyhow!("{said}"))
                .with_context(|| format!("{} is in no working tree of git", directory.display()))
                .hint("a job gets its sources from a repository; `git init` makes one");
        }
        let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
        Ok(Self { directory, root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The CI file's path from the top of the repository. A given path is relative to the given directory.
    pub(super) fn ci_file(&self, given: Option<&Path>) -> anyhow::Result<String> {
        let Some(given) = given else { return Ok(CI_FILE.to_owned()) };
        let path = self.directory.join(given);
        let path = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
        let Ok(relative) = path.strip_prefix(&self.root) else {
            bail!("{} is not in the repository {}", path.display(), self.root.display());
        };
        let relative = relative.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        Ok(relative.to_owned())
    }

    /// The default branch, if anything tells it: what the remote says, else a branch of the usual names.
    pub(super) fn default_branch(&self) -> Option<String> {
        let remote_head = self.ask(&["symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"]);
        let named = remote_head.and_then(|head| head.strip_prefix("origin/").map(str::to_owned));
        let usual = || ["main", "master"].into_iter().find(|name| self.branch_tip(name).is_some());
        named.or_else(|| usual().map(str::to_owned))
    }

    /// The commit that a revision names.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let revision = format!("{revision}^{{commit}}");
        self.ask(&["rev-parse", "--verify", "--quiet", "--end-of-options", &revision])
    }

    /// The last commit of a branch, here or at the server.
    pub(super) fn branch_tip(&self, branch: &str) -> Option<String> {
        let places = ["refs/heads", "refs/remotes/origin"];
        places.iter().find_map(|place| self.commit(&format!("{place}/{branch}")))
    }

    pub(super) fn has_tag(&self, name: &str) -> bool {
        self.commit(&format!("refs/tags/{name}")).is_some()
    }

    /// The last commit that the checked out one has in common with another.
    pub(super) fn merge_base(&self, other: &str) -> Option<String> {
        self.ask(&["merge-base", "HEAD", other])
    }

    /// Whether there are changes that are not committed.
    pub(super) fn is_changed(&self) -> bool {
        self.ask(&["status", "--porcelain"]).is_some()
    }

    /// The paths that a command of git lists, each with a null after it.
    pub(super) fn paths(&self, arguments: &[&str]) -> Option<BTreeSet<String>> {
        let output = git(&self.root, arguments).output().ok().filter(|output| output.status.success())?;
        let paths = output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        Some(paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    /// Who runs the job: as the repository's settings say.
    pub(super) fn user(&self) -> User {
        let login =
            std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "local".to_owned());
        let name = self.ask(&["config", "--get", "user.name"]).unwrap_or_else(|| login.clone());
        let email = self.ask(&["config", "--get", "user.email"]).unwrap_or_default();
        User { login, name, email }
    }

    /// The address of the server that the repository is from.
    pub(super) fn server_url(&self) -> String {
        let remote = self.ask(&["config", "--get", "remote.origin.url"]);
        remote.as_deref().and_then(server_of).unwrap_or_else(|| DEFAULT_SERVER.to_owned())
    }

    /// What tells the files' versions apart: the ids of their contents.
    pub(super) fn versions<'a>(&self, files: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
        let version = |file: &str| Some((file.to_owned(), self.ask(&["hash-object", "--", file])?));
        files.filter_map(version).collect()
    }

    fn ask(&self, arguments: &[&str]) -> Option<String> {
        let output = git(&self.root, arguments).output().ok().filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    // No program that the repository's settings name is run.
    command.args(["-c", "core.fsmonitor=false", "-C"]).arg(directory).args(arguments);
    command.env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// The server of a remote's address, without anybody's name or password.
fn server_of(remote: &str) -> Option<String> {
    match remote.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            let authority = rest.split('/').next()?;
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            (!host.is_empty()).then(|| format!("{scheme}://{host}"))
        }
        Some(("ssh", rest)) => host_of(rest.split(['/', ':']).next()?),
        Some(_) => None,
        None if remote.starts_with(['/', '.']) => None,
        None => host_of(remote.split_once(':')?.0),
    }
}

/// `user@host` of ssh: the web page of such a server is at the same host.
fn host_of(authority: &str) -> Option<String> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (host.contains('.')).then(|| format!("https://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_tells_the_server_but_nobodys_password() {
        let servers = [
            "https://me:secret@gitlab.example.com:8443/group/project.git",
            "git@gitlab.example.com:group/project.git",
            "ssh://git@gitlab.example.com:2222/group/project.git",
            "/srv/git/project.git",
            "file:///srv/project.git",
            "alias:project",
        ]
        .map(server_of);
        let https = |host: &str| Some(format!("https://{host}"));
        let (plain, port) = (https("gitlab.example.com"), https("gitlab.example.com:8443"));
        assert_eq!(servers, [port, plain.clone(), plain, None, None, None]);
    }
}
