use super::sources::{Project, git, settings};
use crate::git::GitConfig;
use crate::scripts::SourcesError;

/// A project with the submodules `lib` (relative address) and `tool`; `lib` has the submodule `deep`.
fn project(variables: &[(&str, &str)]) -> Project {
    let mut project = Project::new();
    let root = project.guest.path().to_owned();
    for name in ["deep", "lib", "tool"] {
        let dir = root.join(name);
        std::fs::create_dir(&dir).expect("a directory");
        git(&dir, &["init", "-q", "-b", "main"]);
        for content in ["old", name] {
            std::fs::write(dir.join("name"), content).expect("a file");
            git(&dir, &["add", "."]);
            git(&dir, &["commit", "-q", "-m", content]);
        }
    }
    git(&root.join("lib"), &["submodule", "--quiet", "add", "../deep", "deep"]);
    git(&root.join("lib"), &["commit", "-q", "-m", "deep"]);
    let origin = root.join("origin");
    git(&origin, &["remote", "add", "origin", &project.url]);
    git(&origin, &["submodule", "--quiet", "add", "../lib", "lib"]);
    git(&origin, &["submodule", "--quiet", "add", &format!("file://{}/tool", root.display()), "tool"]);
    git(&origin, &["commit", "-q", "-m", "submodules"]);
    git(&origin, &["update-ref", "refs/pipelines/5", "HEAD"]);
    project.sha = git(&origin, &["rev-parse", "HEAD"]);
    project.settings = settings(variables);
    project
}

#[test]
fn normal_updates_the_first_level_only() {
    let project = project(&[("GIT_SUBMODULE_STRATEGY", "normal")]);
    let ran = project.run_well();
    assert!(ran.stdout.contains("Updating/initializing submodules...\x1b"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Updated submodules"));
    assert_eq!(project.content("lib/name").as_deref(), Some("lib"));
    assert_eq!(project.content("tool/name").as_deref(), Some("tool"));
    assert_eq!(project.content("lib/deep/name"), None);
}

#[test]
fn recursive_updates_all_levels_and_depth_limits_them() {
    let project = project(&[("GIT_SUBMODULE_STRATEGY", "recursive"), ("GIT_SUBMODULE_DEPTH", "1")]);
    let ran = project.run_well();
    assert!(ran.stdout.contains("submodules recursively with git depth set to 1..."), "{}", ran.stdout);
    assert_eq!(project.content("lib/deep/name").as_deref(), Some("deep"));
    assert_eq!(git(&project.built().join("tool"), &["rev-list", "--count", "HEAD"]), "1");
}

#[test]
fn without_a_strategy_submodules_stay_away() {
    let project = project(&[]);
    let ran = project.run_well();
    assert!(ran.stdout.contains("Skipping Git submodules setup"));
    assert_eq!(project.content("lib/name"), None);
}

#[test]
fn paths_choose_submodules() {
    let chosen = project(&[("GIT_SUBMODULE_STRATEGY", "normal"), ("GIT_SUBMODULE_PATHS", "tool")]);
    chosen.run_well();
    assert_eq!((chosen.content("lib/name"), chosen.content("tool/name").as_deref()), (None, Some("tool")));

    let excluded =
        project(&[("GIT_SUBMODULE_STRATEGY", "normal"), ("GIT_SUBMODULE_PATHS", ":(exclude)tool")]);
    excluded.run_well();
    assert_eq!((excluded.content("lib/name").as_deref(), excluded.content("tool/name")), (Some("lib"), None));
}

#[test]
fn a_second_job_in_the_same_directory_finds_clean_submodules() {
    let project = project(&[("GIT_SUBMODULE_STRATEGY", "recursive")]);
    project.run_well();
    let lib = project.built().join("lib");
    std::fs::write(lib.join("name"), "changed").expect("a file");
    std::fs::write(lib.join("left-over"), "").expect("a file");
    let evil = format!("touch {}/pwned", project.guest.path().display());
    git(&lib, &["config", "core.fsmonitor", &evil]);
    std::fs::write(project.built().join(".git/modules/tool/index.lock"), "").expect("a lock");
    project.run_well();
    assert_eq!(project.content("lib/name").as_deref(), Some("lib"));
    assert_eq!(project.content("lib/deep/name").as_deref(), Some("deep"));
    assert_eq!(project.content("lib/left-over"), None);
    let deep = git(&project.built().join("lib/deep"), &["remote", "get-url", "origin"]);
    assert_eq!(deep, format!("file://{}/deep", project.guest.path().display()));
    assert!(!project.guest.file("pwned").exists());
}

#[test]
fn the_remote_flag_follows_the_branch_of_a_submodule_in_a_kept_directory() {
    let project = project(&[
        ("GIT_SUBMODULE_STRATEGY", "normal"),
        ("GIT_SUBMODULE_UPDATE_FLAGS", "--remote"),
        ("GIT_SUBMODULE_DEPTH", "1"),
    ]);
    project.run_well();
    let tool = project.guest.file("tool");
    std::fs::write(tool.join("name"), "newer").expect("a file");
    git(&tool, &["commit", "-q", "-a", "-m", "newer"]);
    project.run_well();
    assert_eq!(project.content("tool/name").as_deref(), Some("newer"));
}

#[test]
fn a_failing_update_is_tried_again_and_then_fails_the_stage() {
    let project = project(&[("GIT_SUBMODULE_STRATEGY", "normal")]);
    std::fs::rename(project.guest.file("tool"), project.guest.file("gone")).expect("a move");
    let ran = project.run();
    assert_ne!(ran.code, 0);
    assert!(ran.stdout.contains("Updating submodules failed. Retrying..."), "{}", ran.stdout);
}

#[test]
fn settings_that_cannot_be_followed_are_named() {
    let mut project = project(&[("GIT_SUBMODULE_STRATEGY", "all")]);
    insta::assert_snapshot!(
        project.script().expect_err("no strategy"),
        @"unknown GIT_SUBMODULE_STRATEGY `all`: use none, normal or recursive"
    );
    project.settings =
        settings(&[("GIT_SUBMODULE_STRATEGY", "normal"), ("GIT_SUBMODULE_PATHS", ":(exclude) tool")]);
    assert_eq!(project.script(), Err(SourcesError::SubmodulePaths));
}

#[test]
fn the_environments_configuration_reaches_git_in_submodules() {
    let mut project = project(&[("GIT_SUBMODULE_STRATEGY", "recursive")]);
    let mut config = GitConfig::default();
    config.push("protocol.file.allow", "always");
    config.push("credential.https://gitlab.example.com.helper", "!the-helper");
    for (key, value) in config.environment(0) {
        project.guest.set(&key, &value);
    }
    let ask = "git config --get-urlmatch credential.helper https://gitlab.example.com/any/path.git";
    project.after = vec![format!("git submodule --quiet foreach --recursive '{ask}'")];
    let ran = project.run_well();
    assert_eq!(ran.stdout.matches("\n!the-helper").count(), 3, "{}", ran.stdout);
}
