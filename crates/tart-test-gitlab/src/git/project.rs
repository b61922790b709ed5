//! Control over one project and its repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::git::{CommitBuilder, GitError, Project, Revision, git};
use crate::spec::{JobSpec, Source};
use crate::state::Shared;

/// Control over one project and its bare repository. Methods that write panic when git refuses, with what
/// git said: a test that cannot make its repository cannot go on.
#[derive(Clone, Debug)]
pub struct ProjectHandle {
    shared: Arc<Shared>,
    id: u64,
    path: String,
    repository: PathBuf,
}

impl ProjectHandle {
    /// Creates a project with an empty repository.
    pub(crate) async fn create(shared: Arc<Shared>, path: &str, object_format: &'static str) -> Self {
        let words = path.split('/').all(|word| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !word.is_empty() && !word.starts_with('.') && word.bytes().all(inner)
        });
        assert!(words && path.contains('/'), "{path:?} is not a project path like `group/project`");
        let repository = shared.root.path().join(format!("{path}.git"));
        let id = shared.update(|state| {
            assert!(
                state.projects.values().all(|project| project.path != path),
                "the project {path} is there already"
            );
            let id = state.next_id();
            let project = Project {
                id,
                path: path.into(),
                repository: repository.clone(),
                object_format,
                public: false,
                allowed: [id].into(),
            };
            state.projects.insert(id, project);
            id
        });
        let this = Self { shared, id, path: path.into(), repository };
        std::fs::create_dir_all(&this.repository).expect("the server's directory is writable");
        let format = format!("--object-format={object_format}");
        this.git(["init", "--quiet", "--bare", "--initial-branch=main", &format]).await;
        // As a real server: any commit of the project may be asked for, and partial clones work.
        for setting in ["uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter", "http.uploadpack"] {
            this.git(["config", setting, "true"]).await;
        }
        this.git(["config", "http.receivepack", "false"]).await;
        this
    }

    /// The project's number, `CI_PROJECT_ID`.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The project's path, as `group/app`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The directory of the bare repository.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// The clone URL, without credentials.
    pub fn url(&self) -> String {
        format!("{}/{}.git", self.shared.settings.url, self.path)
    }

    /// The clone URL with a job token in it.
    pub fn url_with_token(&self, token: &str) -> String {
        self.shared.read(|state| {
            crate::payload::repository_url(&self.shared.settings, &state.projects[&self.id], token)
        })
    }

    /// Lets everyone read the project.
    pub fn make_public(&self) {
        self.change(|project| project.public = true);
    }

    /// Lets the jobs of another project read this one, as its job token allowlist does.
    pub fn allow_jobs_of(&self, other: &Self) {
        self.change(|project| {
            project.allowed.insert(other.id);
        });
    }

    /// Starts a commit on a branch, which is created if it is missing.
    pub fn commit(&self, branch: &str) -> CommitBuilder<'_> {
        CommitBuilder::new(self, branch)
    }

    /// Commits one file to `main` and returns the commit.
    pub async fn commit_file(&self, path: &str, contents: impl Into<Vec<u8>>) -> String {
        self.commit("main").file(path, contents).create().await
    }

    /// Points a branch at a commit.
    pub async fn branch(&self, name: &str, sha: &str) {
        self.update_ref(&format!("refs/heads/{name}"), sha).await;
    }

    /// Points a lightweight tag at a commit.
    pub async fn tag(&self, name: &str, sha: &str) {
        self.update_ref(&format!("refs/tags/{name}"), sha).await;
    }

    /// Creates a merge request, or moves its head.
    pub async fn merge_request(&self, iid: u64, sha: &str) {
        self.update_ref(&format!("refs/merge-requests/{iid}/head"), sha).await;
    }

    /// Points any ref at a commit.
    pub async fn update_ref(&self, name: &str, sha: &str) {
        self.git(["update-ref", name, sha]).await;
    }

    /// The commit a ref or another expression stands for.
    pub async fn rev_parse(&self, expression: &str) -> String {
        self.git(["rev-parse", "--verify", &format!("{expression}^{{commit}}")]).await
    }

    /// Copies every branch and tag of a repository on this machine, makes `main` its current commit if it
    /// has no branch of that name, and returns the current commit.
    ///
    /// # Errors
    /// When the directory is no repository, has no commit, or git cannot read it.
    pub async fn import(&self, directory: &Path) -> Result<String, GitError> {
        let source = directory.as_os_str();
        let refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"].map(std::ffi::OsStr::new);
        let fetch = ["fetch", "--quiet", "--update-head-ok"].map(std::ffi::OsStr::new);
        git(&self.repository, fetch.into_iter().chain([source]).chain(refs)).await?;
        let head = std::ffi::OsStr::new("+HEAD:refs/tart/imported");
        git(&self.repository, fetch.into_iter().chain([source, head])).await?;
        let sha = git(&self.repository, ["rev-parse", "--verify", "refs/tart/imported"]).await?;
        if git(&self.repository, ["rev-parse", "--verify", "--quiet", "refs/heads/main"]).await.is_err() {
            git(&self.repository, ["update-ref", "refs/heads/main", &sha]).await?;
        }
        Ok(sha)
    }

    /// Stores an LFS object and returns the pointer that stands for it in a commit.
    pub fn lfs_pointer(&self, contents: &[u8]) -> String {
        let oid = hex::encode(Sha256::digest(contents));
        let objects = self.shared.read(|state| state.projects[&self.id].lfs_objects());
        std::fs::create_dir_all(&objects).expect("the server's directory is writable");
        std::fs::write(objects.join(&oid), contents).expect("the server's directory is writable");
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", contents.len())
    }

    /// What the job of a pipeline builds; also creates the ref that keeps its commit.
    pub(crate) async fn revision(&self, spec: &JobSpec, pipeline_id: u64) -> Revision {
        let (reference, full, is_tag) = match &spec.source {
            Source::Branch(name) => (name.clone(), format!("refs/heads/{name}"), false),
            Source::Tag(name) => (name.clone(), format!("refs/tags/{name}"), true),
            Source::MergeRequest(iid) => {
                let name = format!("refs/merge-requests/{iid}/head");
                (name.clone(), name, false)
            }
        };
        let sha = self.rev_parse(spec.sha.as_ref().unwrap_or(&full)).await;
        self.update_ref(&format!("refs/pipelines/{pipeline_id}"), &sha).await;
        let shown = self.git(["log", "-1", "--format=%an <%ae>%x00%cI%x00%B", &sha]).await;
        let mut parts = shown.splitn(3, '\0').map(String::from);
        let mut part = || parts.next().unwrap_or_default();
        Revision {
            reference,
            before_sha: "0".repeat(sha.len()),
            sha,
            is_tag,
            author: part(),
            timestamp: part(),
            message: part(),
        }
    }

    pub(crate) async fn git<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        git(&self.repository, arguments)
            .await
            .unwrap_or_else(|error| panic!("project {}: {error}", self.path))
    }

    fn change(&self, change: impl FnOnce(&mut Project)) {
        self.shared.update(|state| {
            change(state.projects.get_mut(&self.id).expect("projects are never removed"));
        });
    }
}
