use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use tart_spec::FailureReason;

use super::*;
use crate::variables::tests::context;

fn payload(json: serde_json::Value) -> JobPayload {
    serde_json::from_value(json).expect("a payload")
}

fn job(variables: serde_json::Value) -> JobPayload {
    payload(serde_json::json!({
        "id": 9,
        "token": "t0ken",
        "allow_git_fetch": true,
        "job_info": {"project_id": 3},
        "git_info": {
            "repo_url": "https://gitlab-ci-token:t0ken@gitlab.example.com/g/p.git",
            "ref": "main", "sha": "0123456789", "refspecs": ["+refs/pipelines/1:refs/pipelines/1"], "depth": 20
        },
        "variables": variables,
        "steps": [{"name": "script", "script": ["true"]}],
        "features": {"trace_sections": true, "token_mask_prefixes": ["corp-"]}
    }))
}

fn plan(payload: &JobPayload) -> JobPlan {
    JobPlan::new(payload, &context()).expect("a plan")
}

#[test]
fn the_clone_path_may_use_variables() {
    let path =
        serde_json::json!([{"key": "GIT_CLONE_PATH", "value": "$CI_BUILDS_DIR/$CI_CONCURRENT_ID/here"}]);
    let plan = plan(&job(path));
    assert_eq!(plan.dirs.build_dir, "/builds/4/here");
    assert_eq!(plan.variables.value("CI_PROJECT_DIR"), Some("/builds/4/here"));
    assert_eq!(plan.variables.value("RUNNER_TEMP_PROJECT_DIR"), Some("/builds/4/here.tmp"));

    let outside = job(serde_json::json!([{"key": "GIT_CLONE_PATH", "value": "$CI_BUILDS_DIR/../etc"}]));
    let error = JobPlan::new(&outside, &context()).expect_err("outside");
    insta::assert_snapshot!(error, @r#"the GIT_CLONE_PATH="/builds/../etc" has to be within "/builds""#);
    assert_eq!(Failure::from(error).reason(), FailureReason::RunnerConfigurationError);
}

#[test]
fn jobs_that_ask_for_what_nobody_has_are_refused() {
    let mut refused = job(serde_json::json!([]));
    refused.image =
        serde_json::from_str(r#"{"name": "a", "executor_opts": {"docker": {"gpus": 1}, "x": {}}}"#)
            .expect("an image");
    let error = JobPlan::new(&refused, &context()).expect_err("options");
    insta::assert_snapshot!(error, @"unsupported executor options: image: docker.gpus, image: x");
    assert_eq!(Failure::from(error).reason(), FailureReason::RunnerSystemFailure);

    let mut refused = job(serde_json::json!([]));
    refused.run = "[]".into();
    let error = JobPlan::new(&refused, &context()).expect_err("native steps");
    insta::assert_snapshot!(error, @"the `run` keyword is not supported by this runner; use `script`");
    assert_eq!(Failure::from(error).reason(), FailureReason::RunnerConfigurationError);
}

#[test]
fn the_empty_strategy_has_a_directory_of_its_own() {
    let plan = plan(&job(serde_json::json!([{"key": "GIT_STRATEGY", "value": "empty"}])));
    assert_eq!(plan.dirs.build_dir, "/builds/g/p-empty");
    assert_eq!(plan.dirs.temp_dir, "/builds/g/p-empty.tmp");
}

#[test]
fn warnings_are_given_once() {
    let plan = plan(&job(serde_json::json!([
        {"key": "GIT_STRATEGY", "value": "pull"}, {"key": "A=B", "value": ""}, {"key": "FF_TIMESTAMPS", "value": "maybe"}
    ])));
    insta::assert_snapshot!(plan.warnings.join("\n"), @r#"
    feature flag FF_TIMESTAMPS ignored: `maybe` is neither true nor false
    variable "A=B" left out: its name cannot be the name of a variable
    GIT_STRATEGY: expected clone, fetch, none or empty, got `pull`; using the default
    "#);
}

#[test]
fn the_token_is_in_the_environment_only() {
    let payload = job(serde_json::json!([{"key": "CI_JOB_TOKEN", "value": "t0ken", "masked": true}]));
    let plan = plan(&payload);
    for planned in &plan.stages {
        if let Some(script) = plan.script(&planned.stage, &payload, &context()).expect("a script") {
            assert!(!script.contains("t0ken"), "{:?}: {script}", planned.stage);
        }
    }
    for stage in [Stage::GetSources, Stage::Step("script".into())] {
        let environment = plan.environment(&stage, JobStatus::Running, &context());
        let holders: Vec<&str> = environment
            .iter()
            .filter(|(_, value)| value.contains("t0ken"))
            .map(|(key, _)| key.as_str())
            .collect();
        assert_eq!(holders, ["CI_JOB_TOKEN"]);
    }
    assert!(!format!("{plan:?}").contains("t0ken"));
    assert_eq!(
        plan.log_options(&payload).mask.mask("t0ken corp-x glpat-y"),
        "[MASKED] corp-[MASKED] glpat-[MASKED]"
    );
}

#[test]
fn git_is_configured_for_the_helper_and_for_the_user() {
    let payload = job(serde_json::json!([
        {"key": "CI_JOB_TOKEN", "value": "t0ken"},
        {"key": "GIT_CONFIG_COUNT", "value": "1"},
        {"key": "GIT_CONFIG_KEY_0", "value": "user.name"}, {"key": "GIT_CONFIG_VALUE_0", "value": "me"},
        {"key": "GIT_SUBMODULE_FORCE_HTTPS", "value": "true"},
        {"key": "CI_SERVER_SHELL_SSH_HOST", "value": "ssh.example.com"}
    ]));
    let plan = plan(&payload);
    let config = |stage: Stage| {
        let environment = plan.environment(&stage, JobStatus::Running, &context());
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let count: usize = environment["GIT_CONFIG_COUNT"].parse().expect("a number");
        (0..count).map(|n| environment[&format!("GIT_CONFIG_KEY_{n}")].clone()).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(config(Stage::Step("script".into())), @"
    user.name
    safe.directory
    credential.https://gitlab.example.com.helper
    http.https://gitlab.example.com/.sslCAInfo
    ");
    insta::assert_snapshot!(config(Stage::GetSources), @"
    user.name
    safe.directory
    credential.https://gitlab.example.com.helper
    http.https://gitlab.example.com/.sslCAInfo
    http.userAgent
    filter.lfs.clean
    filter.lfs.smudge
    filter.lfs.process
    filter.lfs.required
    transfer.bundleURI
    http.https://gitlab.example.com/.extraHeader
    url.https://gitlab.example.com/.insteadOf
    url.https://gitlab.example.com/.insteadOf
    url.https://gitlab.example.com/.insteadOf
    ");
}

#[test]
fn the_lines_of_a_release_are_expanded_by_the_runner() {
    let mut payload = job(serde_json::json!([{"key": "TAG", "value": "v1"}]));
    let lines = serde_json::json!([
        {"name": "script", "script": ["echo $TAG"]},
        {"name": "release", "script": ["release-cli create --tag-name $TAG"]}
    ]);
    payload.steps = serde_json::from_value(lines).expect("steps");
    let plan = plan(&payload);
    let script = |name: &str| {
        let script = plan.script(&Stage::Step(name.into()), &payload, &context());
        script.expect("no error").expect("a script")
    };
    assert!(script("script").contains("\necho $TAG\n"));
    assert!(script("release").contains("\nrelease-cli create --tag-name v1\n"));
}

fn run(stage: &Stage, plan: &JobPlan, payload: &JobPayload, context: &RunnerContext) -> (i32, String) {
    let script = plan.script(stage, payload, context).expect("no error").expect("a script");
    let file = Path::new(&context.builds_dir).join("script");
    std::fs::write(&file, script).expect("a script");
    for variable_file in plan.variables.files() {
        std::fs::write(variable_file.path, variable_file.content).expect("a file");
    }
    let mut environment = plan.environment(stage, JobStatus::Success, context);
    let inherited = std::env::var("PATH").expect("tests have a PATH");
    environment.extend([("PATH".into(), inherited), ("HOME".into(), context.builds_dir.clone())]);
    let output = Command::new("bash")
        .arg(&file)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .expect("bash is installed");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("an exit code"), text)
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_whole_job_runs_from_its_scripts_and_environments() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let origin = root.path().join("origin");
    std::fs::create_dir(&origin).expect("a directory");
    git(&origin, &["init", "-q", "-b", "main"]);
    std::fs::write(origin.join("file"), "from git").expect("a file");
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "-q", "-m", "first"]);
    let sha = git(&origin, &["rev-parse", "HEAD"]);

    let builds_dir = root.path().join("builds");
    std::fs::create_dir(&builds_dir).expect("a directory");
    let mut context = context();
    context.builds_dir = builds_dir.to_str().expect("text").to_owned();
    context.host_name = Some("host-1".into());
    context.scripts.pre_get_sources = "echo before sources".into();
    context.scripts.pre_build = "export FROM_RUNNER='pre build'\n".into();
    context.scripts.post_build = "echo post build".into();
    let payload = payload(serde_json::json!({
        "id": 9, "token": "t0ken", "allow_git_fetch": true, "job_info": {"project_id": 3},
        "git_info": {
            "repo_url": format!("file://{}", origin.display()), "ref": "main", "sha": sha,
            "refspecs": ["+refs/heads/main:refs/remotes/origin/main"], "depth": 1
        },
        "hooks": [{"name": "post_get_sources_script", "script": ["echo hook > from-hook"]}],
        "variables": [
            {"key": "CERT", "value": "line 1\nline 2", "file": true},
            {"key": "RAW", "value": "$HOME 'x' \"y\"", "raw": true}
        ],
        "steps": [
            {"name": "script", "script": [
                "cat file from-hook \"$CERT\"", "echo; echo \"$RAW|$FROM_RUNNER\"", "echo \"LATER=a b\" >> $GITLAB_ENV"
            ]},
            {"name": "after_script", "script": ["echo $CI_JOB_STATUS $LATER", "git remote get-url origin"]}
        ]
    }));
    let plan = JobPlan::new(&payload, &context).expect("a plan");
    std::fs::create_dir_all(&plan.dirs.temp_dir).expect("the guest's tmpfs");

    let mut shown = String::new();
    for planned in plan.stages.iter().filter(|planned| planned.stage != Stage::PrepareExecutor) {
        let (code, text) = run(&planned.stage, &plan, &payload, &context);
        assert_eq!(code, 0, "{:?}: {text}", planned.stage);
        shown.push_str(&format!("-- {}\n{text}", planned.stage.name()));
    }
    let host = Command::new("uname").arg("-n").output().expect("uname").stdout;
    let host = format!("Running on {}", String::from_utf8_lossy(&host).trim());
    let shown = shown
        .replace('\x1b', "^[")
        .replace(&plan.dirs.build_dir, "<build dir>")
        .replace(root.path().to_str().expect("text"), "<root>")
        .replace(&host, "Running on <host>")
        .replace(&sha[..8], "<sha>");
    insta::assert_snapshot!(shown, @r#"
    -- prepare_script
    Running on <host> via host-1...
    -- get_sources
    ^[[32;1m$ echo before sources^[[0;m
    before sources
    ^[[32;1mFetching changes with git depth set to 1...^[[0;m
    Initialized empty Git repository in <build dir>/.git/
    ^[[32;1mCreated fresh repository.^[[0;m
    ^[[32;1mChecking out <sha> as detached HEAD (ref is main)...^[[0;m

    ^[[32;1mSkipping Git submodules setup^[[0;m
    ^[[32;1m$ echo hook > from-hook^[[0;m
    -- step_script
    ^[[32;1m$ export FROM_RUNNER='pre build'^[[0;m
    ^[[32;1m$ cat file from-hook "$CERT"^[[0;m
    from githook
    line 1
    line 2^[[32;1m$ echo; echo "$RAW|$FROM_RUNNER"^[[0;m

    $HOME 'x' "y"|pre build
    ^[[32;1m$ echo "LATER=a b" >> $GITLAB_ENV^[[0;m
    ^[[32;1m$ echo post build^[[0;m
    post build
    -- after_script
    ^[[32;1m$ echo $CI_JOB_STATUS $LATER^[[0;m
    success a b
    ^[[32;1m$ git remote get-url origin^[[0;m
    file://<root>/origin
    -- cleanup_file_variables
    "#);
    assert_eq!(std::fs::read_dir(&plan.dirs.temp_dir).expect("a directory").count(), 0);
}
