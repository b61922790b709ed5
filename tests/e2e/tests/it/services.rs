//! Services of jobs: beside the job in its VM, apart from it and from each other.

use serde_json::json;
use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{Image, JobHandle, JobSpec, JobState, Variable};
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, samples};

/// A web server that exposes two ports and listens on one, and says on its pages what it sees of the guest.
fn web() -> ImageBuilder {
    let serve = "#!/bin/sh\n\
        mkdir -p /srv\n\
        { echo \"host=$(cat /etc/hostname) $(busybox hostname) user=$(id -u) own=$OWN public=$PUBLIC secret=${SECRET:-none}\"\n\
          echo \"processes: $(ps | grep -c -v PID) first=$$ tree=$(cat /etc/whose)\"\n\
          echo \"builds: $(ls /builds) hosts: $(cut -f 2 /etc/hosts | tr '\\n' ' ')\"\n\
        } > /srv/index.html\n\
        echo \"serving $1\"\n\
        exec busybox httpd -f -p 8080 -h /srv\n";
    let files = Files::new().file("bin/serve", 0o755, serve).file("etc/whose", 0o644, "service\n");
    samples::busybox()
        .expect("busybox-static is installed")
        .layer(files.tar(), Compression::Gzip)
        .config("Entrypoint", json!(["/bin/serve"]))
        .config("Cmd", json!(["by default"]))
        .config("ExposedPorts", json!({"9999/tcp": {}, "8080/tcp": {}}))
}

fn registry() -> TestRegistry {
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    registry.push_image(&web(), "tools/web:1").expect("the registry takes it");
    registry
}

fn service(registry: &TestRegistry, alias: &str) -> Image {
    Image::new(registry.reference("tools/web:1")).alias(alias)
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

#[tokio::test]
async fn services_are_reached_by_their_names_and_see_nothing_of_the_job() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default());
    let registry = registry();
    let one = service(&registry, "one, first").variable(Variable::new("OWN", "mine-$PUBLIC"));
    let two = service(&registry, "two").command(["on request"]);
    let script = [
        "curl -s http://one:8080/ | sed 's/^/one: /'",
        "curl -s http://two:8080/ | sed 's/^/two: /'",
        "curl -s http://first:8080/ -o /dev/null && echo alias works",
        "echo host $(hostname) sees $(ps -e | grep -c httpd) servers",
        "nobody() { ! curl -s -m 2 \"$1\" >/dev/null && echo \"nobody at $1\"; }; nobody http://localhost:8080/",
        "test ! -e /etc/whose && echo own tree",
    ];
    let job = JobSpec::script(script)
        .service(one)
        .service(two)
        .variable(Variable::new("PUBLIC", "for all"))
        .variable(Variable::new("SECRET", "hidden").private());
    let job = scene.server.enqueue(job).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    let name = registry.reference("tools/web:1");
    assert_has(
        &log,
        &[
            &format!("Starting service {name} ..."),
            "Waiting for services to be up and running (timeout 30 seconds)...",
            "one: host=web-0 web-0 user=0 own=mine-for all public=for all secret=none",
            "two: host=web-1 web-1 user=0 own= public=for all secret=none",
            "one: processes: ",
            "first=1 tree=service",
            "alias works",
            "nobody at http://localhost:8080/",
            "own tree",
        ],
    );
    assert!(!log.contains("probably didn't start properly"), "{log}");
    scene.drain(tart).await;
    scene.finish();
}
