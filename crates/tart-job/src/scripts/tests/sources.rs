use std::path::Path;
use std::process::Command;

use super::shell::{Guest, Ran};
use crate::dirs::{DirsRequest, JobDirs};
use crate::git::GitConfig;
use crate::scripts::{ScriptOptions, Sources, SourcesError, clear_worktree, get_sources};
use crate::settings::{GitSettings, GitStrategy, JobSettings, SettingDefaults};

/// A guest and the repositories its job can fetch, with a job in the making.
pub(super) struct Project {
    pub(super) guest: Guest,
    pub(super) dirs: JobDirs,
    pub(super) url: String,
    pub(super) sha: String,
    pub(super) refspecs: Vec<String>,
    pub(super) depth: u32,
    pub(super) object_format: &'static str,
    pub(super) settings: GitSettings,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
}

pub(super) fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Settings as a job with these variables has them.
pub(super) fn settings(variables: &[(&str, &str)]) -> GitSettings {
    let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let defaults = SettingDefaults {
        allow_git_fetch: true,
        git_depth: 0,
        job_timeout: std::time::Duration::from_secs(3600),
        debug_trace_disabled: false,
    };
    JobSettings::read(value, defaults, &mut Vec::new()).git
}

impl Project {
    /// A repository with three commits on `main`: `file` holds 1, 2, 3.
    pub(super) fn new() -> Self {
        Self::with_format("sha1")
    }

    pub(super) fn with_format(object_format: &'static str) -> Self {
        let mut guest = Guest::new();
        let mut config = GitConfig::default();
        config.push("protocol.file.allow", "always");
        config.use_lfs();
        for (key, value) in config.environment(0) {
            guest.set(&key, &value);
        }
        let origin = guest.file("origin");
        std::fs::create_dir(&origin).expect("a directory");
        git(&origin, &["init", "-q", "-b", "main", &format!("--object-format={object_format}")]);
        git(&origin, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        for content in ["1", "2", "3"] {
            guest.write("origin/file", content);
            git(&origin, &["add", "."]);
            git(&origin, &["commit", "-q", "-m", content]);
        }
        let sha = git(&origin, &["rev-parse", "HEAD"]);
        git(&origin, &["update-ref", "refs/pipelines/5", "HEAD"]);
        let root = guest.path().to_str().expect("text").to_owned();
        let dirs = JobDirs::new(&DirsRequest {
            repo_url: "https://gitlab.example.com/group/project with space.git",
            project_id: 1,
            builds_dir: &format!("{root}/builds"),
            cache_dir: &format!("{root}/cache"),
            shared_by: None,
            clone_path: "",
            clone_path_allowed: false,
            empty_strategy: false,
        });
        Self {
            url: format!("file://{root}/origin"),
            dirs: dirs.expect("good directories"),
            guest,
            sha,
            refspecs: vec![
                "+refs/pipelines/5:refs/pipelines/5".into(),
                "+refs/heads/main:refs/remotes/origin/main".into(),
            ],
            depth: 0,
            object_format,
            settings: settings(&[]),
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    pub(super) fn script(&self) -> Result<String, SourcesError> {
        get_sources(&Sources {
            dirs: &self.dirs,
            git: &self.settings,
            remote_url: &self.url,
            object_format: self.object_format,
            sha: &self.sha,
            git_ref: "main",
            refspecs: &self.refspecs,
            depth: self.depth,
            clean_git_config: true,
            before: &self.before,
            after: &self.after,
            options: ScriptOptions::default(),
        })
    }

    pub(super) fn run(&self) -> Ran {
        self.guest.run(&["bash"], &self.script().expect("good settings"))
    }

    #[track_caller]
    pub(super) fn run_well(&self) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    pub(super) fn built(&self) -> &Path {
        Path::new(&self.dirs.build_dir)
    }

    pub(super) fn content(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.built().join(file)).ok()
    }

    fn history(&self) -> String {
        git(self.built(), &["rev-list", "--count", "HEAD"])
    }
}

fn log_of(project: &Project, ran: &Ran) -> String {
    ran.stdout
        .replace('\x1b', "^[")
        .replace(&project.dirs.build_dir, "<build dir>")
        .replace(&project.sha[..8], "<sha>")
}

#[test]
fn a_fetch_checks_out_the_commit_and_says_so() {
    let project = Project::new();
    let ran = project.run_well();
    insta::assert_snapshot!(log_of(&project, &ran), @"
    ^[[32;1mFetching changes...^[[0;m
    Initialized empty Git repository in <build dir>/.git/
    ^[[32;1mCreated fresh repository.^[[0;m
    ^[[32;1mChecking out <sha> as detached HEAD (ref is main)...^[[0;m

    ^[[32;1mSkipping Git submodules setup^[[0;m
    ");
    assert_eq!(project.content("file").as_deref(), Some("3"));
    assert_eq!(git(project.built(), &["rev-parse", "HEAD"]), project.sha);
    assert_eq!(git(project.built(), &["rev-parse", "origin/main"]), project.sha);
    assert_eq!(git(project.built(), &["rev-parse", "refs/pipelines/5"]), project.sha);
    assert_eq!(project.history(), "3");
    assert_eq!(git(project.built(), &["config", "remote.origin.url"]), project.url);
}

#[test]
fn depth_limits_the_history_and_can_be_lifted() {
    let mut project = Project::new();
    project.depth = 2;
    let ran = project.run_well();
    assert!(ran.stdout.contains("Fetching changes with git depth set to 2..."));
    assert_eq!(project.history(), "2");
    project.depth = 0;
    let ran = project.run_well();
    assert!(!ran.stdout.contains("Created fresh repository."), "{}", ran.stdout);
    assert_eq!(project.history(), "3");
}

#[test]
fn the_commit_is_built_even_when_the_branch_has_moved() {
    let mut project = Project::new();
    let origin = project.guest.file("origin");
    project.sha = git(&origin, &["rev-parse", "HEAD~1"]);
    project.refspecs = vec![format!("+{}:refs/pipelines/5", project.sha)];
    project.depth = 1;
    project.run_well();
    assert_eq!(project.content("file").as_deref(), Some("2"));
}

#[test]
fn merge_request_and_tag_refs_are_fetched_by_refspec() {
    let mut project = Project::new();
    let origin = project.guest.file("origin");
    git(&origin, &["checkout", "-q", "--detach"]);
    project.guest.write("origin/file", "merged");
    git(&origin, &["commit", "-q", "-a", "-m", "merge request"]);
    git(&origin, &["update-ref", "refs/merge-requests/9/merge", "HEAD"]);
    git(&origin, &["tag", "v1"]);
    project.sha = git(&origin, &["rev-parse", "HEAD"]);
    project.refspecs =
        vec!["+refs/merge-requests/9/merge:refs/pipelines/6".into(), "+refs/tags/v1:refs/tags/v1".into()];
    project.run_well();
    assert_eq!(project.content("file").as_deref(), Some("merged"));
    assert_eq!(git(project.built(), &["rev-parse", "v1"]), project.sha);
}

#[test]
fn repositories_of_sha256_objects_are_fetched_and_fetched_again() {
    let project = Project::with_format("sha256");
    assert_eq!(project.sha.len(), 64);
    project.run_well();
    project.run_well();
    assert_eq!(project.content("file").as_deref(), Some("3"));
}

#[test]
fn a_fetch_keeps_the_repository_and_cleans_the_rest() {
    let mut project = Project::new();
    project.run_well();
    std::fs::write(project.built().join("file"), "changed").expect("a file");
    std::fs::write(project.built().join("left-over"), "").expect("a file");
    std::fs::create_dir(project.built().join("kept")).expect("a directory");
    std::fs::write(project.built().join("kept/x"), "").expect("a file");
    std::fs::write(project.built().join(".git/marker"), "").expect("a file");
    project.settings = settings(&[("GIT_CLEAN_FLAGS", "-ffdx -e kept/")]);
    project.run_well();
    assert_eq!(project.content("file").as_deref(), Some("3"));
    assert_eq!(project.content("left-over"), None);
    assert!(project.content("kept/x").is_some());
    assert!(project.content(".git/marker").is_some());
}

#[test]
fn a_clone_starts_from_nothing() {
    let mut project = Project::new();
    project.run_well();
    std::fs::write(project.built().join(".git/marker"), "").expect("a file");
    project.settings = settings(&[("GIT_STRATEGY", "clone")]);
    let ran = project.run_well();
    assert!(ran.stdout.contains("Created fresh repository."));
    assert_eq!(project.content(".git/marker"), None);
    assert_eq!(project.content("file").as_deref(), Some("3"));
}

#[test]
fn what_an_earlier_job_left_behind_does_no_harm() {
    let project = Project::new();
    project.run_well();
    let evil = format!("touch {}/pwned", project.guest.path().display());
    git(project.built(), &["config", "core.fsmonitor", &evil]);
    git(project.built(), &["config", "core.sshCommand", &evil]);
    for hook in ["post-checkout", "reference-transaction"] {
        let path = project.built().join(".git/hooks").join(hook);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, format!("#!/bin/sh\n{evil}\n")).expect("a hook");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("a mode");
    }
    for lock in ["index.lock", "shallow.lock", "HEAD.lock", "config.lock", "refs/remotes/origin/main.lock"] {
        std::fs::write(project.built().join(".git").join(lock), "").expect("a lock");
    }
    project.run_well();
    assert!(!project.guest.file("pwned").exists());
    assert!(git(project.built(), &["config", "--list"]).contains("fetch.recursesubmodules=false"));
}

#[test]
fn none_touches_nothing_and_empty_leaves_nothing() {
    let mut project = Project::new();
    project.before = vec!["echo hook".into()];
    std::fs::create_dir_all(project.built()).expect("a directory");
    std::fs::write(project.built().join("old"), "").expect("a file");
    project.settings.strategy = GitStrategy::None;
    let ran = project.run_well();
    insta::assert_snapshot!(log_of(&project, &ran), @"
    ^[[32;1mSkipping Git repository setup^[[0;m
    ^[[32;1mSkipping Git checkout^[[0;m
    ^[[32;1mSkipping Git submodules setup^[[0;m
    ");
    assert!(project.content("old").is_some());
    project.settings.strategy = GitStrategy::Empty;
    project.run_well();
    assert_eq!(std::fs::read_dir(project.built()).expect("a directory").count(), 0);
}

#[test]
fn checkout_and_cleaning_can_be_switched_off() {
    let mut project = Project::new();
    project.settings = settings(&[("GIT_CHECKOUT", "false")]);
    let ran = project.run_well();
    assert!(ran.stdout.contains("Skipping Git checkout"));
    assert_eq!(project.content("file"), None);
    std::fs::write(project.built().join("left-over"), "").expect("a file");
    project.settings = settings(&[("GIT_CLEAN_FLAGS", "none")]);
    project.run_well();
    assert!(project.content("left-over").is_some());
}

#[test]
fn hooks_run_around_the_fetch_in_its_shell() {
    let mut project = Project::new();
    project.before = vec!["test ! -e file\nexport FROM_HOOK=yes".into(), "set +e; cd /".into()];
    project.after = vec!["cat file; echo \" $FROM_HOOK\"".into(), "exit 4".into()];
    let ran = project.run();
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stdout.contains("$ test ! -e file # collapsed multi-line command"));
    assert!(ran.stdout.contains("\n3 yes\n"), "{}", ran.stdout);
}

#[test]
fn a_second_attempt_succeeds_after_the_worktree_was_cleared() {
    let mut project = Project::new();
    let good = std::mem::replace(&mut project.url, "file:///nonexistent/repository".into());
    let ran = project.run();
    assert_eq!(ran.code, 128, "{}", ran.stderr);
    std::fs::write(project.built().join("half"), "").expect("a file");
    let ran = project.guest.run(&["bash"], &clear_worktree(&project.dirs, false));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(project.content("half"), None);
    project.url = good;
    project.run_well();
    assert_eq!(project.content("file").as_deref(), Some("3"));

    std::fs::write(project.built().join(".git/index"), "broken").expect("a file");
    assert_ne!(project.run().code, 0);
    assert_eq!(project.guest.run(&["bash"], &clear_worktree(&project.dirs, false)).code, 0);
    assert_eq!(project.content("file"), None);
    project.run_well();
    assert_eq!(project.content("file").as_deref(), Some("3"));
}

#[test]
fn a_missing_commit_fails_the_stage() {
    let mut project = Project::new();
    project.sha = "0123456789012345678901234567890123456789".into();
    let ran = project.run();
    assert_ne!(ran.code, 0);
    assert!(ran.stdout.contains("Checking out 01234567"));
}

#[test]
fn what_git_would_take_for_an_option_is_refused() {
    let mut project = Project::new();
    project.refspecs.push("--upload-pack=touch /tmp/pwned".into());
    let error = project.script().expect_err("an option");
    insta::assert_snapshot!(error, @"the job's refspec `--upload-pack=touch /tmp/pwned` cannot be used with git");
    let mut project = Project::new();
    project.sha = "-x".into();
    assert!(matches!(project.script(), Err(SourcesError::Unusable { what: "commit", .. })));
}

#[test]
fn lfs_objects_are_fetched_unless_the_job_does_not_want_them() {
    let mut project = Project::new();
    let origin = project.guest.file("origin");
    let lfs = ["filter.lfs.clean=git-lfs clean -- %f", "filter.lfs.smudge=git-lfs smudge -- %f"];
    let commit = |arguments: &[&str]| {
        let configured: Vec<&str> =
            lfs.iter().flat_map(|entry| ["-c", entry]).chain(arguments.iter().copied()).collect();
        git(&origin, &configured)
    };
    project.guest.write("origin/.gitattributes", "*.bin filter=lfs -text\n");
    project.guest.write("origin/large.bin", "large content");
    commit(&["add", "."]);
    commit(&["commit", "-q", "-m", "large"]);
    git(&origin, &["update-ref", "refs/pipelines/5", "HEAD"]);
    project.sha = git(&origin, &["rev-parse", "HEAD"]);

    project.settings = settings(&[("GIT_LFS_SKIP_SMUDGE", "true")]);
    project.guest.set("GIT_LFS_SKIP_SMUDGE", "true");
    project.run_well();
    assert!(project.content("large.bin").is_some_and(|text| text.starts_with("version https://git-lfs")));

    project.settings = settings(&[]);
    project.guest.set("GIT_LFS_SKIP_SMUDGE", "");
    project.run_well();
    assert_eq!(project.content("large.bin").as_deref(), Some("large content"));
}
