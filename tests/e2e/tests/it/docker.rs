//! Container engines in a job's VM: Docker beside the job as a service, Docker in the job, and buildah. None of them
//! asks for a right on the host.

use serde_json::json;
use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{Image, JobHandle, JobSpec, JobState};
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, samples};

/// Debian's Docker, which starts the daemon when nothing else is said, and files to build an image of.
fn docker() -> ImageBuilder {
    let files =
        samples::debian(&["docker.io", "iptables", "busybox-static", "curl", "grep", "ca-certificates"])
            .expect("mmdebstrap fetches them");
    let mut own = Files::new()
        .directory("tmp/", 0o1777)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\ndocker:x:100:\n");
    for name in ["iptables", "ip6tables", "iptables-save", "iptables-restore"] {
        own = own.symlink(&format!("usr/sbin/{name}"), "xtables-nft-multi");
    }
    ImageBuilder::new()
        .layer(files, Compression::None)
        .layer(own.tar(), Compression::Gzip)
        .config("Env", json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]))
        .config("Volumes", json!({"/var/lib/docker": {}}))
        .config("ExposedPorts", json!({"2375/tcp": {}, "2376/tcp": {}}))
}

fn push(image: &ImageBuilder) -> TestRegistry {
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    registry.push_image(image, "docker:dind").expect("the registry takes it");
    registry
}

fn config() -> Config {
    Config::default().microvm("memory = \"1536MiB\"").docker("wait_for_services_timeout = 300")
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

/// Builds an image, runs it, and reaches a port that one of its containers serves, at `host`.
fn script(host: &str) -> Vec<String> {
    vec![
        "mkdir app && cp /bin/busybox app/ && cd app".to_owned(),
        "printf 'FROM scratch\\nCOPY busybox /bin/\\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo built by $(busybox id -u) > /made\"]\\nCMD [\"/bin/busybox\", \"cat\", \"/made\"]\\n' > Dockerfile".to_owned(),
        "docker version --format 'server {{.Server.Version}}' && docker info --format '{{.Driver}} {{.CgroupVersion}}'".to_owned(),
        "docker build -q -t made .".to_owned(),
        "docker run --rm -m 64m made".to_owned(),
        "docker run -d -p 8000:80 -v /made:/www made /bin/busybox httpd -f -p 80 -h /".to_owned(),
        format!("curl -s --retry 20 --retry-connrefused http://{host}:8000/made"),
        "docker ps --format '{{.Ports}}'".to_owned(),
    ]
}

#[tokio::test]
async fn docker_as_a_service_builds_and_runs() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(config());
    let daemon = ["dockerd", "-H", "tcp://0.0.0.0:2375", "-H", "unix:///var/run/docker.sock"];
    let registry = push(&docker().config("Cmd", json!(daemon)));
    let name = registry.reference("docker:dind");
    let job = JobSpec::script(script("docker"))
        .image(Image::new(name.clone()))
        .env("DOCKER_HOST", "tcp://docker:2375")
        .service(Image::new(name).alias("docker"));
    let job = scene.server.enqueue(job).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    assert_has(&log, &["server 20.10", "overlay2 2", "built by 0", "0.0.0.0:8000->80/tcp"]);
    assert!(!log.contains("probably didn't start properly"), "{log}");
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn docker_in_the_job_itself_builds_and_runs() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(config());
    let registry = push(&docker());
    let start =
        "dockerd >/tmp/dockerd.log 2>&1 & until docker info >/dev/null 2>&1; do sleep 1; done".to_owned();
    let lines = std::iter::once(start).chain(script("localhost"));
    let job = JobSpec::script(lines).image(Image::new(registry.reference("docker:dind")));
    let job = scene.server.enqueue(job).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    assert_has(&log, &["server 20.10", "overlay2 2", "built by 0", "0.0.0.0:8000->80/tcp"]);
    scene.drain(tart).await;
    scene.finish();
}

/// Debian's buildah and podman, with nothing but their own defaults.
fn buildah() -> ImageBuilder {
    let packages = ["buildah", "podman", "crun", "netavark", "aardvark-dns", "iptables", "busybox-static"];
    let files = samples::debian(&packages).expect("mmdebstrap fetches them");
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    let mut own = Files::new()
        .directory("tmp/", 0o1777)
        .directory("var/tmp/", 0o1777)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\n")
        .file("etc/containers/policy.json", 0o644, policy);
    for name in ["iptables", "ip6tables"] {
        own = own.symlink(&format!("usr/sbin/{name}"), "xtables-nft-multi");
    }
    ImageBuilder::new()
        .layer(files, Compression::None)
        .layer(own.tar(), Compression::Gzip)
        .config("Env", json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]))
}

#[tokio::test]
async fn buildah_builds_what_podman_runs() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(config());
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    registry.push_image(&buildah(), "buildah:1").expect("the registry takes it");
    let lines = [
        "mkdir app && cp /bin/busybox app/ && cd app",
        "printf 'FROM scratch\\nCOPY busybox /bin/\\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo built by $(busybox id -u) > /made\"]\\n' > Dockerfile",
        "buildah info | busybox grep GraphDriverName",
        "buildah build -q -t made .",
        "podman run --rm --cgroup-manager cgroupfs localhost/made /bin/busybox cat /made",
    ];
    let job = JobSpec::script(lines).image(Image::new(registry.reference("buildah:1")));
    let job = scene.server.enqueue(job).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    assert_has(&log, &["\"GraphDriverName\": \"overlay\"", "built by 0"]);
    scene.drain(tart).await;
    scene.finish();
}
