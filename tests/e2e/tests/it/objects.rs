//! Caches in an object store: through the host, which alone has the keys to it.

use tart_e2e::{Config, JOB, Process, Scene};
use tart_test_gitlab::{Cache, JobSpec, JobState, Variable};
use tart_test_objects::{ACCESS_KEY, CloudServer, S3Server, SECRET_KEY};

use crate::cache::{run, shows};

fn config(store: &S3Server, secret: &str, cache: &str) -> Config {
    let address = store.address();
    Config::default().runner(&format!(
        "[runners.cache]\nType = \"s3\"\nPath = \"ci\"\n{cache}\n[runners.cache.s3]\nServerAddress = \"{address}\"\n\
         BucketName = \"caches\"\nAccessKey = \"{ACCESS_KEY}\"\nSecretKey = \"{secret}\"\nInsecure = true"
    ))
}

fn deps(key: &str) -> Cache {
    Cache::new(key, ["deps/"])
}

const FILL: &str =
    "ls deps 2>/dev/null || echo cold; mkdir -p deps; echo one > deps/x; chmod 700 deps/x; env";
const LOOK: &str = "echo found=$(cat deps/x) mode=$(stat -c %a deps/x)";

#[tokio::test]
async fn caches_go_to_the_object_store_and_come_back() {
    let store = S3Server::start(&["caches"]).await.expect("a store");
    let scene = Scene::start(&config(&store, SECRET_KEY, "Shared = true")).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;

    store.fail("PUT", 503, 1);
    let first = run(&scene, &project, FILL, vec![deps("main-é")]).await;
    let id = project.id();
    let object = format!("ci/project/{id}/main-é");
    let address = format!("http://{}/caches/ci/project/{id}/main-%C3%A9", store.address());
    let uploads = format!("Uploading cache.zip to {address}\n");
    shows(
        &first,
        &["Checking cache for main-é...", "file does not exist", "Failed to extract cache", "cold"],
    );
    shows(&first, &[uploads.trim_end(), "Created cache"]);
    let archive = std::fs::read(store.file("caches", &object)).expect("the object");
    assert!(archive.starts_with(b"PK\x03\x04"));

    // Nothing of it is on the host, and nothing of the keys is anywhere near the job.
    let kept = std::fs::read_dir(scene.path("state/cache")).expect("the host's store").count();
    assert_eq!(kept, 0);
    for secret in [ACCESS_KEY, SECRET_KEY, "X-Amz"] {
        assert!(!first.log().contains(secret), "{}", first.log());
    }

    let second = run(&scene, &project, LOOK, vec![deps("main-é").policy("pull")]).await;
    let downloads = format!("Downloading cache from {address}");
    shows(&second, &[downloads.as_str(), "Successfully extracted cache", "found=one mode=700"]);

    // Hashed keys have objects of their own, and no other project sees any of them.
    let hashed = JobSpec::of(&project, [FILL]).variable(Variable::new("FF_HASH_CACHE_KEYS", "1"));
    let job = scene.server.enqueue(hashed.cache(deps("a/../b"))).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    shows(&job, &["Checking cache for a/../b...", "Created cache"]);
    let objects = store.objects("caches").expect("objects");
    let hashed =
        format!("ci/project/{id}/90/900ea8b7e0d8fe30857c1bb629272e28cfd7f7af61a81f7b6964b271b69dab69");
    assert!(objects.contains(&object) && objects.contains(&hashed), "{objects:?}");
    let other = scene.server.create_project("group/other").await;
    other.commit_file("a.txt", "1\n").await;
    let third = run(&scene, &other, FILL, vec![deps("main-é").policy("pull")]).await;
    shows(&third, &["file does not exist", "cold"]);
    scene.finish();
}

#[tokio::test]
async fn a_store_that_refuses_never_fails_a_job() {
    let store = S3Server::start(&["caches"]).await.expect("a store");
    let limits = "RedactURL = true\nMaxUploadedArchiveSize = 100000";
    let scene = Scene::start(&config(&store, "another-secret-key", limits)).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    store.fail("GET", 500, 3);
    let script = "mkdir -p deps big; echo one > deps/x; head -c 300000 /dev/urandom > big/x";
    let job =
        run(&scene, &project, script, vec![deps("main"), Cache::new("big", ["big/"]).policy("push")]).await;
    shows(
        &job,
        &[
            "Received: 500 Internal Server Error (SlowDown)",
            "Failed to extract cache",
            "Received: 403 Forbidden (SignatureDoesNotMatch)",
            "the cache is larger than the 100000 bytes that it may have",
            "Failed to create cache",
        ],
    );
    assert!(!job.log().contains(&store.address()), "{}", job.log());
    scene.finish();
}

/// Starts the runner where it finds a store at the host of its cloud: behind a proxy, with another authority.
fn run_with(store: &CloudServer, scene: &Scene) -> Process {
    let authority = scene.path("authority.pem");
    std::fs::write(&authority, store.authority()).expect("the test's directory is writable");
    let mut tart = scene.tart(["run"]);
    tart.env("HTTPS_PROXY", store.url()).env("SSL_CERT_FILE", authority);
    Process::start(tart)
}

async fn caches_go_to_a_cloud(store: &CloudServer, host: &str, config: &str) {
    let scene = Scene::start(&Config::default().runner(config)).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let run = async |script: &str| {
        let flag = Variable::new("FF_USE_PARALLEL_CACHE_TRANSFER", "1");
        let spec = JobSpec::of(&project, [script]).variable(flag).cache(deps("main-é"));
        let job = scene.server.enqueue(spec).await;
        let tart = run_with(store, &scene);
        assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
        scene.drain(tart).await;
        job
    };
    store.fail("PUT", 503, 1);
    // More than two pieces that zip makes no smaller.
    let first =
        run(&format!("{FILL}; head -c 9000000 /dev/urandom > deps/large; sha256sum deps/large")).await;
    let log = first.log();
    let line = log.lines().find(|line| line.contains("  deps/large")).expect("a sum");
    let sum = line.split_whitespace().rev().take(2).last().unwrap_or_default();
    let name = format!("project/{}/main-%C3%A9", project.id());
    let uploads = format!("Uploading cache.zip to https://{host}/caches/{name}");
    shows(&first, &["file does not exist", "cold", &uploads, "Created cache"]);
    let object = store.object(&format!("project/{}/main-é", project.id())).expect("an object");
    assert!(object.starts_with(b"PK\x03\x04"));
    for secret in [store.account(), store.key(), "Signature", "sig="] {
        let log = first.log().replace(host, "");
        assert!(!log.contains(secret), "{log}");
    }

    let second = run(&format!("{LOOK}; sha256sum deps/large")).await;
    shows(&second, &["Successfully extracted cache", "found=one mode=700", sum]);
    assert_eq!(store.seen().iter().filter(|seen| seen.status == 206).count(), 3);
    scene.finish();
}

#[tokio::test]
async fn caches_go_to_google_and_come_back_in_pieces() {
    let store = CloudServer::google("caches").await.expect("a store");
    let config = format!(
        "[runners.cache]\nType = \"gcs\"\nShared = true\n[runners.cache.gcs]\nBucketName = \"caches\"\n\
         AccessID = \"{}\"\nPrivateKey = \"\"\"\n{}\"\"\"",
        store.account(),
        store.key(),
    );
    caches_go_to_a_cloud(&store, "storage.googleapis.com", &config).await;
}

#[tokio::test]
async fn caches_go_to_azure_and_come_back_in_pieces() {
    let store = CloudServer::azure("caches").await.expect("a store");
    let account = store.account();
    let config = format!(
        "[runners.cache]\nType = \"azure\"\nShared = true\n[runners.cache.azure]\nContainerName = \"caches\"\n\
         AccountName = \"{account}\"\nAccountKey = \"{}\"",
        store.key(),
    );
    caches_go_to_a_cloud(&store, &format!("{account}.blob.core.windows.net"), &config).await;
}
