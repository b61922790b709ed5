//! `driver = "firecracker"` with a stand-in that takes the same requests and refuses the same, and whose guest truly boots,
//! in QEMU. Tests of all else run on a real Firecracker too: docs/firecracker.md says how.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use tart_assets::{AgentSource, BootRequest, KernelSource, Store, default_root};
use tart_e2e::{Config, JOB, Scene, program};
use tart_test_gitlab::{Artifacts, Cache, JobHandle, JobSpec, JobState};
use tart_test_registry::samples;

use crate::netns::finds_what_is_public;
use crate::services::{registry, service};

/// A program that is built with Tart's own for tests.
pub(crate) fn built(name: &str) -> PathBuf {
    let path = program().with_file_name(name);
    assert!(path.is_file(), "{} is not there: run `cargo xtask build --debug`", path.display());
    path
}

/// A runner with guests on Firecracker. `None` on hosts without KVM, where the driver refuses to begin.
pub(crate) fn on_firecracker(jailed: bool) -> Option<Config> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        writeln!(std::io::stderr(), "SKIPPED: /dev/kvm cannot be opened: {error}").ok();
        return None;
    }
    let jailer = if jailed { built("fake-jailer") } else { "none".into() };
    let config = Config::default().microvm("driver = \"firecracker\"");
    let config = config.microvm(&format!("firecracker = \"{}\"", built("standin-firecracker").display()));
    Some(config.microvm(&format!("jailer = \"{}\"", jailer.display())))
}

async fn finished(job: &JobHandle, wanted: JobState) -> String {
    assert_eq!(job.wait_finished(JOB).await, wanted, "{}", job.log());
    job.log()
}

#[track_caller]
fn assert_has(log: &str, expected: &[&str]) {
    for text in expected {
        assert!(log.contains(text), "no {text:?} in {log}");
    }
}

#[tokio::test]
async fn a_pipeline_runs_on_firecracker() {
    let Some(config) = on_firecracker(false) else { return };
    let scene = Scene::start(&config).await;
    scene.own_store(config);
    let registry = registry();
    registry
        .push_image(&samples::busybox().expect("busybox-static is installed"), "busybox:1")
        .expect("pushed");
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "from git\n").await;
    let lines = [
        "cat a.txt",
        "test ! -e /etc/debian_version",
        "mkdir out deps; echo made > out/x; echo kept > deps/y",
    ];
    let build = JobSpec::of(&project, lines)
        .image(registry.reference("busybox:1").as_str())
        .artifacts(Artifacts::paths(["out/"]))
        .cache(Cache::new("deps", ["deps/"]))
        .after_script(["echo after: $CI_JOB_STATUS"]);
    let build = scene.server.enqueue(build).await;
    let look = ["cat out/x deps/y", "curl -s http://one:8080/ | sed 's/^/one: /'", "cat /proc/cmdline"];
    let look = JobSpec::of(&project, look).dependency(&build).cache(Cache::new("deps", ["deps/"]));
    let look = scene.server.enqueue(look.service(service(&registry, "one"))).await;
    let endless = JobSpec::script(["echo it runs", "sleep 100000"]).env("GIT_STRATEGY", "none");
    let endless = scene.server.enqueue(endless.after_script(["echo after: $CI_JOB_STATUS"])).await;
    let tart = scene.run();

    let log = finished(&build, JobState::Success).await;
    assert_has(&log, &["on Firecracker 1.16.1", ", restored in ", "from git", "after: success"]);
    let log = finished(&look, JobState::Success).await;
    assert_has(
        &log,
        &["made", "kept", "one: host=", "tart.transport=vsock", "virtio_mmio.device=4K@0xc0001000:5"],
    );
    endless.wait_log_contains("it runs", JOB).await;
    endless.cancel();
    assert_has(&finished(&endless, JobState::Canceled).await, &["after: canceled"]);
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn jobs_run_in_jails_with_memory_that_is_served() {
    let Some(config) = on_firecracker(true) else { return };
    let config = config.microvm("snapshot_memory = \"uffd\"\nballoon = true").vcpus(2);
    let scene = Scene::start(&config).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "from git\n").await;
    let lines = ["cat a.txt", "echo processors=$(nproc)", "head -c 50M /dev/urandom | sha256sum"];
    let job = scene.server.enqueue(JobSpec::of(&project, lines)).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    assert_has(&log, &["jailed by", ", restored in ", "from git", "processors=2"]);
    scene.drain(tart).await;
    scene.finish();
}

/// A kernel that stops before it has said anything.
fn halting_kernel() -> Vec<u8> {
    let request = BootRequest { kernel: KernelSource::Distribution, agent: AgentSource::Installed };
    let store = Store::open(&default_root()).expect("the machine has a store");
    let boot = store.boot_assets(&request).expect("`tart assets build` was run");
    let mut kernel = fs::read(boot.vmlinux).expect("the store can be read");
    // `hlt`, over the start of its code.
    kernel.get_mut(CODE..CODE + 0x10000).expect("it is longer than that").fill(0xf4);
    kernel
}

/// Where an x86 kernel has its code, in the file.
const CODE: usize = 0x20_0000;

#[tokio::test]
async fn guests_that_do_not_come_up_are_explained() {
    let Some(config) = on_firecracker(false) else { return };
    let config = config.microvm("snapshots = false");
    let scene = Scene::start(&config).await;
    let broken = scene.path("broken");
    let file = format!("{:?}", broken.display().to_string());
    for (lines, contents, expected) in [
        (
            format!("initrd = {file}"),
            b"no initramfs".to_vec(),
            ["guest reset itself", "Kernel panic - not syncing"],
        ),
        (
            format!("kernel = {file}\nboot_timeout = \"5s\""),
            halting_kernel(),
            ["agent was not ready within", " seconds"],
        ),
    ] {
        fs::write(&broken, contents).expect("the test's directory is writable");
        let config = config.clone().microvm(&lines);
        scene.write_config(&config.render(scene.server.url(), &scene.runner.token(), &scene.path("state")));
        let job = scene.server.enqueue(JobSpec::script(["echo never"]).env("GIT_STRATEGY", "none")).await;
        let tart = scene.run();
        let log = finished(&job, JobState::Failed).await;
        assert_has(&log, &expected);
        assert_eq!(job.failure_reason().as_deref(), Some("runner_system_failure"), "{log}");
        scene.drain(tart).await;
    }
    scene.finish();
}

#[tokio::test]
async fn a_guest_on_firecracker_finds_what_is_public_only() {
    let Some(config) = on_firecracker(false) else { return };
    finds_what_is_public(config).await;
}
