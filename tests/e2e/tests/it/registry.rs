//! Jobs in images of a real registry.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;
use tart_e2e::{Config, Flow, Gate, JOB, Process, SOON, Scene};
use tart_test_gitlab::{Image, JobHandle, JobSpec, JobState};
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, samples};

fn push(registry: &TestRegistry, image: &ImageBuilder, name: &str) {
    registry.push_image(image, name).expect("the registry takes it");
}

/// Busybox with an entrypoint, a user, variables and a working directory.
fn particular() -> ImageBuilder {
    let entry = "#!/bin/sh\necho entrypoint in $PWD with $# arguments\nexec \"$@\"\n";
    let files = Files::new()
        .directory("srv/", 0o755)
        .owned_file("srv/hello", 0o640, (1000, 1000), "hello from the image\n")
        .file("entry", 0o755, entry);
    samples::busybox()
        .expect("busybox-static is installed")
        .layer(files.tar(), Compression::Zstd)
        .config("Entrypoint", json!(["/entry"]))
        .config("User", json!("builder"))
        .config("WorkingDir", json!("/srv"))
        .config("Env", json!(["PATH=/bin", "GREETING=from the image"]))
}

/// Busybox and nothing else but these files.
fn tree(files: Files) -> ImageBuilder {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let files = files.file("bin/busybox", 0o755, program).hard_link("bin/sh", "bin/busybox");
    ImageBuilder::new().layer(files.tar(), Compression::Gzip)
}

/// Images and layers of a store, and what is half done.
fn kept(store: &Path) -> Vec<String> {
    let mut kept = Vec::new();
    for directory in ["tmp", "entries/pulled", "entries/layer", "entries/reference"] {
        for entry in std::fs::read_dir(store.join(directory)).expect("the store is there") {
            kept.push(format!("{directory}/{}", entry.expect("it is readable").file_name().display()));
        }
    }
    kept
}

async fn finished(job: &JobHandle, wanted: JobState) -> String {
    assert_eq!(job.wait_finished(JOB).await, wanted, "{}", job.log());
    job.log()
}

fn assert_has(log: &str, expected: &[&str]) {
    for text in expected {
        assert!(log.contains(text), "no {text:?} in {log}");
    }
}

/// Busybox and a file that is too large for the buffers on the way, and does not compress.
fn large() -> ImageBuilder {
    let files = Files::new().file("noise", 0o644, samples::noise(1, 24 << 20));
    samples::busybox().expect("busybox-static is installed").layer(files.tar(), Compression::Gzip)
}

#[tokio::test]
async fn three_images_in_one_pipeline() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default());
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    push(&registry, &samples::busybox().expect("busybox-static is installed"), "library/busybox:1");
    push(&registry, &particular(), "team/particular:1");
    // The default image, a whole Debian, by way of a file.
    let archive = scene.path("debian.tar");
    scene.succeed(["image", "export", "default", &archive.display().to_string()], JOB).await;
    registry.copy(&format!("docker-archive:{}", archive.display()), "debian:12", &[]).expect("it is pushed");

    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "from git\n").await;
    let script = |name: &str, lines: &[&str]| {
        JobSpec::of(&project, lines.iter().copied()).image(registry.reference(name).as_str()).name(name)
    };
    let lines =
        ["cat a.txt", "echo bash=${BASH_VERSION:-none} user=$(id -u) home=$HOME", "busybox | grep BusyBox"];
    let busybox = scene.server.enqueue(script("library/busybox:1", &lines)).await;
    let lines = [
        "cat a.txt /srv/hello",
        "echo $GREETING user=$(id -un) groups=$(id -Gn)",
        "touch made && ls -l made",
    ];
    let particular = scene.server.enqueue(script("team/particular:1", &lines)).await;
    let lines =
        ["cat a.txt", "echo bash=${BASH_VERSION:-none}", "cat /etc/debian_version", "perl -e 'print 6*7'"];
    let debian = scene.server.enqueue(script("debian:12", &lines)).await;
    let again = scene.server.enqueue(script("library/busybox:1", &["echo again"]).name("again")).await;
    let tart = scene.run();

    let log = finished(&busybox, JobState::Success).await;
    let name = registry.reference("library/busybox:1");
    assert_has(
        &log,
        &[
            &format!("Using effective pull policy of [always] for container {name}"),
            &format!("Pulling docker image {name} ..."),
            "Using docker image sha256:",
            &format!(" for {name} with digest {}@sha256:", registry.reference("library/busybox")),
            "from git",
            "bash=none user=0 home=/root",
            "BusyBox v1.",
        ],
    );
    let log = finished(&particular, JobState::Success).await;
    assert_has(
        &log,
        &[
            "entrypoint in /srv with 3 arguments",
            "hello from the image",
            "from the image user=builder groups=builder staff",
        ],
    );
    let log = finished(&debian, JobState::Success).await;
    assert_has(&log, &["bash=5.", "12.", "42"]);
    let log = finished(&again, JobState::Success).await;
    assert!(!log.contains("Downloaded"), "the image is here already: {log}");
    scene.drain(tart).await;

    let listed = scene.succeed(["image", "ls", "--json"], SOON).await;
    assert_has(&listed, &[&name, "\"in_use\": false"]);
    scene.succeed(["image", "rm", &name], SOON).await;
    assert!(!scene.succeed(["image", "ls"], SOON).await.contains(&name));
    scene.finish();
}

#[tokio::test]
async fn what_is_not_allowed_or_not_there_is_said_before_a_machine_starts() {
    let scene = Scene::start(&Config::default()).await;
    let users = vec![("ci".to_owned(), "correct-horse".to_owned())];
    let registry = TestRegistry::start(Options { users, tls: true }).expect("a registry");
    push(&registry, &samples::busybox().expect("busybox-static is installed"), "app:1");
    let name = registry.reference("app:1");
    let address = registry.address();
    let docker =
        format!("allowed_images = [\"{address}/*:*\"]\nallowed_pull_policies = [\"always\", \"never\"]");
    let store = scene.own_store(Config::default().docker(&docker));

    let job = |image: Image| JobSpec::script(["true"]).image(image).env("GIT_STRATEGY", "none");
    let other = scene.server.enqueue(job(Image::new("ruby:3")).name("other")).await;
    let policy = Image::new(&name).pull_policy(["if-not-present"]);
    let policy = scene.server.enqueue(job(policy).name("policy")).await;
    let never = scene.server.enqueue(job(Image::new(&name).pull_policy(["never"])).name("never")).await;
    let nobody = scene.server.enqueue(job(Image::new(&name)).name("nobody")).await;
    let wrong = job(Image::new(&name)).name("wrong").registry_credentials(address, "ci", "wrong-horse");
    let wrong = scene.server.enqueue(wrong).await;
    let config = json!({ "auths": { address: { "username": "ci", "password": "correct-horse" } } });
    let missing = job(Image::new(registry.reference("none:1"))).name("missing");
    let missing = scene.server.enqueue(missing.env("DOCKER_AUTH_CONFIG", config.to_string())).await;
    let right = job(Image::new(&name)).name("right").registry_credentials(address, "ci", "correct-horse");
    let right = scene.server.enqueue(right).await;
    let tart = scene.run();

    for (job, texts) in [
        (&other, &["the image `ruby:3` is not on the runner's list of allowed images"][..]),
        (
            &policy,
            &["pull_policy ([if-not-present]) defined in GitLab pipeline config is not one of the \
               allowed_pull_policies ([always never])"],
        ),
        (&never, &["here, and the pull policy `never` does not allow to fetch it"]),
        (&nobody, &["without credentials"]),
        (&wrong, &["Authenticating with credentials from job payload (GitLab Registry)", "denies access to"]),
        (&missing, &["Authenticating with credentials from $DOCKER_AUTH_CONFIG", "was not found at"]),
    ] {
        let log = finished(job, JobState::Failed).await;
        assert_has(&log, texts);
        assert_eq!(job.failure_reason().as_deref(), Some("runner_configuration_error"), "{log}");
        assert!(!log.contains("Starting a microVM"), "{log}");
        assert!(!log.contains("horse"), "a password is in the log: {log}");
    }
    finished(&right, JobState::Success).await;
    scene.drain(tart).await;
    let all = std::process::Command::new("grep")
        .args(["-rl", "correct-horse"])
        .args([&store, &scene.path("state"), &scene.path("tmp")])
        .output()
        .expect("grep runs");
    assert!(all.stdout.is_empty(), "a password is on the disk: {}", String::from_utf8_lossy(&all.stdout));
    scene.finish();
}

#[tokio::test]
async fn images_that_cannot_be_used_fail_clearly_and_leave_nothing() {
    let scene = Scene::start(&Config::default()).await;
    let store = scene.own_store(Config::default());
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    let hostile = |files: Files| ImageBuilder::new().layer(files.tar(), Compression::Gzip);
    push(&registry, &hostile(Files::new().file("../../../etc/cron.d/x", 0o644, "x")), "escape:1");
    push(&registry, &particular(), "damaged:1");
    let layer = registry.layers("damaged:1").expect("it has layers").remove(1);
    let blob = registry.blob_file(&layer);
    let mut bytes = std::fs::read(&blob).expect("it is stored");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).expect("it is writable");
    push(&registry, &samples::shellless().expect("busybox-static is installed"), "shellless:1");

    let job = |name: &str| {
        let image = registry.reference(name);
        JobSpec::script(["true"]).image(image.as_str()).name(name).env("GIT_STRATEGY", "none")
    };
    let escape = scene.server.enqueue(job("escape:1")).await;
    let damaged = scene.server.enqueue(job("damaged:1")).await;
    let tart = scene.run();
    for (job, text) in [(&escape, "leads out of the image"), (&damaged, "it was damaged or forged")] {
        let log = finished(job, JobState::Failed).await;
        assert_has(&log, &[text]);
        assert_eq!(job.failure_reason().as_deref(), Some("image_pull_failure"), "{log}");
        assert_eq!(kept(&store), [""; 0], "{log}");
    }
    let entrypoint = scene.server.enqueue(job("shellless:1")).await;
    let cleared = Image::new(registry.reference("shellless:1")).entrypoint([""]);
    let cleared = JobSpec::script(["true"]).image(cleared).name("cleared").env("GIT_STRATEGY", "none");
    let cleared = scene.server.enqueue(cleared).await;
    finished(&entrypoint, JobState::Failed).await;
    let log = finished(&cleared, JobState::Failed).await;
    assert_has(&log, &["the image has no shell"]);
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn jobs_that_need_an_image_at_once_fetch_it_once() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default().concurrent(2));
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    push(&registry, &particular(), "app:1");
    let job = |name: &str| {
        let image = registry.reference("app:1");
        JobSpec::script(["echo done"]).image(image.as_str()).name(name).env("GIT_STRATEGY", "none")
    };
    let one = scene.server.enqueue(job("one")).await;
    let two = scene.server.enqueue(job("two")).await;
    let tart = scene.run();
    finished(&one, JobState::Success).await;
    finished(&two, JobState::Success).await;
    scene.drain(tart).await;
    let requests = registry.requests().expect("the registry answers");
    for layer in registry.layers("app:1").expect("it has layers") {
        let line = format!("GET /v2/app/blobs/{layer} HTTP/1.1 200");
        assert_eq!(requests.iter().filter(|request| **request == line).count(), 1, "{requests:#?}");
    }
    scene.finish();
}

#[tokio::test]
async fn a_pull_is_cancelled_and_goes_on_where_it_stopped() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default());
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    let gate = Gate::to(registry.address()).await;
    push(&registry, &large(), "large:1");
    let name = format!("{}/large:1", gate.address());
    let job = |title: &str| {
        JobSpec::script(["ls -l /noise"]).image(name.as_str()).name(title).env("GIT_STRATEGY", "none")
    };

    gate.set(Flow::Hold(8 << 20));
    let cancelled = scene.server.enqueue(job("cancelled")).await;
    let tart = scene.run();
    // The line that comes every few seconds.
    cancelled.wait_log_contains("Downloaded ", JOB).await;
    cancelled.cancel();
    let log = finished(&cancelled, JobState::Canceled).await;
    assert!(!log.contains("Starting a microVM"), "{log}");

    gate.set(Flow::Cut(4 << 20));
    let resumed = scene.server.enqueue(job("resumed")).await;
    let log = finished(&resumed, JobState::Success).await;
    assert_has(&log, &["25165824", "2 of 2 layers"]);
    scene.drain(tart).await;
    let requests = registry.requests().expect("the registry answers");
    let partial = requests.iter().filter(|request| request.ends_with(" 206")).count();
    assert!(partial >= 2, "once after the cancellation, once after the cut: {requests:#?}");

    // A registry that is gone is the network's fault, and is said.
    drop(gate);
    drop(registry);
    let gone = scene.server.enqueue(job("gone")).await;
    let tart = scene.run();
    let log = finished(&gone, JobState::Failed).await;
    assert_has(&log, &["cannot reach 127.0.0.1:"]);
    assert_eq!(gone.failure_reason().as_deref(), Some("runner_external_dependency_failure"));
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn a_killed_pull_leaves_what_the_next_one_goes_on_with() {
    let scene = Scene::start(&Config::default()).await;
    let store = scene.own_store(Config::default());
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    let gate = Gate::to(registry.address()).await;
    push(&registry, &large(), "large:1");
    let name = format!("{}/large:1", gate.address());
    gate.set(Flow::Hold(8 << 20));
    let mut killed = Process::start(scene.tart(["image", "pull", &name]));
    killed.wait_output("Downloaded ", JOB).await;
    killed.signal(Signal::KILL);
    killed.wait(SOON).await;
    let listed = scene.succeed(["image", "ls", "--json"], SOON).await;
    assert!(!listed.contains("large"), "half an image is listed: {listed}");

    gate.set(Flow::Open);
    scene.succeed(["image", "pull", &name], JOB).await;
    let requests = registry.requests().expect("the registry answers");
    assert!(requests.iter().any(|request| request.ends_with(" 206")), "{requests:#?}");
    let left: Vec<_> = kept(&store).into_iter().filter(|name| name.starts_with("tmp/")).collect();
    assert_eq!(left, [""; 0]);
    scene.succeed(["assets", "verify"], SOON).await;
    scene.finish();
}

#[tokio::test]
async fn exec_uses_images_of_registries_too() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default());
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    push(&registry, &particular(), "app:1");
    let repository = scene.path("repository");
    std::fs::create_dir(&repository).expect("it is new");
    let file = format!("job:\n  image: {}\n  script: [cat /srv/hello]\n", registry.reference("app:1"));
    std::fs::write(repository.join(".gitlab-ci.yml"), file).expect("it is writable");
    let git =
        "git init -q -b main . && git add . && git -c user.name=a -c user.email=a@example.com commit -qm a";
    let made = std::process::Command::new("sh").args(["-euc", git]).current_dir(&repository).status();
    assert!(made.expect("sh runs").success());
    for _ in 0..2 {
        let mut command = scene.tart(["exec", "job"]);
        command.env("TART_ASSETS_DIR", scene.path("assets")).current_dir(&repository);
        let log = Process::start(command).succeed(JOB).await;
        assert_has(&log, &["hello from the image", "Using effective pull policy of [if-not-present]"]);
    }
    let requests = registry.requests().expect("the registry answers");
    let asked = requests.iter().filter(|request| request.starts_with("HEAD /v2/app/manifests/1 ")).count();
    assert_eq!(asked, 1, "the second run finds the image: {requests:#?}");
    scene.finish();
}

#[tokio::test]
async fn bare_and_hostile_file_trees_confuse_nobody() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default());
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "from git\n").await;
    // Neither users, nor names, nor temporary files, nor mount points.
    let bare = tree(Files::new()).config("User", json!("4321:99"));
    let links = Files::new()
        .symlink("builds", "data")
        .directory("data/", 0o755)
        .symlink("etc", "/config")
        .symlink("config/resolv.conf", "/run/none/resolv.conf")
        .symlink("tmp", "/nowhere");
    let files = Files::new()
        .file("proc", 0o644, "x")
        .symlink("dev", "/etc")
        .file("etc", 0o644, "y")
        .symlink("cache", "../../../../run/tart")
        .symlink("builds", "/builds");
    let dangling =
        Files::new().symlink("bin/sh", "/bin/nothing").symlink("bin/bash", "/../../../../bin/bash");
    let dangling = ImageBuilder::new().layer(dangling.tar(), Compression::Gzip);
    let script = ["busybox cat a.txt", "echo user=$(busybox id -u) group=$(busybox id -g)"];
    let mut jobs = Vec::new();
    for (name, image) in
        [("bare:1", bare), ("links:1", tree(links)), ("files:1", tree(files)), ("dangling:1", dangling)]
    {
        push(&registry, &image, name);
        let image = registry.reference(name);
        let spec = JobSpec::of(&project, script).image(image.as_str()).name(name);
        jobs.push(scene.server.enqueue(spec).await);
    }
    let tart = scene.run();
    let expected = [
        (JobState::Success, "user=4321 group=99"),
        (JobState::Success, "user=0 group=0"),
        (JobState::Failed, "the guest could not be set up: cannot make the directory `/run/tart/job/"),
        (JobState::Failed, "the image has no shell"),
    ];
    for (job, (state, text)) in jobs.iter().zip(expected) {
        let log = finished(job, state).await;
        assert_has(&log, &[text]);
        assert_eq!(log.matches("Starting a microVM").count(), 1, "trying again does not help: {log}");
        assert_eq!(log.contains("Z 01O from git"), state == JobState::Success, "{log}");
    }
    scene.drain(tart).await;
    scene.finish();
}
