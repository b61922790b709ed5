//! Manifests of registries that misbehave.

use serde_json::json;
use tart_registry::{Auth, RegistryError, Resolved};

use crate::server::{Reply, Request, Server, client, sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;

fn manifest() -> String {
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": sha256(CONFIG.as_bytes()),
        "size": CONFIG.len(),
    });
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] }).to_string()
}

fn index() -> String {
    let image = manifest();
    let entry = |os: &str, architecture: &str, digest: String| {
        json!({
            "mediaType": MANIFEST, "digest": digest, "size": image.len(),
            "platform": { "os": os, "architecture": architecture },
        })
    };
    let other = sha256(b"other");
    let entries = [
        entry("unknown", "unknown", other.clone()),
        entry("linux", "arm64", other),
        entry("linux", "amd64", sha256(image.as_bytes())),
    ];
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string()
}

/// A good registry: its tag `1` is an index.
fn good(request: &Request) -> Reply {
    let (manifest, index) = (manifest(), index());
    let name = request.path.rsplit('/').next().unwrap_or_default();
    let body = match name {
        "1" => &index,
        name if name == sha256(index.as_bytes()) => &index,
        name if name == sha256(manifest.as_bytes()) => &manifest,
        name if name == sha256(CONFIG.as_bytes()) => CONFIG,
        _ => return Reply::new(404, ""),
    };
    Reply::new(200, body).header("Docker-Content-Digest", sha256(body.as_bytes()))
}

async fn resolve(server: &Server, image: &str) -> Result<Resolved, RegistryError> {
    let platform = tart_oci::parse_platform("linux/amd64").unwrap();
    client().resolve(&server.image(image), &platform, &Auth::Anonymous).await
}

/// What is said about an image that one answer makes bad.
async fn refusal(image: &str, answer: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> String {
    let server = Server::start(move |request, _| answer(request).unwrap_or_else(|| good(request))).await;
    let error = resolve(&server, image).await.unwrap_err();
    assert!(!error.is_worth_retrying());
    assert!(server.lines().len() <= 3, "{:?}", server.lines());
    error.to_string().replace(&server.address, "REGISTRY")
}

#[tokio::test]
async fn an_image_of_an_index_is_resolved() {
    let server = Server::start(|request, _| good(request)).await;
    let resolved = resolve(&server, "app:1").await.unwrap();
    let manifest = sha256(manifest().as_bytes());
    assert_eq!(resolved.index_digest.unwrap().to_string(), sha256(index().as_bytes()));
    assert_eq!(resolved.manifest_digest.to_string(), manifest);
    assert_eq!(resolved.reference.whole(), format!("{}/app@{manifest}", server.address));
    assert_eq!(resolved.config_json, CONFIG.as_bytes());
    assert_eq!(
        server.lines(),
        [
            "GET /v2/app/manifests/1".to_owned(),
            format!("GET /v2/app/manifests/{manifest}"),
            format!("GET /v2/app/blobs/{}", sha256(CONFIG.as_bytes())),
        ]
    );
    let again = resolve(&server, &format!("app:old@{manifest}")).await.unwrap();
    assert_eq!(again.index_digest, None);
    assert_eq!(server.lines()[3], format!("GET /v2/app/manifests/{manifest}"), "the digest counts");
}

#[tokio::test]
async fn a_registry_may_refuse_head() {
    let server = Server::start(|request, _| match &*request.method {
        "HEAD" => Reply::new(405, ""),
        _ => good(request),
    });
    let server = server.await;
    let digest = client().digest(&server.image("app:1"), &Auth::Anonymous).await.unwrap();
    assert_eq!(digest.to_string(), sha256(index().as_bytes()));
}

#[tokio::test]
async fn damaged_documents_are_refused() {
    let by_digest = format!("app@{}", sha256(manifest().as_bytes()));
    let forged = refusal(&by_digest, |_| Some(Reply::new(200, "{}"))).await;
    let by_tag = |_: &Request| Some(Reply::new(200, "{}").header("Docker-Content-Digest", sha256(b"x")));
    let by_tag = refusal("app:1", by_tag).await;
    let config = |request: &Request| request.path.contains("/blobs/").then(|| Reply::new(200, "{}"));
    let config = refusal("app:1", config).await.replace(&sha256(CONFIG.as_bytes()), "CONFIG");
    let weak = refusal(&format!("app@sha512:{}", "0".repeat(128)), |_| None).await;
    let weak = weak.replace(&"0".repeat(128), "00");
    let texts = [forged.replace(&by_digest, "app@DIGEST"), by_tag, config, weak].join("\n");
    insta::assert_snapshot!(texts, @r"
    REGISTRY sent something unusable for REGISTRY/app@DIGEST: its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a and should be sha256:521f45b953110754011fccd917867ac40b9f5a42e8e868b66c84417badd60372: it was damaged or forged
    REGISTRY sent something unusable for REGISTRY/app:1: its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a and should be sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881: it was damaged or forged
    REGISTRY sent something unusable for CONFIG: its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a: it was damaged or forged
    REGISTRY sent something unusable for REGISTRY/app@sha512:00: `sha512:00` is no SHA-256 digest
    ");
}

#[tokio::test]
async fn other_documents_are_refused() {
    let old = refusal("app:1", |_| Some(Reply::new(200, r#"{"schemaVersion":1,"fsLayers":[]}"#))).await;
    let page = refusal("app:1", |_| Some(Reply::new(200, "<html>"))).await;
    let huge = refusal("app:1", |_| Some(Reply::new(200, vec![b' '; (4 << 20) + 1]))).await;
    let config = refusal("app:1", |request| {
        request.path.contains("/blobs/").then(|| Reply::new(200, vec![b' '; (8 << 20) + 1]))
    });
    let config = config.await.replace(&sha256(CONFIG.as_bytes()), "CONFIG");
    insta::assert_snapshot!([old, page, huge, config].join("\n"), @r"
    REGISTRY sent something unusable for REGISTRY/app:1: its manifest is of the old version 1, which Docker has given up: push it again
    REGISTRY sent something unusable for REGISTRY/app:1: it is no manifest: expected value at line 1 column 1
    REGISTRY sent something unusable for REGISTRY/app:1: it has more than 4194304 bytes
    REGISTRY sent something unusable for CONFIG: it has more than 8388608 bytes
    ");
}

#[tokio::test]
async fn a_missing_image_is_told() {
    insta::assert_snapshot!(refusal("gone:1", |_| Some(Reply::new(404, "x"))).await, @"REGISTRY/gone:1 was not found at REGISTRY: check its name and tag, and that you may see it");
}

#[tokio::test]
async fn a_missing_platform_is_told() {
    let server = Server::start(|request, _| good(request)).await;
    let platform = tart_oci::parse_platform("linux/s390x").unwrap();
    let error = client().resolve(&server.image("app:1"), &platform, &Auth::Anonymous).await.unwrap_err();
    insta::assert_snapshot!(error, @"no image for linux/s390x; there are: linux/arm64, linux/amd64");
}
