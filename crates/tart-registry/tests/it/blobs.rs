//! Layers of registries that misbehave.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use tart_registry::{Auth, Registry, RegistryError, RegistrySettings};

use crate::server::{Reply, Request, Server, client, descriptor};

/// A blob of some chunks.
fn blob() -> Vec<u8> {
    (0..300_000_u32).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

/// Fetches the blob of a server whose answers are given.
struct Scene {
    server: Server,
    directory: tempfile::TempDir,
    /// The most that `progress` heard.
    most: AtomicU64,
}

impl Scene {
    async fn new(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let server = Server::start(answer).await;
        Self { server, directory: tempfile::tempdir().unwrap(), most: AtomicU64::new(0) }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("layer.partial")
    }

    fn begin(self, bytes: &[u8]) -> Self {
        std::fs::write(self.file(), bytes).unwrap();
        self
    }

    async fn fetch_by(&self, registry: &Registry) -> Result<(), RegistryError> {
        let image = self.server.image("team/app:1");
        let progress = |bytes: u64| {
            self.most.fetch_max(bytes, Ordering::Relaxed);
        };
        registry.fetch_blob(&image, &descriptor(&blob()), &self.file(), &Auth::Anonymous, &progress).await
    }

    async fn fetch(&self) -> Result<(), RegistryError> {
        self.fetch_by(&client()).await
    }

    fn is_whole(&self) -> bool {
        std::fs::read(self.file()).unwrap() == blob() && self.most.load(Ordering::Relaxed) == 300_000
    }

    /// The parts that were asked for.
    fn parts(&self) -> Vec<String> {
        let path = format!("GET /v2/team/app/blobs/{}", descriptor(&blob()).digest());
        let part = |line: String| {
            line.strip_prefix(&path).unwrap_or_else(|| panic!("{line}")).trim_start().to_owned()
        };
        self.server.lines().into_iter().map(part).collect()
    }

    fn text(&self, error: &RegistryError) -> String {
        error.to_string().replace(&self.server.address, "REGISTRY")
    }
}

#[tokio::test]
async fn a_beginning_is_continued() {
    let scene = Scene::new(|request, _| Reply::part(&blob(), request)).await.begin(&blob()[..100_000]);
    scene.fetch().await.unwrap();
    assert!(scene.is_whole());
    assert_eq!(scene.parts(), ["[range: bytes=100000-]"]);
}

#[tokio::test]
async fn a_whole_file_is_only_checked() {
    let scene = Scene::new(|_, _| Reply::new(500, "")).await.begin(&blob());
    scene.fetch().await.unwrap();
    assert!(scene.parts().is_empty());
}

#[tokio::test]
async fn a_server_may_send_everything_again() {
    let scene = Scene::new(|_, _| Reply::new(200, blob())).await.begin(&blob()[..100_000]);
    scene.fetch().await.unwrap();
    assert!(scene.is_whole());
    assert_eq!(scene.parts(), ["[range: bytes=100000-]"]);
}

/// Whatever a server answers to a request for the rest, the whole is asked for next.
async fn begun_anew(rest: impl Fn() -> Reply + Send + Sync + 'static) {
    let scene = Scene::new(move |request, _| match request.from() {
        Some(_) => rest(),
        None => Reply::new(200, blob()),
    });
    let scene = scene.await.begin(&blob()[..100_000]);
    scene.fetch().await.unwrap();
    assert!(scene.is_whole());
    assert_eq!(scene.parts(), ["[range: bytes=100000-]", ""]);
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_not_taken() {
    begun_anew(|| Reply::new(206, &blob()[7..]).header("Content-Range", "bytes 7-299999/300000")).await;
}

#[tokio::test]
async fn a_range_that_is_refused_is_given_up() {
    begun_anew(|| Reply::new(416, "")).await;
}

#[tokio::test]
async fn lost_connections_are_continued_where_they_were_lost() {
    let scene = Scene::new(|request, before| match before {
        0 => Reply::part(&blob(), request).cut(1000),
        1 => Reply::part(&blob(), request).cut(50_000),
        _ => Reply::part(&blob(), request),
    });
    let scene = scene.await;
    scene.fetch().await.unwrap();
    assert!(scene.is_whole());
    assert_eq!(scene.parts(), ["", "[range: bytes=1000-]", "[range: bytes=51000-]"]);
}

#[tokio::test]
async fn what_came_before_the_connection_was_lost_for_good_stays() {
    let scene = Scene::new(|request, _| Reply::part(&blob(), request).cut(1000)).await;
    let error = scene.fetch().await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }) && error.is_worth_retrying(), "{error}");
    assert_eq!(std::fs::read(scene.file()).unwrap(), blob()[..3000]);
}

#[tokio::test]
async fn a_blob_that_is_too_short_is_refused() {
    let scene = Scene::new(|request, _| match request.from() {
        Some(_) => Reply::new(416, ""),
        None => Reply::new(200, &blob()[..1000]),
    });
    let scene = scene.await;
    let error = refusal(&scene).await;
    insta::assert_snapshot!(error, @"REGISTRY sent something unusable for layer 3c65ea93424a: it ends after 1000 of 300000 bytes");
    assert!(!scene.file().exists());
}

/// The text of the error.
async fn refusal(scene: &Scene) -> String {
    let error = scene.fetch().await.unwrap_err();
    scene.text(&error)
}

#[tokio::test]
async fn a_blob_that_is_too_long_is_refused_before_it_is_written() {
    let scene = Scene::new(|_, _| Reply::new(200, [blob(), blob()].concat())).await;
    let error = refusal(&scene).await;
    insta::assert_snapshot!(error, @"REGISTRY sent something unusable for layer 3c65ea93424a: it has more than the 300000 bytes that the manifest says");
    assert!(!scene.file().exists());
    assert!(scene.most.load(Ordering::Relaxed) <= 300_000);
}

#[tokio::test]
async fn a_forged_blob_is_refused() {
    let forged = || vec![7; blob().len()];
    let scene = Scene::new(move |_, _| Reply::new(200, forged())).await;
    let error = refusal(&scene).await;
    insta::assert_snapshot!(error, @"REGISTRY sent something unusable for layer 3c65ea93424a: its digest is sha256:08f166476de183f7a1b2874d544d37912aaf8d19b92013e1aafe233ba231024a: it was damaged or forged");
    assert!(!scene.file().exists());
    assert_eq!(scene.parts(), [""], "it is not asked for again");
}

#[tokio::test]
async fn a_damaged_beginning_is_fetched_anew() {
    let scene = Scene::new(|request, _| Reply::part(&blob(), request)).await.begin(&[7; 100_000]);
    scene.fetch().await.unwrap();
    assert!(scene.is_whole());
    assert_eq!(scene.parts(), ["[range: bytes=100000-]", ""]);
}

#[tokio::test]
async fn a_busy_registry_says_when_to_come_again() {
    let scene = Scene::new(|request, before| match before {
        0 => Reply::new(429, "").header("Retry-After", 0),
        1 => Reply::new(503, "").header("Retry-After", 0),
        _ => Reply::part(&blob(), request),
    });
    let scene = scene.await;
    // Nobody waits for this.
    let settings = RegistrySettings { backoff: std::time::Duration::from_secs(86_400), ..Default::default() };
    scene.fetch_by(&Registry::new(settings).unwrap()).await.unwrap();
    assert!(scene.is_whole());
}

#[tokio::test]
async fn patience_ends() {
    let limit = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#;
    let scene = Scene::new(move |_, _| Reply::new(429, limit)).await;
    let error = refusal(&scene).await;
    insta::assert_snapshot!(error, @"REGISTRY answered 429 for layer 3c65ea93424a: pull rate limit");
    assert_eq!(scene.parts().len(), 3);
}

#[tokio::test]
async fn what_is_not_there_is_not_asked_for_again() {
    let scene = Scene::new(|_, _| Reply::new(404, "")).await;
    let error = refusal(&scene).await;
    insta::assert_snapshot!(error, @"layer 3c65ea93424a was not found at REGISTRY, whose image names it: push the image again");
    assert_eq!(scene.parts().len(), 1);
}
