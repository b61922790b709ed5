use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::context::{Product, RunnerScripts, TlsFiles};
use crate::dirs::DirsRequest;

pub(crate) fn context() -> RunnerContext {
    RunnerContext {
        product: Product {
            name: "tart".into(),
            version: "0.1.0".into(),
            revision: "abcdef01".into(),
            os: "linux".into(),
            architecture: "amd64".into(),
        },
        short_token: "t1_abc".into(),
        host_name: None,
        environment: vec![
            ("FROM_CONFIG".into(), "$CI_SERVER config".into()),
            ("SHARED".into(), "config".into()),
        ],
        feature_flags: BTreeMap::new(),
        builds_dir: "/builds".into(),
        cache_dir: "/cache".into(),
        shared_builds_dir: false,
        custom_build_dir: true,
        clean_git_config: true,
        debug_trace_disabled: false,
        concurrent_id: 4,
        concurrent_project_id: 2,
        clone_url: None,
        tls: TlsFiles { ca: Some("PEM\n".into()), ..TlsFiles::default() },
        correlation_id: Some("01HX".into()),
        scripts: RunnerScripts::default(),
        secrets: Vec::new(),
    }
}

fn payload(variables: &str) -> JobPayload {
    let json = format!(
        r#"{{
            "id": 9,
            "token": "job-token-9",
            "git_info": {{"repo_url": "https://gitlab-ci-token:job-token-9@h/g/p.git"}},
            "runner_info": {{"timeout": 3600}},
            "image": {{"name": "alpine:$TAG"}},
            "variables": {variables}
        }}"#
    );
    serde_json::from_str(&json).expect("a payload")
}

fn build(variables: &str, context: &RunnerContext) -> (JobVariables, Vec<String>) {
    let dirs = JobDirs::new(&DirsRequest {
        repo_url: "https://h/g/p.git",
        project_id: 1,
        builds_dir: &context.builds_dir,
        cache_dir: &context.cache_dir,
        shared_by: None,
        clone_path: "",
        clone_path_allowed: true,
        empty_strategy: false,
    });
    let dirs = dirs.expect("good directories");
    let mut warnings = Vec::new();
    let flags = FeatureFlags::defaults();
    (JobVariables::build(&payload(variables), context, &flags, &dirs, &mut warnings), warnings)
}

fn environment(variables: &JobVariables, place: Place) -> BTreeMap<String, String> {
    variables.environment(place, JobStatus::Failed).into_iter().collect()
}

#[test]
fn the_runner_adds_what_it_knows() {
    let (variables, warnings) = build(r#"[{"key": "TAG", "value": "3.20"}]"#, &context());
    assert_eq!(warnings, [""; 0]);
    let seen: Vec<String> = environment(&variables, Place::Job)
        .into_iter()
        .filter(|(key, _)| !key.starts_with("FF_"))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    insta::assert_snapshot!(seen.join("\n"), @"
    CI_BUILDS_DIR=/builds
    CI_CONCURRENT_ID=4
    CI_CONCURRENT_PROJECT_ID=2
    CI_DISPOSABLE_ENVIRONMENT=true
    CI_JOB_IMAGE=alpine:3.20
    CI_JOB_STATUS=failed
    CI_JOB_TIMEOUT=3600
    CI_PROJECT_DIR=/builds/g/p
    CI_RUNNER_EXECUTABLE_ARCH=linux/amd64
    CI_RUNNER_REVISION=abcdef01
    CI_RUNNER_SHORT_TOKEN=t1_abc
    CI_RUNNER_VERSION=0.1.0
    CI_SERVER=yes
    CI_SERVER_TLS_CA_FILE=/builds/g/p.tmp/CI_SERVER_TLS_CA_FILE
    FROM_CONFIG=yes config
    GITLAB_ENV=/builds/g/p.tmp/gitlab_runner_env
    RUNNER_TEMP_PROJECT_DIR=/builds/g/p.tmp
    SHARED=config
    TAG=3.20
    ");
    assert_eq!(environment(&variables, Place::Job)["FF_TIMESTAMPS"], "true");
}

#[test]
fn later_variables_win_and_flags_of_the_job_are_not_exported_as_they_are() {
    let (variables, _) = build(
        r#"[
            {"key": "SHARED", "value": "first"}, {"key": "SHARED", "value": "job"},
            {"key": "CI_SERVER", "value": "no"}, {"key": "CI_DISPOSABLE_ENVIRONMENT", "value": "no"},
            {"key": "FF_TIMESTAMPS", "value": "false"}, {"key": "FF_UNKNOWN", "value": "kept"}
        ]"#,
        &context(),
    );
    let seen = environment(&variables, Place::Job);
    assert_eq!(seen["SHARED"], "job");
    assert_eq!(seen["CI_SERVER"], "no");
    assert_eq!(seen["CI_DISPOSABLE_ENVIRONMENT"], "true");
    assert_eq!(seen["FF_TIMESTAMPS"], "true");
    assert_eq!(seen["FF_UNKNOWN"], "kept");
}

#[test]
fn values_are_expanded_once_from_what_they_were() {
    let (variables, _) = build(
        r#"[
            {"key": "A", "value": "$B"}, {"key": "B", "value": "$C-b"}, {"key": "C", "value": "c"},
            {"key": "RAW", "value": "$C ${C} $$", "raw": true}, {"key": "USES_RAW", "value": "<$RAW>"},
            {"key": "F", "value": "content of $C", "file": true}, {"key": "USES_F", "value": "at $F"},
            {"key": "SELF", "value": "$SELF:x"}
        ]"#,
        &context(),
    );
    let seen = environment(&variables, Place::Job);
    assert_eq!(seen["A"], "$C-b");
    assert_eq!(seen["B"], "c-b");
    assert_eq!(seen["RAW"], "$C ${C} $$");
    assert_eq!(seen["USES_RAW"], "<$C ${C} $$>");
    assert_eq!(seen["F"], "/builds/g/p.tmp/F");
    assert_eq!(seen["USES_F"], "at /builds/g/p.tmp/F");
    assert_eq!(seen["SELF"], "$SELF:x:x");
    assert_eq!(variables.value("F"), Some("content of c"));
    assert_eq!(variables.expand("$F $C"), "/builds/g/p.tmp/F c");
    let files: Vec<_> = variables.files().into_iter().map(|file| (file.path, file.content)).collect();
    assert_eq!(
        files,
        [
            ("/builds/g/p.tmp/CI_SERVER_TLS_CA_FILE".to_owned(), "PEM\n".to_owned()),
            ("/builds/g/p.tmp/F".to_owned(), "content of c".to_owned())
        ]
    );
}

#[test]
fn everything_masked_is_a_phrase() {
    let mut context = context();
    context.secrets = serde_json::from_str(r#"[{"key": "SECRET", "value": "resolved"}]"#).expect("variables");
    let (variables, _) = build(
        r#"[
            {"key": "P", "value": "first", "masked": true}, {"key": "P", "value": "$Q-second", "masked": true},
            {"key": "Q", "value": "open"}, {"key": "F", "value": "file content", "masked": true, "file": true}
        ]"#,
        &context,
    );
    let mut phrases: Vec<&str> = variables.masked_phrases().collect();
    phrases.sort_unstable();
    phrases.dedup();
    assert_eq!(phrases, ["$Q-second", "file content", "first", "job-token-9", "open-second", "resolved"]);
    assert!(!format!("{variables:?} {:?}", variables.files()).contains("file content"));
}

#[test]
fn the_helper_tree_keeps_its_own_loader_and_path() {
    let (variables, _) = build(
        r#"[{"key": "PATH", "value": "/opt"}, {"key": "LD_PRELOAD", "value": "x.so"}, {"key": "HOME", "value": "/h"}]"#,
        &context(),
    );
    let (job, helper) = (environment(&variables, Place::Job), environment(&variables, Place::Helper));
    assert_eq!((job["PATH"].as_str(), job["LD_PRELOAD"].as_str()), ("/opt", "x.so"));
    assert!(!helper.contains_key("PATH") && !helper.contains_key("LD_PRELOAD"));
    assert_eq!(helper["HOME"], "/h");
}

#[test]
fn what_no_program_could_see_is_left_out_with_a_warning() {
    let huge = "x".repeat(LONGEST_ENTRY);
    let (variables, warnings) = build(
        &format!(
            r#"[
                {{"key": "", "value": "a"}}, {{"key": "A=B", "value": "a"}}, {{"key": "N\u0000", "value": "a"}},
                {{"key": "NUL", "value": "a\u0000b"}}, {{"key": "../F", "value": "a", "file": true}},
                {{"key": "HUGE", "value": "{huge}"}}, {{"key": "HUGE_FILE", "value": "{huge}", "file": true}},
                {{"key": "odd-name.x", "value": "kept"}}
            ]"#
        ),
        &context(),
    );
    insta::assert_snapshot!(warnings.join("\n"), @r#"
    variable "" left out: its name cannot be the name of a variable
    variable "A=B" left out: its name cannot be the name of a variable
    variable "N\0" left out: its name cannot be the name of a variable
    variable "NUL" left out: its value contains a NUL byte
    variable "../F" left out: its name cannot be the name of a file
    variable "HUGE" left out: it takes 131078 bytes, and no program starts with more than 131072; make it a file variable
    "#);
    let seen = environment(&variables, Place::Job);
    assert_eq!(seen["odd-name.x"], "kept");
    assert_eq!(seen["HUGE_FILE"], "/builds/g/p.tmp/HUGE_FILE");
}

#[test]
fn services_see_what_is_public_and_their_own() {
    let (variables, _) = build(
        r#"[
            {"key": "PUBLIC", "value": "yes", "public": true}, {"key": "PRIVATE", "value": "no"},
            {"key": "PUBLIC_FILE", "value": "x", "public": true, "file": true}
        ]"#,
        &context(),
    );
    let own =
        r#"[{"key": "OWN", "value": "$PRIVATE $PUBLIC"}, {"key": "RAW", "value": "$PUBLIC", "raw": true}]"#;
    let own: Vec<tart_spec::Variable> = serde_json::from_str(own).expect("variables");
    let seen: BTreeMap<String, String> = variables.service_environment(&own).into_iter().collect();
    assert_eq!((seen["PUBLIC"].as_str(), seen["CI_SERVER"].as_str()), ("yes", "yes"));
    assert_eq!((seen["OWN"].as_str(), seen["RAW"].as_str()), ("no yes", "$PUBLIC"));
    for absent in ["PRIVATE", "PUBLIC_FILE", "CI_SERVER_TLS_CA_FILE", "GITLAB_ENV"] {
        assert!(!seen.contains_key(absent), "{absent}");
    }
}

#[test]
fn a_job_without_a_timeout_has_two_hours() {
    assert_eq!(job_timeout(&payload("[]")), Duration::from_secs(3600));
    let mut payload = payload("[]");
    payload.runner_info.timeout = 0;
    assert_eq!(job_timeout(&payload), Duration::from_secs(7200));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_environment_can_be_given_to_a_program(
        variables in prop::collection::vec((".{0,8}", ".{0,12}", any::<bool>(), any::<bool>()), 0..8),
    ) {
        let variables: Vec<_> = variables
            .into_iter()
            .map(|(key, value, file, raw)| serde_json::json!({"key": key, "value": value, "file": file, "raw": raw}))
            .collect();
        let json = serde_json::Value::from(variables).to_string();
        let (variables, _) = build(&json, &context());
        let environment = variables.environment(Place::Job, JobStatus::Running);
        let mut names: Vec<&str> = environment.iter().map(|(key, _)| key.as_str()).collect();
        for (key, value) in &environment {
            prop_assert!(!key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0'));
        }
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), environment.len());
    }
}
