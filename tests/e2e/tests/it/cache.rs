//! Caches: what survives the guests that made it, and whose it is.

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{Cache, JobHandle, JobSpec, JobState, ProjectHandle};

pub(crate) async fn run(
    scene: &Scene,
    project: &ProjectHandle,
    script: &str,
    caches: Vec<Cache>,
) -> JobHandle {
    run_spec(scene, caches.into_iter().fold(JobSpec::of(project, [script]), JobSpec::cache)).await
}

async fn run_spec(scene: &Scene, spec: JobSpec) -> JobHandle {
    let job = scene.server.enqueue(spec).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    job
}

#[track_caller]
pub(crate) fn shows(job: &JobHandle, expected: &[&str]) {
    let log = job.log();
    for expected in expected {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
}

const FILL: &str =
    "ls deps 2>/dev/null || echo cold; mkdir -p deps/sub; echo one > deps/sub/x; chmod 700 deps/sub/x";

#[tokio::test]
async fn caches_survive_guests_and_runners_and_belong_to_their_project() {
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let cache = |key: &str| Cache::new(key, ["deps/", "none/"]);

    let first = run(&scene, &project, FILL, vec![cache("deps-$CI_COMMIT_REF_NAME")]).await;
    shows(
        &first,
        &[
            "Restoring cache",
            "Checking cache for deps-main...",
            "Failed to extract cache",
            "cold",
            "Saving cache for successful job",
            "Creating cache deps-main...",
            "deps/: found 3 matching artifact files and directories",
            "Created cache",
        ],
    );

    let look = "echo found=$(cat deps/sub/x) mode=$(stat -c %a deps/sub/x); echo two > deps/sub/x";
    let second = run(&scene, &project, look, vec![cache("deps-main").policy("pull")]).await;
    shows(
        &second,
        &[
            "Successfully extracted cache",
            "found=one mode=700",
            "Not uploading cache deps-main due to policy",
        ],
    );

    // Another key falls back to that one, and is saved as its own; nothing of the job before is in it.
    let fallback = cache("new").fallback_keys(["gone", "deps-main"]);
    let third = run(&scene, &project, look, vec![fallback]).await;
    shows(&third, &["Checking cache for gone...", "found=one mode=700", "Creating cache new..."]);
    let fourth = run(&scene, &project, look, vec![cache("x/../new").policy("pull")]).await;
    shows(&fourth, &["cache key \"x/../new\" sanitized to \"new\"", "found=two mode=700"]);

    let other = scene.server.create_project("group/other").await;
    other.commit_file("a.txt", "1\n").await;
    let fifth = run(&scene, &other, FILL, vec![cache("deps-main").policy("pull")]).await;
    shows(&fifth, &["Failed to extract cache", "cold"]);
    scene.finish();
}

#[tokio::test]
async fn caches_have_limits_and_never_fail_a_job() {
    let config = Config::default().microvm("cache_quota = \"1m\"");
    let scene = Scene::start(&config).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let script = "mkdir big small; head -c 3000000 /dev/urandom > big/x; echo 1 > small/x; echo 1 > loose";
    let caches = vec![
        Cache::new("big", ["big"]),
        Cache::new("nothing", ["nothing"]),
        Cache::new("odd", ["small"]).policy("pul"),
        Cache::new("failed", ["small"]).when("on_failure"),
        Cache::new("loose", Vec::<String>::new()).untracked(),
        Cache::new("small", ["small"]),
    ];
    let job = run(&scene, &project, script, caches).await;
    shows(
        &job,
        &[
            "the cache is larger than the 1048576 bytes that it may have",
            "Failed to create cache",
            "No files to cache.",
            "unknown cache policy pul: the cache is not used",
            "untracked: found 3 files",
            "Creating cache small...",
        ],
    );
    assert!(!job.log().contains("Creating cache failed"), "{}", job.log());
    scene.finish();
}

#[tokio::test]
async fn caches_that_did_not_change_are_not_saved_again_in_any_form() {
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let job = |script: &str, format: &str| {
        let spec = JobSpec::of(&project, [script]).cache(Cache::new("key", ["deps/"]));
        spec.env("CACHE_COMPRESSION_FORMAT", format).env("CACHE_COMPRESSION_LEVEL", "slow")
    };
    let first = run_spec(&scene, job(FILL, "tarzstd")).await;
    shows(&first, &["Created cache"]);
    assert!(!first.log().contains("up to date"), "{}", first.log());
    let second = run_spec(&scene, job("cat deps/sub/x", "zip")).await;
    shows(&second, &["Successfully extracted cache", "one", "Archive is up to date!", "Created cache"]);
    // Also a file that is only gone is a change.
    let third = run_spec(&scene, job("rm deps/sub/x; echo two > deps/y", "zipzstd")).await;
    assert!(!third.log().contains("up to date"), "{}", third.log());
    let fourth = run_spec(&scene, job("echo $(ls deps deps/sub) $(cat deps/y)", "zip")).await;
    shows(&fourth, &["deps: sub y deps/sub: two", "Archive is up to date!"]);
    scene.finish();
}
