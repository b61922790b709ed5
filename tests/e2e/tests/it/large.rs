//! Artifacts that are larger than everything that carries them.

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{Artifacts, JobSpec, JobState};

/// More than 32 bits can say, so that the zip needs zip64.
const MEBIBYTES: u64 = 4200;

/// What the runner may take, in KiB. The guests have 512 MiB.
const MOST: u64 = 200 << 10;

#[tokio::test]
async fn an_artifact_beyond_32_bits_goes_through_small_guests_and_a_small_runner() {
    let scene = Scene::start(&Config::default().microvm("memory = \"512m\"")).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let make = format!("truncate -s {MEBIBYTES}M big && echo tail >> big && echo next > later");
    // Deflate would take much longer where guests are emulated.
    let archive = Artifacts::report("archive", "zipzstd", "all", "*");
    let first = scene.server.enqueue(JobSpec::of(&project, [make]).artifacts(archive)).await;
    let check = "echo $(stat -c %s big) $(tail -c 5 big) $(cat later) $(du -m big | cut -f1)";
    let second = scene.server.enqueue(JobSpec::of(&project, [check]).dependency(&first)).await;
    let tart = scene.run();
    for job in [&first, &second] {
        assert_eq!(job.wait_finished(2 * JOB).await, JobState::Success, "{}", job.log());
    }
    let peak = tart.peak_kib();
    scene.drain(tart).await;
    let expected = format!("{} tail next 1\n", (MEBIBYTES << 20) + 5);
    assert!(second.log().replace('\r', "").contains(&expected), "no {expected:?} in {}", second.log());
    assert!(peak < MOST, "the runner took {peak} KiB");
    scene.finish();
}
