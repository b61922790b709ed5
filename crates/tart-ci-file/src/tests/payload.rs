//! What a runner gets.

use std::{collections::BTreeMap, time::Duration};

use super::pipeline;
use crate::{Commit, ExecContext, Project, Source, Sources, User};

pub(super) fn context() -> ExecContext {
    ExecContext {
        job_id: 1,
        pipeline_id: 2,
        config_path: ".gitlab-ci.yml".into(),
        project: Project { id: 3, path: "group/sub/project".into(), default_branch: "main".into() },
        commit: Commit {
            sha: "0123456789abcdef0123456789abcdef01234567".into(),
            ref_name: "feature/x".into(),
            is_tag: false,
            is_protected: false,
            message: "Add a thing\n\nIt costs $HOME.\n".into(),
            author: "Ann <ann@example.com>".into(),
            timestamp: "2026-11-24T08:00:00Z".into(),
        },
        source: Source::Push,
        merge_request: None,
        sources: Sources {
            repo_url: "http://127.0.0.1:1/project.git".into(),
            refspecs: vec!["+refs/heads/*:refs/remotes/origin/*".into()],
            depth: 20,
        },
        user: User { login: "ann".into(), name: "Ann".into(), email: "ann@example.com".into() },
        server_url: "https://gitlab.example.com".into(),
        timeout: Duration::from_secs(3600),
        variables: vec![("GIVEN".into(), "by hand".into())],
        inherited: Vec::new(),
        dependencies: Vec::new(),
        file_versions: BTreeMap::from([("Cargo.lock".to_owned(), "abc".to_owned())]),
    }
}

const FILE: &str = r#"
variables: { COLOUR: always, LITERAL: { value: $X, expand: false } }
test:
  image: { name: "rust:$V", entrypoint: [""], pull_policy: if-not-present, docker: { platform: linux/amd64, user: ci } }
  services: [{ name: "postgres:16", alias: db, command: [postgres], variables: { POSTGRES_PASSWORD: x } }]
  before_script: [a]
  script: [b, c]
  after_script: [d]
  timeout: 10 minutes
  environment: { name: staging }
  hooks: { pre_get_sources_script: [h] }
  inputs: { level: { type: number, default: 3, description: How much, options: [3, 4] }, to: { default: x } }
  cache:
    - { key: { files: [Cargo.lock, none.lock], prefix: cargo }, paths: [target], fallback_keys: [cargo] }
    - { key: { files: [none.lock] }, paths: [x], unprotect: true, policy: pull }
  artifacts: { name: out, paths: [out], exclude: ["out/*.o"], expire_in: 1 day, reports: { junit: "*.xml", coverage_report: { coverage_format: cobertura, path: c.xml } } }
split: { script: x, parallel: 2 }
remote: { trigger: a/b }
"#;

#[test]
fn a_job_becomes_what_a_server_sends() {
    let found = pipeline(FILE);
    let mut wire = found.job("test").unwrap().to_wire(&context()).unwrap();
    wire["variables"].as_array_mut().unwrap().retain(|variable| {
        !variable["key"].as_str().unwrap().starts_with("CI")
            && !variable["key"].as_str().unwrap().starts_with("GITLAB")
    });
    insta::assert_snapshot!(serde_json::to_string_pretty(&wire).unwrap(), @r#"
    {
      "allow_git_fetch": true,
      "artifacts": [
        {
          "artifact_format": "zip",
          "artifact_type": "archive",
          "exclude": [
            "out/*.o"
          ],
          "expire_in": "1 day",
          "name": "out",
          "paths": [
            "out"
          ],
          "untracked": false,
          "when": "on_success"
        },
        {
          "artifact_format": "gzip",
          "artifact_type": "junit",
          "expire_in": "1 day",
          "name": "junit.xml",
          "paths": [
            "*.xml"
          ],
          "untracked": false,
          "when": "always"
        },
        {
          "artifact_format": "gzip",
          "artifact_type": "cobertura",
          "expire_in": "1 day",
          "name": "cobertura-coverage.xml",
          "paths": [
            "c.xml"
          ],
          "untracked": false,
          "when": "always"
        }
      ],
      "cache": [
        {
          "fallback_keys": [
            "cargo-non_protected"
          ],
          "key": "cargo-dc1114cd074914bd872cc1f9a23ec910ea2203bc-non_protected",
          "paths": [
            "target"
          ],
          "policy": "pull-push",
          "untracked": false,
          "when": "on_success"
        },
        {
          "fallback_keys": [],
          "key": "default",
          "paths": [
            "x"
          ],
          "policy": "pull",
          "untracked": false,
          "when": "on_success"
        }
      ],
      "credentials": [],
      "dependencies": [],
      "features": {
        "trace_sections": true
      },
      "git_info": {
        "before_sha": "0000000000000000000000000000000000000000",
        "depth": 20,
        "protected": false,
        "ref": "feature/x",
        "ref_type": "branch",
        "refspecs": [
          "+refs/heads/*:refs/remotes/origin/*"
        ],
        "repo_object_format": "sha1",
        "repo_url": "http://127.0.0.1:1/project.git",
        "sha": "0123456789abcdef0123456789abcdef01234567"
      },
      "hooks": [
        {
          "name": "pre_get_sources_script",
          "script": [
            "h"
          ]
        }
      ],
      "id": 1,
      "image": {
        "entrypoint": [
          ""
        ],
        "executor_opts": {
          "docker": {
            "platform": "linux/amd64",
            "user": "ci"
          }
        },
        "name": "rust:$V",
        "pull_policy": [
          "if-not-present"
        ]
      },
      "inputs": [
        {
          "key": "level",
          "value": {
            "content": 3,
            "sensitive": false,
            "type": "number"
          }
        },
        {
          "key": "to",
          "value": {
            "content": "x",
            "sensitive": false,
            "type": "string"
          }
        }
      ],
      "job_info": {
        "id": 1,
        "name": "test",
        "pipeline_id": 2,
        "project_full_path": "group/sub/project",
        "project_id": 3,
        "project_name": "project",
        "stage": "test"
      },
      "runner_info": {
        "timeout": 600
      },
      "services": [
        {
          "alias": "db",
          "command": [
            "postgres"
          ],
          "name": "postgres:16",
          "variables": [
            {
              "key": "POSTGRES_PASSWORD",
              "masked": false,
              "public": true,
              "raw": false,
              "value": "x"
            }
          ]
        }
      ],
      "steps": [
        {
          "allow_failure": false,
          "name": "script",
          "script": [
            "a",
            "b",
            "c"
          ],
          "timeout": 600,
          "when": "on_success"
        },
        {
          "allow_failure": true,
          "name": "after_script",
          "script": [
            "d"
          ],
          "timeout": 600,
          "when": "always"
        }
      ],
      "token": "",
      "variables": [
        {
          "key": "COLOUR",
          "masked": false,
          "public": true,
          "raw": false,
          "value": "always"
        },
        {
          "key": "LITERAL",
          "masked": false,
          "public": true,
          "raw": true,
          "value": "$X"
        },
        {
          "key": "GIVEN",
          "masked": false,
          "public": false,
          "raw": false,
          "value": "by hand"
        }
      ]
    }
    "#);
}

#[test]
fn predefined_variables_come_before_those_of_the_file_and_of_the_command_line() {
    let found = pipeline(FILE);
    let wire = found.job("split 2/2").unwrap().to_wire(&context()).unwrap();
    let lines: Vec<String> = wire["variables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| {
            let raw = if variable["raw"] == true { "" } else { " (expanded)" };
            format!("{}={:?}{raw}", variable["key"].as_str().unwrap(), variable["value"].as_str().unwrap())
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    CI="true"
    GITLAB_CI="true"
    CI_PIPELINE_ID="2"
    CI_JOB_ID="1"
    CI_JOB_NAME="split 2/2"
    CI_JOB_NAME_SLUG="split-2-2"
    CI_JOB_STAGE="test"
    CI_NODE_TOTAL="2"
    CI_NODE_INDEX="2"
    CI_PIPELINE_IID="2"
    CI_PIPELINE_SOURCE="push"
    CI_CONFIG_PATH=".gitlab-ci.yml"
    CI_REPOSITORY_URL="http://127.0.0.1:1/project.git"
    CI_COMMIT_SHA="0123456789abcdef0123456789abcdef01234567"
    CI_COMMIT_SHORT_SHA="01234567"
    CI_COMMIT_BEFORE_SHA="0000000000000000000000000000000000000000"
    CI_COMMIT_REF_NAME="feature/x"
    CI_COMMIT_REF_SLUG="feature-x"
    CI_COMMIT_REF_PROTECTED="false"
    CI_COMMIT_MESSAGE="Add a thing\n\nIt costs $HOME.\n"
    CI_COMMIT_TITLE="Add a thing"
    CI_COMMIT_DESCRIPTION="It costs $HOME."
    CI_COMMIT_AUTHOR="Ann <ann@example.com>"
    CI_COMMIT_TIMESTAMP="2026-11-24T08:00:00Z"
    CI_DEFAULT_BRANCH="main"
    GITLAB_USER_LOGIN="ann"
    GITLAB_USER_NAME="Ann"
    GITLAB_USER_EMAIL="ann@example.com"
    CI_COMMIT_BRANCH="feature/x"
    CI_PROJECT_ID="3"
    CI_PROJECT_NAME="project"
    CI_PROJECT_TITLE="project"
    CI_PROJECT_PATH="group/sub/project"
    CI_PROJECT_PATH_SLUG="group-sub-project"
    CI_PROJECT_NAMESPACE="group/sub"
    CI_PROJECT_ROOT_NAMESPACE="group"
    CI_PROJECT_URL="https://gitlab.example.com/group/sub/project"
    CI_PROJECT_VISIBILITY="private"
    CI_SERVER="yes"
    CI_SERVER_NAME="GitLab"
    CI_SERVER_URL="https://gitlab.example.com"
    CI_SERVER_PROTOCOL="https"
    CI_SERVER_HOST="gitlab.example.com"
    CI_SERVER_PORT="443"
    CI_SERVER_FQDN="gitlab.example.com"
    CI_API_V4_URL="https://gitlab.example.com/api/v4"
    COLOUR="always" (expanded)
    LITERAL="$X"
    GIVEN="by hand" (expanded)
    "#);
}

#[test]
fn a_tag_is_no_branch() {
    let mut context = context();
    context.commit.is_tag = true;
    let wire = pipeline(FILE).job("split 1/2").unwrap().to_wire(&context).unwrap();
    let keys: Vec<&str> = wire["variables"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|variable| variable["key"].as_str())
        .collect();
    assert!(keys.contains(&"CI_COMMIT_TAG") && !keys.contains(&"CI_COMMIT_BRANCH"));
    assert_eq!(wire["git_info"]["ref_type"], "tag");
}

#[test]
fn files_of_cache_keys_are_known_beforehand() {
    let found = pipeline(FILE);
    let files: Vec<&str> = found.job("test").unwrap().cache_key_files().collect();
    assert_eq!(files, ["Cargo.lock", "none.lock", "none.lock"]);
}

#[test]
fn a_job_for_the_server_is_refused() {
    let error = pipeline(FILE).job("remote").unwrap().to_wire(&context()).unwrap_err();
    insta::assert_snapshot!(error, @"the job `remote` cannot run locally: it triggers another pipeline, which only GitLab can do");
}
