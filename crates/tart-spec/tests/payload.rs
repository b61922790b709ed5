//! Jobs as servers send them.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tart_spec::{ExecutorOptions, JobPayload, When};

fn parse(value: Value) -> JobPayload {
    serde_json::from_value(value).expect("a payload")
}

/// A job with something in every part of it.
fn rich() -> Value {
    json!({
        "id": 4711, "token": "glcbt-s3cret", "allow_git_fetch": true, "a_key_of_the_future": {"x": [1]},
        "job_info": {
            "id": 4711, "name": "build", "stage": "test", "pipeline_id": 12, "project_id": 7,
            "project_name": "Project", "project_full_path": "group/project", "namespace_id": 2,
            "root_namespace_id": 1, "organization_id": 1, "instance_id": "i", "instance_uuid": "u", "user_id": 5,
            "scoped_user_id": null, "time_in_queue_seconds": 1.25, "queue_size": 3, "queue_depth": 1,
            "project_jobs_running_on_instance_runners_count": "+Inf"
        },
        "git_info": {
            "repo_url": "https://gitlab-ci-token:glcbt-s3cret@gitlab.example.com/group/project.git",
            "repo_object_format": "sha1", "ref": "main", "sha": "0123456789abcdef", "before_sha": "00",
            "ref_type": "branch", "refspecs": ["+refs/pipelines/12:refs/pipelines/12"], "depth": 20, "protected": true
        },
        "runner_info": {"timeout": 3600, "runner_session_url": null, "uuid": "r"},
        "inputs": [{"key": "level", "value": {"type": "string", "content": "s3cret", "sensitive": true}}],
        "variables": [
            {"key": "CI", "value": "true", "public": true, "masked": false, "file": false, "raw": false},
            {"key": "PASSWORD", "value": "s3cret", "public": false, "masked": true, "file": true, "raw": true},
            {"key": "EMPTY", "value": null}
        ],
        "steps": [
            {"name": "script", "script": ["make"], "timeout": 3600, "when": "on_success", "allow_failure": false},
            {"name": "after_script", "script": ["true"], "timeout": null, "when": "always", "allow_failure": true}
        ],
        "image": {
            "name": "alpine:3.22", "alias": null, "entrypoint": [""], "ports": [{"number": 80, "protocol": "http"}],
            "pull_policy": ["always"], "executor_opts": {"docker": {"user": 1000, "gpus": "all"}}
        },
        "services": [{
            "name": "postgres", "alias": "db, pg  sql", "command": ["-v"], "executor_opts": {"nomad": {}},
            "variables": [{"key": "POSTGRES_PASSWORD", "value": "s3cret"}]
        }],
        "artifacts": [{
            "name": null, "paths": ["out/"], "exclude": ["out/*.o"], "when": "always", "artifact_type": "archive",
            "artifact_format": "zip", "expire_in": "1 week"
        }],
        "cache": [{
            "key": "k-non_protected", "untracked": false, "policy": "$POLICY", "paths": ["c"], "when": "${{ x }}",
            "fallback_keys": ["f"]
        }],
        "credentials": [{"type": "registry", "url": "r:5000", "username": "u", "password": "s3cret"}],
        "dependencies": [
            {"id": 1, "token": "s3cret", "name": "a", "artifacts_file": {"filename": "a.zip", "size": 9}},
            {"id": 2, "token": "s3cret", "name": "b", "artifacts_file": null},
            {"id": 3, "token": "s3cret", "name": "c", "artifacts_file": {"filename": null, "size": null}}
        ],
        "features": {
            "trace_sections": true, "token_mask_prefixes": ["corp-"], "failure_reasons": ["unknown_failure"],
            "tracing": {"trace_id": "t", "otel_endpoints": [
                {"url": "https://o", "auth": {"type": "x", "http_bearer_gcp_oidc": {"audience": "a"}}}
            ]}
        },
        "secrets": {
            "DB": {"vault": {
                "server": {"url": "https://v", "auth": {"name": "jwt", "path": "jwt", "data": {"jwt": "s3cret"}}},
                "engine": {"name": "kv-v2", "path": "kv"}, "path": "db", "field": "password"
            }},
            "ACCESS": {"aws_secrets_manager": {"secret_id": "s", "server": {"jwt": "s3cret"}}, "file": false}
        },
        "hooks": [{"name": "pre_get_sources_script", "script": ["echo"]}],
        "run": "[{\"name\":\"a\"}]",
        "policy_options": {"execution_policy_job": true, "policy_name": "p"},
        "suspend_options": {"suspend_on_failure": true}
    })
}

#[test]
fn a_rich_job_is_read_in_full() {
    let job = parse(rich());
    assert_eq!((job.id, job.token.as_str(), job.allow_git_fetch), (4711, "glcbt-s3cret", true));
    assert_eq!(job.job_info.time_in_queue_seconds, 1.25);
    assert_eq!((job.git_info.r#ref.as_str(), job.git_info.protected), ("main", Some(true)));
    assert_eq!(job.runner_info.timeout, 3600);
    assert!(job.variables[1].file && job.variables[1].raw && job.variables[1].masked);
    assert_eq!(job.variables[2].value, "");
    assert_eq!(job.steps[1].when, When::Always);
    let image = job.image.as_ref().expect("an image");
    assert_eq!(image.executor_opts.docker.user.as_deref(), Some("1000"));
    assert_eq!(job.services[0].aliases().collect::<Vec<_>>(), ["db", "pg", "sql"]);
    assert_eq!(job.cache[0].when, When::Other("${{ x }}".into()));
    let available: Vec<bool> = job.dependencies.iter().map(|dependency| dependency.has_artifacts()).collect();
    assert_eq!(available, [true, false, false]);
    assert_eq!((job.secrets["DB"].provider(), job.secrets["DB"].is_file()), (Some("vault"), true));
    assert!(!job.secrets["ACCESS"].is_file());
    assert_eq!(job.run, r#"[{"name":"a"}]"#);
}

#[test]
fn options_nobody_knows_are_collected() {
    assert_eq!(parse(rich()).unsupported_options(), ["image: docker.gpus", "service postgres: nomad"]);
    assert_eq!(parse(json!({})).unsupported_options(), [""; 0]);
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:#?}", parse(rich()));
    assert!(!text.contains("s3cret"), "{text}");
    for shown in ["PASSWORD", "make", "gitlab_secrets", "vault", "0123456789abcdef"] {
        assert_eq!(text.contains(shown), shown != "gitlab_secrets", "{shown}");
    }
    insta::assert_snapshot!(
        format!("{:?} {:?}", parse(rich()).variables[1], parse(rich()).secrets["DB"]),
        @r#"Variable { key: "PASSWORD", public: false, masked: true, file: true, raw: true, .. } Secret { provider: Some("vault"), file: true, .. }"#
    );
}

/// Replaces every value that is not a list or an object.
fn with_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, with_nulls(value))).collect(),
        Value::Array(list) => list.into_iter().filter(|v| v.is_object()).map(with_nulls).collect(),
        _ => Value::Null,
    }
}

#[test]
fn null_is_the_zero_value_everywhere() {
    let all: Map<String, Value> =
        rich().as_object().expect("an object").keys().map(|key| (key.clone(), Value::Null)).collect();
    assert_eq!(parse(Value::Object(all)), JobPayload::default());
    assert_eq!(parse(json!({})), JobPayload::default());

    let job = parse(with_nulls(rich()));
    assert_eq!((job.id, job.variables.len(), job.steps.len()), (0, 3, 2));
    assert_eq!(job.git_info, tart_spec::GitInfo::default());
    assert_eq!(job.steps[1].when, When::OnSuccess);
    assert_eq!(job.image.expect("an image").executor_opts.docker, ExecutorOptions::default().docker);
}

#[test]
fn the_job_of_the_public_mock_server_is_understood() {
    let job = parse(json!({
        "id": 266, "token": "job-token-266", "allow_git_fetch": true,
        "job_info": {"name": "t", "stage": "test", "project_id": 1, "project_name": "t"},
        "git_info": {"repo_url": "https://e/p.git", "ref": "main", "sha": "1d2", "before_sha": "0", "ref_type": "branch",
                     "refspecs": ["+refs/pipelines/1:refs/pipelines/1"], "depth": 50},
        "runner_info": {"timeout": 3600, "runner_session_url": null},
        "variables": [{"key": "CI", "value": "true", "public": true, "masked": false}],
        "steps": [{"name": "script", "script": ["dummy"], "timeout": 3600, "when": "on_success", "allow_failure": false}],
        "image": null, "services": [], "cache": [],
        "artifacts": [{"name": null, "paths": ["p"], "when": "on_success", "artifact_type": "archive",
                       "artifact_format": "zip", "expire-in": "1 day"}],
        "credentials": [{"type": "registry", "url": "r", "username": "u", "password": "p"}],
        "dependencies": [], "features": {"trace_sections": true}
    }));
    let variable = &job.variables[0];
    assert!(!variable.file && !variable.raw);
    assert_eq!((job.image, job.artifacts[0].untracked, &job.artifacts[0].expire_in), (None, false, &None));
    assert!(job.artifacts[0].exclude.is_empty());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,8}|docker|user", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

/// All places in a value.
fn pointers(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| pointers(v, &format!("{here}/{key}"), all)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{here}/{i}"), all));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(at in any::<prop::sample::Index>(), value in any_json()) {
        let mut job = rich();
        let mut places = Vec::new();
        pointers(&job, "", &mut places);
        *job.pointer_mut(&places[at.index(places.len())]).expect("a place") = value;
        if let Ok(job) = serde_json::from_value::<JobPayload>(job) {
            let _text = format!("{job:?} {:?}", job.unsupported_options());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,64}") {
        let _result = serde_json::from_str::<JobPayload>(&text);
    }
}
