//! Against a strict fake of Vault's API.

use serde_json::{Value, json};
use tart_secrets::{Cause, Resolver, SecretError};
use tart_spec::Secret;
use wiremock::matchers::{body_json, header, header_exists, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn secret(engine: &str, field: &str) -> Secret {
    serde_json::from_value(json!({
        "vault": {
            "server": {
                "url": "$VAULT", "namespace": "team",
                "auth": { "name": "jwt", "path": "jwt/v2", "data": { "jwt": "$TOKEN", "role": "ci" } }
            },
            "engine": { "name": engine, "path": "ops" },
            "path": "production/db",
            "field": field
        }
    }))
    .unwrap()
}

async fn vault() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/auth/jwt/v2/login"))
        .and(header("X-Vault-Namespace", "team"))
        .and(body_json(json!({ "jwt": "an-id-token", "role": "ci" })))
        .respond_with(
            ResponseTemplate::new(200).set_body_json(json!({ "auth": { "client_token": "s.token" } })),
        )
        .mount(&server)
        .await;
    server
}

async fn has(server: &MockServer, at: &str, status: u16, body: Value) {
    Mock::given(method("GET"))
        .and(path(at))
        .and(header("X-Vault-Token", "s.token"))
        .and(header_exists("X-Vault-Namespace"))
        .respond_with(ResponseTemplate::new(status).set_body_json(body))
        .mount(server)
        .await;
}

async fn resolve(server: &MockServer, secret: &Secret) -> Result<String, SecretError> {
    let url = server.uri();
    let expand = move |text: &str| text.replace("$VAULT", &url).replace("$TOKEN", "an-id-token");
    Resolver::new().unwrap().resolve(secret, &expand).await
}

#[tokio::test]
async fn both_versions_of_the_store_are_read() {
    let server = vault().await;
    let fields = json!({ "password": "correct-horse", "port": 5432 });
    has(&server, "/v1/ops/data/production/db", 200, json!({ "data": { "data": fields } })).await;
    has(&server, "/v1/ops/production/db", 200, json!({ "data": fields })).await;
    for engine in ["kv-v2", "kv-v1", "generic"] {
        assert_eq!(resolve(&server, &secret(engine, "password")).await.unwrap(), "correct-horse");
    }
    assert_eq!(resolve(&server, &secret("kv-v2", "port")).await.unwrap(), "5432");
    let error = resolve(&server, &secret("kv-v2", "user")).await.unwrap_err();
    assert_eq!(
        (error.cause, error.to_string().as_str()),
        (Cause::Missing, "the Vault secret `production/db` has no field `user`")
    );
}

#[tokio::test]
async fn refusals_say_whose_fault_they_are_and_no_secret() {
    for (status, cause) in [
        (400, Cause::Configuration),
        (403, Cause::Configuration),
        (404, Cause::Missing),
        (418, Cause::Other),
        (503, Cause::Provider),
    ] {
        let server = vault().await;
        has(&server, "/v1/ops/data/production/db", status, json!({ "errors": ["permission\ndenied"] })).await;
        let error = resolve(&server, &secret("kv-v2", "password")).await.unwrap_err();
        assert_eq!(error.cause, cause, "{error}");
        assert!(error.to_string().ends_with(": permissiondenied"), "{error}");
        assert!(!format!("{error:?}").contains("s.token") && !format!("{error:?}").contains("an-id-token"));
    }
    // Another token than the one that may log in.
    let server = MockServer::start().await;
    let error = resolve(&server, &secret("kv-v2", "password")).await.unwrap_err();
    assert_eq!(error.cause, Cause::Configuration, "{error}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let server = vault().await;
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut value = json!({ "vault": {
            "server": { "url": "$VAULT", "namespace": "team",
                "auth": { "name": "jwt", "path": "jwt/v2", "data": { "jwt": "$TOKEN", "role": "ci" } } },
            "engine": { "name": "kv-v2", "path": "ops" }, "path": "p", "field": "f" } });
        change(&mut value["vault"]);
        serde_json::from_value::<Secret>(value).unwrap()
    };
    let server = &server;
    let of = |secret: Secret| async move { resolve(server, &secret).await.unwrap_err().to_string() };
    insta::assert_snapshot!(of(refused(&|v| v["server"]["url"] = json!("vault.test"))).await, @"`vault.test` is no address of a Vault server");
    insta::assert_snapshot!(of(refused(&|v| v["server"]["auth"]["name"] = json!("userpass"))).await, @"the Vault login `userpass` is not known, only `jwt` is");
    insta::assert_snapshot!(of(refused(&|v| v["engine"]["name"] = json!("pki"))).await, @"the Vault engine `pki` is not known, only kv-v1, kv-v2 and generic are");
    insta::assert_snapshot!(of(refused(&|v| v["path"] = json!("../sys/raw"))).await, @"`v1/ops/data/../sys/raw` is no path of a secret");
    insta::assert_snapshot!(resolve(server, &Secret::default()).await.unwrap_err(), @"no resolver that can handle the secret");
}

#[tokio::test]
async fn an_endless_answer_and_a_redirection_are_errors() {
    let server = vault().await;
    has(&server, "/v1/ops/data/production/db", 200, json!({ "data": "x".repeat(2 << 20) })).await;
    let error = resolve(&server, &secret("kv-v2", "password")).await.unwrap_err();
    assert!(error.to_string().contains("longer than 1048576 bytes"), "{error}");
    let server = vault().await;
    has(&server, "/v1/ops/data/production/db", 302, json!({})).await;
    let error = resolve(&server, &secret("kv-v2", "password")).await.unwrap_err();
    assert!(error.to_string().contains("302"), "{error}");
}
