//! Jobs that take more than they should: log, processes, disk, memory.

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState};

/// Lines of 100 bytes that are all different.
const LINES: usize = 2_000_000;

/// Prints 200 MB.
const FLOOD: &str = "seq -f 'line %015.0f of a flood of two hundred megabytes that must arrive whole and in order....xyz' 1 2000000";

fn line(number: usize) -> String {
    format!(
        "line {number:015} of a flood of two hundred megabytes that must arrive whole and in order....xyz"
    )
}

#[tokio::test]
async fn two_hundred_megabytes_of_log_arrive_complete() {
    let scene = Scene::start(&Config::default().runner("output_limit = 1048576")).await;
    let spec = JobSpec::script([FLOOD]).env("FF_TIMESTAMPS", "false").env("GIT_STRATEGY", "none");
    let job = scene.server.enqueue(spec.log_limit(300 << 20)).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB * 2).await, JobState::Success);
    scene.drain(tart).await;
    // The server has compared checksum and size with what the runner says it sent; this compares with the script.
    let log = job.log_bytes();
    assert!(log.len() > 200_000_000, "{} bytes are not 200 MB", log.len());
    let mut expected = 1;
    for found in log.split(|byte| *byte == b'\n').filter(|found| found.starts_with(b"line ")) {
        assert_eq!(found, line(expected).as_bytes(), "line {expected}");
        expected += 1;
    }
    assert_eq!(expected - 1, LINES, "lines are missing at the end");
    scene.finish();
}

#[tokio::test]
async fn a_log_is_cut_at_the_limit_and_the_job_goes_on() {
    let scene = Scene::start(&Config::default()).await;
    let spec = JobSpec::script([FLOOD, "echo the end"]).env("GIT_STRATEGY", "none");
    let job = scene.server.enqueue(spec).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB * 2).await, JobState::Success);
    scene.drain(tart).await;
    let log = job.log();
    assert!((4 << 20..5 << 20).contains(&log.len()), "{} bytes", log.len());
    assert!(log.contains("exceeded limit"), "{}", log.get(log.len() - 2000..).unwrap_or_default());
    scene.finish();
}

#[tokio::test]
async fn a_fork_bomb_hurts_nobody_but_its_job() {
    let scene = Scene::start(&Config::default().concurrent(2)).await;
    let lines = ["bomb() { bomb | bomb & }", "bomb", "echo it burns", "sleep 100000"];
    let bomb = scene.server.enqueue(JobSpec::script(lines).name("bomb").timeout_secs(60)).await;
    let other = scene.server.enqueue(JobSpec::script(["echo all is quiet"]).name("other")).await;
    let tart = scene.run();
    assert_eq!(other.wait_finished(JOB).await, JobState::Success, "{}", other.log());
    assert_eq!(bomb.wait_finished(JOB).await, JobState::Failed, "{}", bomb.log());
    scene.drain(tart).await;
    // The shell either cannot even start `sleep`, or sleeps until the timeout.
    let reason = bomb.failure_reason();
    let expected = ["script_failure", "job_execution_timeout"];
    assert!(expected.map(Some).contains(&reason.as_deref()), "{reason:?}\n{}", bomb.log());
    scene.finish();
}

#[tokio::test]
async fn a_full_disk_and_an_exhausted_memory_are_explained() {
    let config = Config::default().concurrent(2).microvm("disk = \"256m\"").microvm("memory = \"384m\"");
    let scene = Scene::start(&config).await;
    let lines = ["dd if=/dev/zero of=big bs=1M count=1000"];
    let disk = scene.server.enqueue(JobSpec::script(lines).name("disk")).await;
    let memory = scene.server.enqueue(JobSpec::script(["tail /dev/zero"]).name("memory")).await;
    let tart = scene.run();
    assert_eq!(disk.wait_finished(JOB).await, JobState::Failed, "{}", disk.log());
    assert_eq!(memory.wait_finished(JOB).await, JobState::Failed, "{}", memory.log());
    scene.drain(tart).await;
    for job in [&disk, &memory] {
        assert_eq!(job.failure_reason().as_deref(), Some("script_failure"), "{}", job.log());
    }
    assert!(disk.log().contains("No space left on device"), "{}", disk.log());
    assert!(disk.log().contains("disk of 256m is full"), "{}", disk.log());
    assert_eq!(memory.exit_code(), Some(137), "{}", memory.log());
    assert!(memory.log().contains("the job ran out of memory"), "{}", memory.log());
    scene.finish();
}
