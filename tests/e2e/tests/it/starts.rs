//! Guests that wait for jobs, and what is left of them when the runner ends.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use tart_e2e::{Config, JOB, Process, Scene};
use tart_test_gitlab::{JobSpec, JobState};
use tart_test_registry::{Options, TestRegistry, samples};

fn pool() -> Config {
    Config::default().microvm("pool = { policy = [{ idle_count = 2 }] }")
}

#[tokio::test]
async fn jobs_get_guests_that_waited_and_an_orderly_end_leaves_none() {
    let scene = Scene::start(&pool()).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let tart = scene.run();
    tart.wait_output("A machine is ready for a job", JOB).await;
    let job = scene.server.enqueue(JobSpec::of(&project, ["cat a.txt"])).await;
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    assert!(job.log().contains(", taken from the pool in "), "{}", job.log());
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn a_job_gets_its_own_image_whatever_the_guests_that_wait_have() {
    let config = Config::default().microvm("pool = { policy = [{ idle_count = 1 }] }");
    let scene = Scene::start(&config).await;
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    let busybox = samples::busybox().expect("busybox-static is installed");
    registry.push_image(&busybox, "busybox:1").expect("the registry takes it");
    scene.own_store(config);
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "from git\n").await;
    let lines = ["cat a.txt", "ls -ld /made-before /etc/debian_version || :", "touch /made-before"];
    let (debian, reference) = (JobSpec::of(&project, lines), registry.reference("busybox:1"));
    let busybox = debian.clone().image(reference.as_str());

    let tart = scene.run();
    // The third finds a guest with the image of the others, which stays for the last.
    for (machine, spec, origin, is_debian) in [
        ("machine=ready-1 ", &busybox, ", taken from the pool in ", false),
        ("machine=ready-2 ", &busybox, ", taken from the pool in ", false),
        ("machine=ready-3 ", &debian, ", restored in ", true),
        ("machine=ready-3 ", &busybox, ", taken from the pool in ", false),
    ] {
        tart.wait_output(machine, JOB).await;
        let job = scene.server.enqueue(spec.clone()).await;
        assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
        let log = job.log();
        assert!(log.contains(origin) && log.contains("from git"), "{log}");
        assert_eq!(log.contains(" /etc/debian_version\n"), is_debian, "{log}");
        assert!(!log.contains(" /made-before\n"), "{log}");
    }
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn whatever_ends_a_runner_ends_the_guests_that_wait() {
    let scene = Scene::start(&pool()).await;
    let mut tart = scene.run();
    tart.wait_output("A machine is ready for a job", JOB).await;
    tart.signal(Signal::TERM);
    tart.wait(JOB).await;
    scene.assert_clean();

    let mut tart = scene.run();
    tart.wait_output("A machine is ready for a job", JOB).await;
    tart.signal(Signal::KILL);
    tart.wait(JOB).await;
    assert!(scene.leftovers().wait_for_processes(JOB).is_empty(), "a guest outlives its runner");
    // The next one removes what is left of the directories.
    let mut tart = scene.run();
    tart.wait_output("Removed what a runner left that was killed", JOB).await;
    tart.wait_output("A machine is ready for a job", JOB).await;
    tart.drain();
    assert!(tart.wait(JOB).await.success(), "{}", tart.output());
    scene.finish();
}

/// A monitor that starts guests and cannot go on from saved ones.
const BOOTS_ONLY: &str = "#!/bin/sh
case \" $* \" in *' -incoming '*) echo 'it goes on from nothing' >&2; exit 1 ;; esac
exec /usr/bin/qemu-system-x86_64 \"$@\"
";

#[tokio::test]
async fn a_job_whose_guest_cannot_go_on_from_the_snapshot_boots_one() {
    let scene = Scene::start(&Config::default()).await;
    let (programs, monitor) = (scene.path("programs"), scene.path("programs/qemu-system-x86_64"));
    std::fs::create_dir(&programs).unwrap();
    std::fs::write(&monitor, BOOTS_ONLY).unwrap();
    std::fs::set_permissions(&monitor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let search = std::env::var("PATH").unwrap();
    let mut tart = scene.tart(["run"]);
    tart.env("PATH", format!("{}:{search}", programs.display()));
    let tart = Process::start(tart);
    let job = scene.server.enqueue(JobSpec::of(&project, ["cat a.txt"])).await;
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    assert!(job.log().contains(", booted in "), "{}", job.log());
    let output = tart.output();
    assert!(output.contains("A machine does not go on from the snapshot; the job's boots"), "{output}");
    assert!(output.contains("it goes on from nothing"), "{output}");
    scene.drain(tart).await;
    scene.finish();
}
