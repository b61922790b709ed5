//! Where a job's files are, and what its VM is called.

use std::fmt;

/// Why a job has no directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirsError {
    /// The project's path would leave the builds directory.
    #[error("the repository path `{0}` contains `..`")]
    UnsafeProjectPath(String),
    /// `builds_dir` or `cache_dir` is not usable.
    #[error("`{name}` must be an absolute path, but is `{path}`; correct it in config.toml")]
    NotAbsolute {
        /// The key of the configuration.
        name: &'static str,
        /// Its value.
        path: String,
    },
    /// The job sets `GIT_CLONE_PATH` and the runner does not allow it.
    #[error("setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature")]
    ClonePathNotAllowed,
    /// `GIT_CLONE_PATH` is outside of the builds directory.
    #[error("the GIT_CLONE_PATH=\"{path}\" has to be within \"{builds_dir}\"")]
    ClonePathOutside {
        /// The path after expansion.
        path: String,
        /// The directory it must be in.
        builds_dir: String,
    },
}

/// What the directories depend on. `Debug` does not show the URL, for it holds credentials.
#[derive(Clone, Copy)]
pub struct DirsRequest<'a> {
    /// `git_info.repo_url`.
    pub repo_url: &'a str,
    /// The project's id.
    pub project_id: i64,
    /// Absolute.
    pub builds_dir: &'a str,
    /// Absolute.
    pub cache_dir: &'a str,
    /// The part of the path that keeps jobs apart that share `builds_dir`: runner and number.
    pub shared_by: Option<(&'a str, u32)>,
    /// `GIT_CLONE_PATH` after expansion; empty when not set.
    pub clone_path: &'a str,
    /// Whether `GIT_CLONE_PATH` may be set.
    pub clone_path_allowed: bool,
    /// The git strategy is `empty`.
    pub empty_strategy: bool,
}

impl fmt::Debug for DirsRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirsRequest")
            .field("project_id", &self.project_id)
            .field("builds_dir", &self.builds_dir)
            .field("clone_path", &self.clone_path)
            .finish_non_exhaustive()
    }
}

/// A job's directories: absolute paths in the guest, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDirs {
    /// `CI_BUILDS_DIR`.
    pub builds_dir: String,
    /// The project's path within a builds or cache directory, such as `group/project`.
    pub project_slug: String,
    /// `CI_PROJECT_DIR`.
    pub build_dir: String,
    /// `RUNNER_TEMP_PROJECT_DIR`: file variables, scripts, the `GITLAB_ENV` file.
    pub temp_dir: String,
    /// The project's part of the cache directory.
    pub cache_dir: String,
}

impl JobDirs {
    /// Decides the directories.
    ///
    /// # Errors
    /// The configuration or the job asks for a place that is not allowed.
    pub fn new(request: &DirsRequest<'_>) -> Result<Self, DirsError> {
        let builds_dir = absolute("builds_dir", request.builds_dir)?;
        let cache_dir = absolute("cache_dir", request.cache_dir)?;
        let project_slug = project_slug(request.repo_url, request.project_id)?;
        let mut build_dir = if request.clone_path.is_empty() {
            match request.shared_by {
                Some((runner, number)) => join(&builds_dir, &format!("{runner}/{number}/{project_slug}")),
                None => join(&builds_dir, &project_slug),
            }
        } else {
            custom_build_dir(request, &builds_dir)?
        };
        if request.empty_strategy {
            build_dir.push_str("-empty");
        }
        Ok(Self {
            temp_dir: format!("{build_dir}.tmp"),
            cache_dir: join(&cache_dir, &project_slug),
            builds_dir,
            project_slug,
            build_dir,
        })
    }

    /// The file that `GITLAB_ENV` names.
    pub fn gitlab_env(&self) -> String {
        format!("{}/gitlab_runner_env", self.temp_dir)
    }
}

fn custom_build_dir(request: &DirsRequest<'_>, builds_dir: &str) -> Result<String, DirsError> {
    if !request.clone_path_allowed {
        return Err(DirsError::ClonePathNotAllowed);
    }
    let outside = || DirsError::ClonePathOutside {
        path: request.clone_path.to_owned(),
        builds_dir: builds_dir.to_owned(),
    };
    let path = clean(request.clone_path).filter(|path| path.starts_with('/')).ok_or_else(outside)?;
    let below = path.strip_prefix(builds_dir.trim_end_matches('/')).and_then(|below| below.strip_prefix('/'));
    // The builds directory itself would be deleted by the `clone` strategy, and has no place for `.tmp` beside it.
    if below.is_none_or(str::is_empty) { Err(outside()) } else { Ok(path) }
}

fn absolute(name: &'static str, path: &str) -> Result<String, DirsError> {
    let cleaned = clean(path).filter(|path| path.starts_with('/'));
    cleaned.ok_or_else(|| DirsError::NotAbsolute { name, path: path.to_owned() })
}

/// Resolves `.` and `..` and doubled slashes in the text of a path. `None` when it climbs above its beginning, or
/// holds what no path can.
fn clean(path: &str) -> Option<String> {
    if path.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    Some(format!("{root}{}", parts.join("/")))
}

fn join(dir: &str, below: &str) -> String {
    format!("{}/{below}", dir.trim_end_matches('/'))
}

/// The path of a repository URL, without `.git`; `project-<id>` when there is none.
fn project_slug(repo_url: &str, project_id: i64) -> Result<String, DirsError> {
    let Some(path) =
        url::Url::parse(repo_url).ok().filter(|url| !url.cannot_be_a_base()).map(|_| raw_path(repo_url))
    else {
        return Ok(format!("project-{project_id}"));
    };
    if path.contains('\0') || path.split('/').any(|part| part == ".." || part.eq_ignore_ascii_case("%2e%2e"))
    {
        return Err(DirsError::UnsafeProjectPath(path.to_owned()));
    }
    let path = path.trim_end_matches('/');
    let slug = clean(path.strip_suffix(".git").unwrap_or(path)).unwrap_or_default();
    let slug = slug.trim_start_matches('/');
    if slug.is_empty() { Ok(format!("project-{project_id}")) } else { Ok(slug.to_owned()) }
}

/// The path as it is written: a parsed URL has already lost its `..`.
fn raw_path(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |slash| &after_scheme[slash..]);
    path.split(['?', '#']).next().unwrap_or_default()
}

/// `runner-<short token>-project-<project>-concurrent-<number>`: the name shared by the jobs that take turns.
pub fn concurrent_name(short_token: &str, project_id: i64, concurrent_project_id: u32) -> String {
    dns_label(&format!("runner-{short_token}-project-{project_id}-concurrent-{concurrent_project_id}"))
}

/// `runner-<short token>-<project>-<number>-<job>`: the job's own name, and its guest's host name.
pub fn job_name(short_token: &str, project_id: i64, concurrent_project_id: u32, job_id: i64) -> String {
    dns_label(&format!("runner-{short_token}-{project_id}-{concurrent_project_id}-{job_id}"))
}

/// Makes a name a label of RFC 1123: at most 63 of `a-z`, `0-9` and `-`, with neither end a dash.
fn dns_label(name: &str) -> String {
    let label: String = name
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .take(63)
        .collect();
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: DirsRequest<'static> = DirsRequest {
        repo_url: "https://gitlab-ci-token:secret@gitlab.example.com/group/sub/project.git",
        project_id: 7,
        builds_dir: "/builds",
        cache_dir: "/cache/",
        shared_by: None,
        clone_path: "",
        clone_path_allowed: true,
        empty_strategy: false,
    };

    fn build_dir(request: &DirsRequest<'_>) -> Result<String, DirsError> {
        JobDirs::new(request).map(|dirs| dirs.build_dir)
    }

    #[test]
    fn directories_follow_the_project_path() {
        let dirs = JobDirs::new(&REQUEST).expect("good request");
        assert_eq!(dirs.project_slug, "group/sub/project");
        assert_eq!(dirs.build_dir, "/builds/group/sub/project");
        assert_eq!(dirs.temp_dir, "/builds/group/sub/project.tmp");
        assert_eq!(dirs.cache_dir, "/cache/group/sub/project");
        assert_eq!(dirs.gitlab_env(), "/builds/group/sub/project.tmp/gitlab_runner_env");
        let shared = DirsRequest { shared_by: Some(("t1_abc", 3)), empty_strategy: true, ..REQUEST };
        assert_eq!(build_dir(&shared).as_deref(), Ok("/builds/t1_abc/3/group/sub/project-empty"));
    }

    #[test]
    fn a_url_without_a_path_falls_back_to_the_project_id() {
        for repo_url in
            ["", "https://gitlab.example.com", "https://gitlab.example.com/.git", "mailto:x", "nonsense"]
        {
            assert_eq!(build_dir(&DirsRequest { repo_url, ..REQUEST }).as_deref(), Ok("/builds/project-7"));
        }
    }

    #[test]
    fn a_project_path_cannot_climb() {
        for repo_url in ["https://h/../../etc/x.git", "https://h/a/%2e%2E/x.git", "https://h/a/..?q"] {
            let error = build_dir(&DirsRequest { repo_url, ..REQUEST });
            assert!(matches!(error, Err(DirsError::UnsafeProjectPath(_))), "{repo_url}");
        }
    }

    #[test]
    fn a_clone_path_must_lie_in_the_builds_directory() {
        let at = |clone_path| build_dir(&DirsRequest { clone_path, ..REQUEST });
        assert_eq!(at("/builds/go/src/x/"), Ok("/builds/go/src/x".to_owned()));
        assert_eq!(at("/builds/a/../b"), Ok("/builds/b".to_owned()));
        for path in
            ["/builds", "/builds/", "/builds/a/..", "/builds/../etc", "/buildsx/a", "builds/a", "/../builds"]
        {
            assert!(matches!(at(path), Err(DirsError::ClonePathOutside { .. })), "{path}");
        }
        insta::assert_snapshot!(at("/etc").unwrap_err(), @r#"the GIT_CLONE_PATH="/etc" has to be within "/builds""#);
        let refused = DirsRequest { clone_path: "/builds/a", clone_path_allowed: false, ..REQUEST };
        assert_eq!(build_dir(&refused), Err(DirsError::ClonePathNotAllowed));
    }

    #[test]
    fn configured_directories_must_be_absolute() {
        let error = build_dir(&DirsRequest { builds_dir: "builds", ..REQUEST }).unwrap_err();
        insta::assert_snapshot!(error, @"`builds_dir` must be an absolute path, but is `builds`; correct it in config.toml");
    }

    #[test]
    fn names_are_dns_labels() {
        assert_eq!(concurrent_name("t1_aBc-X", 12, 0), "runner-t1abc-x-project-12-concurrent-0");
        assert_eq!(job_name("abc", 12, 1, 99), "runner-abc-12-1-99");
        assert!(job_name(&"x".repeat(80), 1, 1, 1).len() <= 63);
    }

    proptest! {
        #[test]
        fn every_accepted_directory_lies_in_the_builds_directory(
            repo_url in ".*|https://h/[./a%2e-]{0,20}",
            clone_path in "|/builds/[./a]{0,12}|.*",
        ) {
            let request = DirsRequest { repo_url: &repo_url, clone_path: &clone_path, ..REQUEST };
            if let Ok(dirs) = JobDirs::new(&request) {
                prop_assert!(dirs.build_dir.starts_with("/builds/"));
                prop_assert!(dirs.build_dir.split('/').all(|part| part != ".."));
                prop_assert!(dirs.cache_dir.split('/').all(|part| part != ".."));
            }
        }
    }
}
