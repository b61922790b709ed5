//! Against strict fakes of the clouds' APIs: a call that is not exactly what is documented gets a 404.

use serde_json::{Value, json};
use tart_secrets::{Cause, Endpoints, Resolver, SecretError};
use tart_spec::Secret;
use url::Url;
use wiremock::matchers::{body_json, body_string, header, header_regex, headers, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

const ID_TOKEN: &str = "header.payload.signature";

async fn resolve(server: &MockServer, secret: Value) -> Result<String, SecretError> {
    let secret: Secret = serde_json::from_value(secret).unwrap();
    let uri = server.uri();
    let url = Some(Url::parse(&uri).unwrap());
    let endpoints = Endpoints {
        gcp_tokens: url.clone(),
        gcp_secrets: url.clone(),
        azure_login: url.clone(),
        aws_tokens: url.clone(),
        aws_secrets: url,
    };
    let expand = move |text: &str| {
        text.replace("$TOKEN", ID_TOKEN)
            .replace("$VAULT", &uri)
            .replace("${CI_JOB_ID}", "7")
            .replace("${CI_PROJECT_ID}", "8")
            .replace("${CI_SERVER_HOST}", "gitlab.test")
    };
    let result = Resolver::new().unwrap().with_endpoints(endpoints).resolve(&secret, &expand).await;
    if let Err(error) = &result {
        let shown = format!("{error:?}");
        assert!(!shown.contains(ID_TOKEN) && !shown.contains("access-token"), "{shown}");
    }
    result
}

fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

// Google Cloud.

async fn gcp() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/token"))
        .and(body_json(json!({
            "audience": "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool/providers/gitlab",
            "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "subjectToken": ID_TOKEN,
            "subjectTokenType": "urn:ietf:params:oauth:token-type:id_token"
        })))
        .respond_with(ok(json!({ "access_token": "access-token", "token_type": "Bearer" })))
        .mount(&server)
        .await;
    server
}

async fn gcp_has(server: &MockServer, at: &str, answer: ResponseTemplate) {
    Mock::given(method("GET"))
        .and(path(at))
        .and(header("Authorization", "Bearer access-token"))
        .respond_with(answer)
        .mount(server)
        .await;
}

fn gcp_secret(name: &str, version: &str) -> Value {
    json!({ "gcp_secret_manager": { "name": name, "version": version, "server": {
        "project_number": "123", "workload_identity_federation_pool_id": "pool",
        "workload_identity_federation_provider_id": "gitlab", "jwt": "$TOKEN" } } })
}

#[tokio::test]
async fn google_cloud_gives_the_version_that_is_asked_for() {
    let server = gcp().await;
    let answer = |data: &str, sum: Value| ok(json!({ "payload": { "data": data, "dataCrc32c": sum } }));
    // "123456789", whose checksum RFC 3720 has.
    gcp_has(
        &server,
        "/v1/projects/123/secrets/db/versions/3:access",
        answer("MTIzNDU2Nzg5", json!("3808858755")),
    )
    .await;
    gcp_has(
        &server,
        "/v1/projects/other/secrets/db/versions/latest:access",
        ok(json!({ "payload": { "data": "b3RoZXI=" } })),
    )
    .await;
    assert_eq!(resolve(&server, gcp_secret("db", "3")).await.unwrap(), "123456789");
    assert_eq!(resolve(&server, gcp_secret("projects/other/secrets/db", "")).await.unwrap(), "other");
}

#[tokio::test]
async fn google_clouds_errors_say_whose_fault_they_are() {
    let server = gcp().await;
    let refusal = |status: u16, message: &str| {
        ResponseTemplate::new(status)
            .set_body_json(json!({ "error": { "code": status, "message": message } }))
    };
    gcp_has(&server, "/v1/projects/123/secrets/none/versions/1:access", refusal(404, "Secret not found"))
        .await;
    gcp_has(&server, "/v1/projects/123/secrets/denied/versions/1:access", refusal(403, "Permission denied"))
        .await;
    gcp_has(&server, "/v1/projects/123/secrets/down/versions/1:access", refusal(503, "")).await;
    let damaged = ok(json!({ "payload": { "data": "MTIzNDU2Nzg5", "dataCrc32c": "1" } }));
    gcp_has(&server, "/v1/projects/123/secrets/damaged/versions/1:access", damaged).await;
    gcp_has(&server, "/v1/projects/123/secrets/empty/versions/1:access", ok(json!({ "name": "empty" })))
        .await;
    gcp_has(
        &server,
        "/v1/projects/123/secrets/binary/versions/1:access",
        ok(json!({ "payload": { "data": "/w==" } })),
    )
    .await;
    let of = async |name: &str| {
        let error = resolve(&server, gcp_secret(name, "1")).await.unwrap_err();
        (error.cause, error.to_string())
    };
    assert_eq!(
        of("none").await,
        (
            Cause::Missing,
            "the Google Cloud secret `none`: the server answers 404 Not Found: Secret not found".into()
        )
    );
    assert_eq!(of("denied").await.0, Cause::Configuration);
    assert_eq!(of("down").await.0, Cause::Provider);
    assert_eq!(
        of("damaged").await,
        (Cause::Provider, "the Google Cloud secret `damaged` arrived damaged".into())
    );
    assert_eq!(of("empty").await, (Cause::Missing, "the Google Cloud secret `empty` has no value".into()));
    assert_eq!(
        of("binary").await,
        (Cause::Configuration, "the Google Cloud secret `binary` is no text".into())
    );
    assert_eq!(
        of("a/../b").await,
        (Cause::Configuration, "`a/../b` is no name of a Google Cloud secret".into())
    );
    // Nobody there to log in to.
    let nobody = MockServer::start().await;
    let error = resolve(&nobody, gcp_secret("db", "1")).await.unwrap_err();
    assert_eq!(
        (error.cause, error.to_string().as_str()),
        (Cause::Configuration, "the Google Cloud login: the server answers 404 Not Found")
    );
}

// Azure.

async fn azure() -> MockServer {
    let server = MockServer::start().await;
    let form = "client_assertion=header.payload.signature\
                &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                &client_id=app&grant_type=client_credentials&scope=https%3A%2F%2Fvault.azure.net%2F.default";
    Mock::given(method("POST"))
        .and(path("/tenant/oauth2/v2.0/token"))
        .and(header("Content-Type", "application/x-www-form-urlencoded"))
        .and(body_string(form))
        .respond_with(ok(
            json!({ "access_token": "access-token", "token_type": "Bearer", "expires_in": 3599 }),
        ))
        .mount(&server)
        .await;
    server
}

async fn azure_has(server: &MockServer, at: &str, answer: ResponseTemplate) {
    Mock::given(method("GET"))
        .and(path(at))
        .and(query_param("api-version", "7.4"))
        .and(header("Authorization", "Bearer access-token"))
        .respond_with(answer)
        .mount(server)
        .await;
}

fn azure_secret(name: &str, version: &str) -> Value {
    json!({ "azure_key_vault": { "name": name, "version": version, "server": {
        "client_id": "app", "tenant_id": "tenant", "jwt": "$TOKEN", "url": "$VAULT" } } })
}

#[tokio::test]
async fn azure_gives_secrets_with_and_without_a_version() {
    let server = azure().await;
    azure_has(&server, "/secrets/db", ok(json!({ "value": "newest" }))).await;
    azure_has(&server, "/secrets/db/0a1b", ok(json!({ "value": "older" }))).await;
    assert_eq!(resolve(&server, azure_secret("db", "")).await.unwrap(), "newest");
    assert_eq!(resolve(&server, azure_secret("db", "0a1b")).await.unwrap(), "older");
    let error = resolve(&server, azure_secret("none", "")).await.unwrap_err();
    assert_eq!(error.cause, Cause::Missing, "{error}");
    let error = resolve(&server, azure_secret("db", "../x")).await.unwrap_err();
    assert_eq!(error.to_string(), "`../x` is no version of an Azure secret");
}

#[tokio::test]
async fn a_token_for_azure_goes_to_azure_only() {
    let expand = |text: &str| text.replace("$VAULT", "https://vault.example.com");
    let secret: Secret = serde_json::from_value(azure_secret("db", "")).unwrap();
    let error = Resolver::new().unwrap().resolve(&secret, &expand).await.unwrap_err();
    assert_eq!(error.to_string(), "`https://vault.example.com` is no address of an Azure Key Vault");
}

#[tokio::test]
async fn what_azures_login_says_is_said() {
    let server = MockServer::start().await;
    let body =
        json!({ "error": "invalid_client", "error_description": "AADSTS700213: No matching\r\nidentity" });
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(401).set_body_json(body))
        .mount(&server)
        .await;
    let error = resolve(&server, azure_secret("db", "")).await.unwrap_err();
    assert_eq!(error.cause, Cause::Configuration);
    insta::assert_snapshot!(error, @"the Azure login: the server answers 401 Unauthorized: AADSTS700213: No matchingidentity");
}

// AWS.

const ROLE: &str = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
    <SessionToken>session/token+access-token==</SessionToken><SecretAccessKey>the/secret+key</SecretAccessKey>\
    <Expiration>2026-01-01T00:00:00Z</Expiration><AccessKeyId>ASIAEXAMPLE</AccessKeyId>\
    </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

async fn aws(session: &str) -> MockServer {
    let server = MockServer::start().await;
    let form = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fci\
         &RoleSessionName={session}&WebIdentityToken={ID_TOKEN}"
    );
    Mock::given(method("POST"))
        .and(body_string(form))
        .respond_with(ResponseTemplate::new(200).set_body_string(ROLE))
        .mount(&server)
        .await;
    server
}

async fn aws_has(server: &MockServer, wanted: Value, answer: ResponseTemplate) {
    let signature = "^AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/[0-9]{8}/eu-west-1/secretsmanager/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=[0-9a-f]{64}$";
    Mock::given(method("POST"))
        .and(path("/"))
        .and(header("X-Amz-Target", "secretsmanager.GetSecretValue"))
        .and(header("X-Amz-Security-Token", "session/token+access-token=="))
        .and(headers("Content-Type", vec!["application/x-amz-json-1.1"]))
        .and(header_regex("Authorization", signature))
        .and(body_json(wanted))
        .respond_with(answer)
        .mount(server)
        .await;
}

fn aws_secret(change: impl FnOnce(&mut Value)) -> Value {
    let mut secret = json!({ "secret_id": "db", "version_id": "", "version_stage": "", "field": "", "region": "",
        "server": { "region": "eu-west-1", "jwt": "$TOKEN", "role_arn": "arn:aws:iam::1:role/ci" } });
    change(&mut secret);
    json!({ "aws_secrets_manager": secret })
}

#[tokio::test]
async fn aws_gives_texts_bytes_and_fields() {
    let server = aws("7-8-gitlab.test").await;
    let text = ok(json!({ "Name": "db", "SecretString": "{\"user\": \"ci\", \"port\": 5432}" }));
    aws_has(&server, json!({ "SecretId": "db" }), text).await;
    let binary = ok(json!({ "SecretBinary": "/w==" }));
    aws_has(&server, json!({ "SecretId": "key", "VersionId": "v-1", "VersionStage": "AWSPREVIOUS" }), binary)
        .await;
    assert_eq!(resolve(&server, aws_secret(|_| {})).await.unwrap(), "{\"user\": \"ci\", \"port\": 5432}");
    assert_eq!(resolve(&server, aws_secret(|s| s["field"] = json!("port"))).await.unwrap(), "5432");
    let other = aws_secret(|s| {
        s["secret_id"] = json!("key");
        s["version_id"] = json!("v-1");
        s["version_stage"] = json!("AWSPREVIOUS");
    });
    assert_eq!(resolve(&server, other).await.unwrap(), "/w==");
    let error = resolve(&server, aws_secret(|s| s["field"] = json!("password"))).await.unwrap_err();
    assert_eq!(
        (error.cause, error.to_string().as_str()),
        (Cause::Missing, "the AWS secret `db` has no field `password`")
    );
}

#[tokio::test]
async fn the_secrets_own_region_role_and_session_go_first() {
    let server = aws("mine").await;
    aws_has(&server, json!({ "SecretId": "db" }), ok(json!({ "SecretString": "it" }))).await;
    let secret = aws_secret(|s| {
        s["region"] = json!("eu-west-1");
        s["role_arn"] = json!("arn:aws:iam::1:role/ci");
        s["role_session_name"] = json!("mi/ne");
        s["server"]["region"] = json!("us-east-1");
        s["server"]["role_arn"] = json!("arn:aws:iam::1:role/other");
    });
    assert_eq!(resolve(&server, secret).await.unwrap(), "it");
}

#[tokio::test]
async fn awss_errors_say_whose_fault_they_are() {
    let server = aws("7-8-gitlab.test").await;
    for (id, status, code) in [
        ("none", 400, "ResourceNotFoundException"),
        ("denied", 400, "com.amazonaws.secretsmanager#AccessDeniedException"),
        ("down", 500, "InternalServiceError"),
    ] {
        let body = json!({ "__type": code, "Message": "can't" });
        aws_has(&server, json!({ "SecretId": id }), ResponseTemplate::new(status).set_body_json(body)).await;
    }
    let of = async |id: &str| {
        let error = resolve(&server, aws_secret(|s| s["secret_id"] = json!(id))).await.unwrap_err();
        (error.cause, error.to_string())
    };
    assert_eq!(
        of("none").await,
        (
            Cause::Missing,
            "the AWS secret `none`: the server answers 400 Bad Request: ResourceNotFoundException can't"
                .into()
        )
    );
    assert_eq!(
        of("denied").await,
        (
            Cause::Configuration,
            "the AWS secret `denied`: the server answers 400 Bad Request: AccessDeniedException can't".into()
        )
    );
    assert_eq!(of("down").await.0, Cause::Provider);

    let refused = MockServer::start().await;
    let body = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
        <Message>Incorrect token audience</Message></Error></ErrorResponse>";
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(400).set_body_string(body))
        .mount(&refused)
        .await;
    let error = resolve(&refused, aws_secret(|_| {})).await.unwrap_err();
    assert_eq!(error.cause, Cause::Configuration);
    insta::assert_snapshot!(error, @"the AWS login: the server answers 400 Bad Request: InvalidIdentityToken Incorrect token audience");
}

#[tokio::test]
async fn aws_needs_a_region_a_role_and_a_token() {
    let server = MockServer::start().await;
    let of = async |secret: Value| resolve(&server, secret).await.unwrap_err().to_string();
    insta::assert_snapshot!(of(aws_secret(|s| s["region"] = json!("evil.example.com/"))).await, @"`evil.example.com/` is no region of AWS");
    insta::assert_snapshot!(of(aws_secret(|s| s["server"]["role_arn"] = json!(""))).await, @"an AWS secret needs a role (`AWS_ROLE_ARN`) that the job's ID token may take");
    insta::assert_snapshot!(of(aws_secret(|s| s["server"]["jwt"] = json!(""))).await, @"an AWS secret needs an ID token (`token:`); the host's own credentials are not for jobs");
}

// GitLab's own, in OpenBao.

fn gitlab_secret(auth: Value) -> Value {
    json!({ "gitlab_secrets_manager": {
        "server": { "url": "SERVER", "inline_auth": auth },
        "engine": { "name": "kv-v2", "path": "user_1/project_2/secrets/kv" },
        "path": "explicit/DB", "field": "value" } })
}

#[tokio::test]
async fn gitlabs_own_secrets_are_read_with_the_login_in_headers() {
    let server = MockServer::start().await;
    // base64url of {"key":"jwt","value":"$TOKEN"} and of the role: nothing is expanded.
    Mock::given(method("GET"))
        .and(path("/v1/user_1/project_2/secrets/kv/data/explicit/DB"))
        .and(header("X-Vault-Inline-Auth-Path", "auth/pipeline_jwt/login"))
        .and(header("X-Vault-Inline-Auth-Parameter-jwt", "eyJrZXkiOiJqd3QiLCJ2YWx1ZSI6IiRUT0tFTiJ9"))
        .and(header("X-Vault-Inline-Auth-Parameter-role", "eyJrZXkiOiJyb2xlIiwidmFsdWUiOiJhbGwifQ"))
        .respond_with(ok(json!({ "data": { "data": { "value": "from-gitlab" } } })))
        .mount(&server)
        .await;
    let of = async |auth: Value| {
        let mut secret = gitlab_secret(auth);
        secret["gitlab_secrets_manager"]["server"]["url"] = json!(server.uri());
        resolve(&server, secret).await
    };
    let by_path =
        json!({ "path": "auth/pipeline_jwt/login", "jwt": "$TOKEN", "role": "all", "auth_mount": "old" });
    assert_eq!(of(by_path).await.unwrap(), "from-gitlab");
    let by_mount = json!({ "jwt": "$TOKEN", "role": "all", "auth_mount": "pipeline_jwt" });
    assert_eq!(of(by_mount).await.unwrap(), "from-gitlab");
    let error = of(json!({ "path": "p", "jwt": "", "role": "all" })).await.unwrap_err();
    assert_eq!(
        (error.cause, error.to_string().as_str()),
        (Cause::Configuration, "the login of GitLab's secrets manager has no jwt")
    );
    let error = of(json!({ "path": "another", "jwt": "x", "role": "all" })).await.unwrap_err();
    assert_eq!(error.cause, Cause::Missing, "{error}");
}
