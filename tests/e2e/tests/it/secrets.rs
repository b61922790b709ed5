//! Secrets of HashiCorp Vault: in the job's memory, and nowhere else.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState, Variable};
use wiremock::matchers::{body_partial_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const PASSWORD: &str = "correct-horse-battery-staple";
const KEY: &str = "-----BEGIN KEY-----\nline of the key\n";

async fn vault() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/auth/jwt/login"))
        .and(body_partial_json(json!({ "jwt": "id-token-of-the-job", "role": "ci" })))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "auth": { "client_token": "s.x" } })))
        .mount(&server)
        .await;
    let secret = json!({ "data": { "data": { "password": PASSWORD, "key": KEY } } });
    Mock::given(method("GET"))
        .and(path("/v1/ops/data/production/db"))
        .and(header("X-Vault-Token", "s.x"))
        .respond_with(ResponseTemplate::new(200).set_body_json(secret))
        .mount(&server)
        .await;
    server
}

fn secret(server: &MockServer, field: &str, file: bool) -> Value {
    let auth = json!({ "name": "jwt", "path": "jwt", "data": { "jwt": "$VAULT_ID_TOKEN", "role": "ci" } });
    json!({
        "vault": {
            "server": { "url": server.uri(), "namespace": "", "auth": auth },
            "engine": { "name": "kv-v2", "path": "ops" },
            "path": "production/db",
            "field": field
        },
        "file": file
    })
}

/// Whether any file below a directory holds a text. grep leaves holes out, which scratch disks are made of.
fn holds(directory: &Path, text: &str) -> bool {
    let found = Command::new("grep").args(["-rlaF", text]).arg(directory).output().expect("grep is there");
    !found.stdout.is_empty()
}

#[tokio::test]
async fn secrets_reach_the_script_masked_and_no_file_of_the_host() {
    let vault = vault().await;
    let scene = Scene::start(&Config::default().microvm("disk = \"512m\"")).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "in git\n").await;
    let script = [
        "echo written-to-the-disk > here; sync; echo length=${#PASSWORD} value=$PASSWORD; cat $KEY; stat -c mode=%a $KEY; echo id=$VAULT_ID_TOKEN",
        "until git ls-remote --exit-code \"$CI_REPOSITORY_URL\" go > /dev/null; do sleep 0.1; done",
    ];
    let secrets =
        json!({ "PASSWORD": secret(&vault, "password", false), "KEY": secret(&vault, "key", true) });
    let spec = JobSpec::of(&project, script)
        .variable(Variable::masked("VAULT_ID_TOKEN", "id-token-of-the-job"))
        .field("secrets", secrets);
    let job = scene.server.enqueue(spec).await;
    let tart = scene.run();
    job.wait_for("the script", JOB, |job| job.log().contains("id=[MASKED]")).await;
    // While the job runs with them.
    assert!(holds(scene.directory(), "written-to-the-disk"), "what the job writes is on its disk");
    assert!(!holds(scene.directory(), PASSWORD), "the secret is on the host's disk");
    let sha = project.commit_file("b.txt", "1\n").await;
    project.branch("go", &sha).await;
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    let log = job.log();
    for expected in [
        "Resolving secrets",
        "Resolving secret \"PASSWORD\"...",
        "Using \"vault\" secret resolver...",
        "length=28 value=[MASKED]",
        "mode=600",
    ] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    assert!(!log.contains(PASSWORD) && !log.contains("line of the key"), "{log}");
    scene.finish();
}

#[tokio::test]
async fn a_job_without_its_secrets_does_not_run() {
    let vault = vault().await;
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let spec = JobSpec::of(&project, ["echo unreachable"])
        .variable(Variable::masked("VAULT_ID_TOKEN", "id-token-of-the-job"))
        .field("secrets", json!({ "PASSWORD": secret(&vault, "none", false) }));
    let job = scene.server.enqueue(spec).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Failed);
    scene.drain(tart).await;
    let log = job.log();
    assert!(log.contains("the Vault secret `production/db` has no field `none`"), "{log}");
    assert!(!log.contains("unreachable") && !log.contains("Starting a microVM"), "{log}");
    let last = job.updates().pop().unwrap();
    assert_eq!(last.failure_reason.as_deref(), Some("runner_configuration_error"));
    scene.finish();
}
