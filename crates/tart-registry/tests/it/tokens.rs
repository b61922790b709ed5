//! Who asks, and who hears of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tart_registry::Auth;

use crate::server::{Reply, Request, Server, client, descriptor, sha256};

const MANIFEST: &str = r#"{"schemaVersion":2}"#;

fn basic() -> Auth {
    Auth::Basic { user: "user".to_owned(), password: "password".to_owned() }
}

/// `user:password` in Base64.
const PAIR: &str = "Basic dXNlcjpwYXNzd29yZA==";

fn challenge(realm: &str) -> Reply {
    let value = format!(
        r#"Bearer realm="http://{realm}/token",service="the registry",scope="repository:*:push,pull""#
    );
    Reply::new(401, "").header("WWW-Authenticate", value)
}

/// A server of tokens `token-0`, `token-1`, ...
async fn tokens() -> Server {
    Server::start(|_, before| Reply::new(200, format!(r#"{{"token":"token-{before}","expires_in":300}}"#)))
        .await
}

fn manifest() -> Reply {
    Reply::new(200, MANIFEST).header("Docker-Content-Digest", sha256(MANIFEST.as_bytes()))
}

#[tokio::test]
async fn a_token_is_fetched_once_for_reading_only() {
    let tokens = tokens().await;
    let realm = tokens.address.clone();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some("Bearer token-0") => manifest(),
        _ => challenge(&realm),
    });
    let registry = registry.await;
    let client = client();
    for _ in 0..2 {
        let digest = client.digest(&registry.image("team/app:1"), &basic()).await.unwrap();
        assert_eq!(digest.to_string(), sha256(MANIFEST.as_bytes()));
    }
    assert_eq!(
        registry.lines(),
        [
            "HEAD /v2/team/app/manifests/1",
            "HEAD /v2/team/app/manifests/1 [authorization: Bearer token-0]",
            "HEAD /v2/team/app/manifests/1 [authorization: Bearer token-0]",
        ]
    );
    let asked = format!(
        "GET /token?scope=repository%3Ateam%2Fapp%3Apull&service=the+registry [authorization: {PAIR}]"
    );
    assert_eq!(tokens.lines(), [asked]);
    let other = client.digest(&registry.image("team/app:1"), &Auth::Anonymous).await;
    assert!(other.is_err(), "nobody else has that token");
    assert_eq!(tokens.lines().len(), 2);
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let tokens = Server::start(|_, _| Reply::new(200, r#"{"access_token":"access"}"#)).await;
    let realm = tokens.address.clone();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some("Bearer access") => manifest(),
        _ => challenge(&realm),
    });
    let registry = registry.await;
    let auth = Auth::IdentityToken("identity".to_owned());
    client().digest(&registry.image("app:1"), &auth).await.unwrap();
    insta::assert_snapshot!(tokens.lines().join("\n"), @"POST /token scope=repository%3Aapp%3Apull&service=the+registry&grant_type=refresh_token&refresh_token=identity&client_id=tart");
}

#[tokio::test]
async fn a_password_is_sent_only_when_the_registry_wants_it() {
    let registry = Server::start(|request, _| match request.header("authorization") {
        Some(PAIR) => manifest(),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let registry = registry.await;
    client().digest(&registry.image("app:1"), &basic()).await.unwrap();
    let pair = format!("HEAD /v2/app/manifests/1 [authorization: {PAIR}]");
    assert_eq!(registry.lines(), ["HEAD /v2/app/manifests/1".to_owned(), pair]);
}

#[tokio::test]
async fn a_token_may_end_in_the_middle_of_a_layer() {
    let blob = vec![1; 10_000];
    let tokens = tokens().await;
    let realm = tokens.address.clone();
    let valid = Arc::new(AtomicUsize::new(0));
    let (served, current) = (blob.clone(), Arc::clone(&valid));
    let registry = Server::start(move |request: &Request, _| {
        let number = current.load(Ordering::Relaxed);
        if request.header("authorization") != Some(&format!("Bearer token-{number}")) {
            return challenge(&realm);
        }
        // Each is good for one answer.
        current.store(number + 1, Ordering::Relaxed);
        Reply::part(&served, request).cut(6000)
    });
    let registry = registry.await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("layer");
    let image = registry.image("app:1");
    client().fetch_blob(&image, &descriptor(&blob), &file, &basic(), &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(file).unwrap(), blob);
    assert_eq!(tokens.lines().len(), 2);
}

#[tokio::test]
async fn another_host_hears_no_secret() {
    let blob = b"layer";
    let storage = Server::start(|request, _| Reply::part(b"layer", request)).await;
    let elsewhere = format!("http://{}/signed?x=1", storage.address);
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some(PAIR) => Reply::new(307, "").header("Location", &elsewhere),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let registry = registry.await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("layer");
    std::fs::write(&file, "la").unwrap();
    client().fetch_blob(&registry.image("app:1"), &descriptor(blob), &file, &basic(), &|_| {}).await.unwrap();
    assert_eq!(storage.lines(), ["GET /signed?x=1 [range: bytes=2-]"]);
}

#[tokio::test]
async fn redirects_end() {
    let registry = Server::start(|request, _| Reply::new(307, "").header("Location", &request.path)).await;
    let error = client().digest(&registry.image("app:1"), &Auth::Anonymous).await.unwrap_err();
    let text = error.to_string().replace(&registry.address, "REGISTRY");
    insta::assert_snapshot!(text, @"cannot reach REGISTRY: it redirects too often");
}

#[tokio::test]
async fn a_refusal_says_what_the_registry_says() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let tokens = Server::start(|_, _| Reply::new(401, "<html>")).await;
    let realm = tokens.address.clone();
    let registry = Server::start(move |request, _| match &*request.path {
        "/v2/denied/manifests/1" => Reply::new(403, denied),
        _ => challenge(&realm),
    });
    let registry = registry.await;
    let mut texts = Vec::new();
    for (image, auth) in [("denied:1", Auth::Anonymous), ("app:1", basic())] {
        // The answer to HEAD has no body.
        let platform = tart_oci::parse_platform("linux/amd64").unwrap();
        let error = client().resolve(&registry.image(image), &platform, &auth).await.unwrap_err();
        assert!(error.is_configuration() && !error.is_worth_retrying());
        let text = error.to_string().replace(&registry.address, "REGISTRY");
        texts.push(text.replace(&tokens.address, "TOKENS"));
    }
    insta::assert_snapshot!(texts.join("\n"), @r"
    REGISTRY denies access to REGISTRY/denied:1 without credentials: requested access to the resource is denied
    TOKENS denies access to REGISTRY/app:1 with the given credentials: 401 Unauthorized
    ");
}

#[tokio::test]
async fn a_mirror_gets_no_credentials() {
    let mirror = Server::start(|_, _| manifest()).await;
    let settings = tart_registry::RegistrySettings {
        mirrors: vec![format!("http://{}/hub/", mirror.address).parse().unwrap()],
        ..Default::default()
    };
    let registry = tart_registry::Registry::new(settings).unwrap();
    let image = tart_registry::parse_reference("busybox").unwrap();
    let digest = registry.digest(&image, &basic()).await.unwrap();
    assert_eq!(digest.to_string(), sha256(MANIFEST.as_bytes()));
    assert_eq!(mirror.lines(), ["HEAD /hub/v2/library/busybox/manifests/latest"]);
}

#[test]
fn a_mirror_is_a_plain_address() {
    for mirror in ["https://user:secret@m.example.com", "ftp://m.example.com", "https://m.example.com/?a=b"] {
        let settings =
            tart_registry::RegistrySettings { mirrors: vec![mirror.parse().unwrap()], ..Default::default() };
        let error = tart_registry::Registry::new(settings).unwrap_err().to_string();
        assert!(error.starts_with("the mirror `m.example.com` is not"), "{error}");
        assert!(!error.contains("secret"));
    }
}
