//! How jobs end that do not end well.

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState};

/// Says that it runs, and never ends.
const FOREVER: [&str; 2] = ["echo it runs", "sleep 100000"];

#[tokio::test]
async fn a_failing_script_reports_its_exit_code_after_its_after_script() {
    let scene = Scene::start(&Config::default().concurrent(2)).await;
    let spec = JobSpec::script(["echo before", "(exit 7)", "echo never"]);
    let failing = scene.server.enqueue(spec.after_script(["echo after: $CI_JOB_STATUS"])).await;
    let tolerated = JobSpec::script(["exit 42"]).allow_failure_exit_codes();
    let tolerated = scene.server.enqueue(tolerated).await;
    let tart = scene.run();
    assert_eq!(failing.wait_finished(JOB).await, JobState::Failed, "{}", failing.log());
    assert_eq!(tolerated.wait_finished(JOB).await, JobState::Failed, "{}", tolerated.log());
    scene.drain(tart).await;
    assert_eq!(failing.failure_reason().as_deref(), Some("script_failure"));
    assert_eq!(failing.exit_code(), Some(7));
    assert_eq!(tolerated.exit_code(), Some(42));
    let log = failing.log();
    assert!(log.contains("after: failed"), "{log}");
    assert!(log.contains("exit code 7") || log.contains("exit status 7"), "{log}");
    // The command itself is echoed, its output is not.
    assert!(!log.lines().any(|line| line.trim_end().ends_with("Z never") || line == "never"), "{log}");
    scene.finish();
}

#[tokio::test]
async fn a_cancelled_job_stops_at_once_and_its_after_script_runs() {
    let scene = Scene::start(&Config::default().concurrent(2)).await;
    let spec = || JobSpec::script(FOREVER).after_script(["echo after: $CI_JOB_STATUS"]);
    let canceled = scene.server.enqueue(spec().name("canceled")).await;
    let aborted = scene.server.enqueue(spec().name("aborted")).await;
    let tart = scene.run();
    canceled.wait_log_contains("it runs", JOB).await;
    canceled.cancel();
    aborted.wait_log_contains("it runs", JOB).await;
    aborted.abort();
    assert_eq!(canceled.wait_finished(JOB).await, JobState::Canceled, "{}", canceled.log());
    // The aborted job is over for the server; the runner still has to end it.
    scene.drain(tart).await;
    assert!(canceled.log().contains("after: canceled"), "{}", canceled.log());
    assert!(!aborted.log().contains("after:"), "{}", aborted.log());
    scene.finish();
}

#[tokio::test]
async fn a_job_that_never_ends_is_stopped_at_its_timeout() {
    let scene = Scene::start(&Config::default()).await;
    // A job that ignores what it is told, in a group of its own.
    let lines =
        ["echo it runs", "trap '' TERM INT HUP", "setsid sh -c 'trap \"\" TERM; sleep 100000' & wait"];
    let job = scene.server.enqueue(JobSpec::script(lines).timeout_secs(45)).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Failed, "{}", job.log());
    scene.drain(tart).await;
    assert_eq!(job.failure_reason().as_deref(), Some("job_execution_timeout"), "{}", job.log());
    assert!(job.log().contains("45 seconds") || job.log().contains("45s"), "{}", job.log());
    scene.finish();
}
