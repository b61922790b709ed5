//! Registration and identity.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tart_test_gitlab::{RunnerOptions, TestGitlab};

use crate::client::{Client, SYSTEM_ID, body, info, send, text};

fn registration(server: &TestGitlab) -> Value {
    json!({
        "token": server.registration_token(),
        "description": "mine",
        "tag_list": "a, b",
        "run_untagged": false,
        "locked": false,
        "paused": false,
        "info": info(),
    })
}

async fn start() -> (TestGitlab, Client) {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    (server, client)
}

#[tokio::test]
async fn a_registered_runner_has_its_tags_and_can_verify() {
    let (server, client) = start().await;
    let answer = send(client.json(Method::POST, "runners", &registration(&server))).await;
    assert_eq!(answer.status(), 201);
    let credentials = body(answer).await;
    assert!(text(&credentials["token"]).starts_with("t1_"));

    let verify = json!({ "token": credentials["token"], "system_id": SYSTEM_ID, "info": info() });
    let answer = send(client.json(Method::POST, "runners/verify", &verify)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(body(answer).await["id"], credentials["id"]);

    let runner = server.runner_by_token(text(&credentials["token"])).expect("it is there");
    let runner = runner.get().expect("it is there");
    assert_eq!(runner.description(), "mine");
    assert_eq!(runner.managers()[SYSTEM_ID]["name"], "tart");
    server.assert_no_violations();
}

#[tokio::test]
async fn registration_explains_what_it_does_not_take() {
    let (server, client) = start().await;
    let mut bad = registration(&server);
    bad["tag_list"] = json!("");
    bad["maximum_timeout"] = json!(5);
    let answer = send(client.json(Method::POST, "runners", &bad)).await;
    assert_eq!(answer.status(), 400);
    let message = body(answer).await["message"].clone();
    assert_eq!(message["maximum_timeout"], json!(["needs to be at least 10 minutes"]));
    assert!(message["tags_list"].is_array());

    let mut wrong = registration(&server);
    wrong["token"] = json!("GR1348941wrong");
    assert_eq!(send(client.json(Method::POST, "runners", &wrong)).await.status(), 403);
    server.disable_registration();
    let answer = send(client.json(Method::POST, "runners", &registration(&server))).await;
    assert_eq!(answer.status(), 410);
    server.assert_no_violations();
}

#[tokio::test]
async fn verification_knows_revoked_and_orphaned_runners() {
    let (server, client) = start().await;
    let runner = server.runner_by_token(&client.token).expect("it is there");
    let verify = json!({ "token": client.token });
    runner.orphan();
    assert_eq!(send(client.json(Method::POST, "runners/verify", &verify)).await.status(), 422);
    runner.delete();
    assert_eq!(send(client.json(Method::POST, "runners/verify", &verify)).await.status(), 403);
    server.assert_no_violations();
}

#[tokio::test]
async fn unregistering_removes_the_manager_or_the_runner() {
    let (server, client) = start().await;
    assert_eq!(client.request_job().await.status(), 204);
    let manager = json!({ "token": client.token, "system_id": SYSTEM_ID });
    assert_eq!(send(client.json(Method::DELETE, "runners/managers", &manager)).await.status(), 204);
    assert_eq!(send(client.json(Method::DELETE, "runners/managers", &manager)).await.status(), 404);
    let runner = json!({ "token": client.token });
    assert_eq!(send(client.json(Method::DELETE, "runners", &runner)).await.status(), 204);
    assert_eq!(send(client.json(Method::DELETE, "runners", &runner)).await.status(), 403);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_reset_replaces_the_token_and_its_expiry() {
    let server = TestGitlab::start().await;
    let options = RunnerOptions::default().token_expires_in(Duration::from_secs(3600));
    let runner = server.add_runner(options);
    let client = Client::new(&server, &runner);
    let own = json!({ "token": client.token });
    let answer = send(client.json(Method::POST, "runners/reset_authentication_token", &own)).await;
    assert_eq!(answer.status(), 201);
    let credentials = body(answer).await;
    assert_ne!(text(&credentials["token"]), client.token);
    assert_eq!(text(&credentials["token"]), runner.token());
    assert!(credentials["token_expires_at"].is_string());
    assert_eq!(client.request_job().await.status(), 403);

    let by_id = format!("runners/{}/reset_authentication_token", runner.id());
    let reset = |token: &str| {
        let call = client.call(Method::POST, &by_id).header("PRIVATE-TOKEN", token.to_owned());
        call.header("Accept", "application/json").header("Content-Type", "application/json").body("null")
    };
    assert_eq!(send(reset("wrong")).await.status(), 401);
    assert_eq!(send(reset(server.private_token())).await.status(), 201);
    assert_ne!(text(&credentials["token"]), runner.token());
    server.assert_no_violations();
}

#[tokio::test]
async fn every_breach_of_the_wire_format_is_answered_400_and_recorded() {
    let (server, client) = start().await;
    let change = |path: &str, value: Value| {
        let mut demand = client.demand();
        *demand.pointer_mut(path).expect("the field is there") = value;
        client.json(Method::POST, "jobs/request", &demand)
    };
    let mut unknown = client.demand();
    unknown["surprise"] = json!(1);
    let mut missing = client.demand();
    missing["info"]["features"].as_object_mut().expect("an object").remove("masking");
    let mut made_up = client.demand();
    made_up["last_update"] = json!("0123");
    let mut labels = client.demand();
    labels["info"]["labels"] = json!({ "a b": "c" });
    let post = |body: &Value| client.json(Method::POST, "jobs/request", body);
    let plain = || client.call(Method::POST, "jobs/request").body(client.demand().to_string());
    let cases = [
        (change("/system_id", json!("s_short")), "system_id"),
        (change("/info/features/image", json!("yes")), "info.features.image is not a boolean"),
        (change("/info/config", json!({})), "info.config.gpus is missing"),
        (change("/info/version", json!("")), "info.version is empty"),
        (post(&unknown), "body.surprise is not a field"),
        (post(&missing), "info.features.masking is missing"),
        (post(&made_up), "never given out"),
        (post(&labels), "label key"),
        (post(&client.demand()).header("X-Request-Id", "twice"), "more than once"),
        (plain().header("RUNNER-TOKEN", &client.token), "header content-type is missing"),
        (plain().header("Content-Type", "application/json"), "header runner-token is missing"),
        (post(&json!([])), "not a JSON object"),
    ];
    for (index, (request, expected)) in cases.into_iter().enumerate() {
        assert_eq!(send(request).await.status(), 400, "{expected}");
        let violations = server.violations();
        assert_eq!(violations.len(), index + 1, "{expected}: {violations:?}");
        assert!(violations[index].contains(expected), "{expected}: {violations:?}");
    }
}
