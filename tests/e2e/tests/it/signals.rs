//! How `tart run` ends, and what it finds when it starts.

use rustix::process::Signal;
use tart_e2e::{Config, JOB, SOON, Scene};
use tart_test_gitlab::{JobSpec, JobState, ProjectHandle};

/// A job that ends once the branch `go` is there.
fn waiting(project: &ProjectHandle) -> JobSpec {
    let wait = "until git ls-remote --exit-code \"$CI_REPOSITORY_URL\" go; do sleep 0.2; done";
    JobSpec::of(project, ["echo it runs", wait, "echo it went on"])
}

#[tokio::test]
async fn on_quit_the_running_job_goes_on_and_no_other_begins() {
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/app").await;
    let sha = project.commit_file("a", "1").await;
    let running = scene.server.enqueue(waiting(&project)).await;
    let mut tart = scene.run();
    running.wait_log_contains("it runs", JOB).await;
    let queued = scene.server.enqueue(JobSpec::of(&project, ["true"])).await;
    tart.signal(Signal::QUIT);
    tart.wait_output("Graceful shutdown", SOON).await;
    project.branch("go", &sha).await;
    assert_eq!(running.wait_finished(JOB).await, JobState::Success, "{}", running.log());
    assert!(tart.wait(SOON).await.success());
    assert!(running.log().contains("it went on"));
    assert_eq!(queued.state(), JobState::Pending);
    scene.finish();
}

#[tokio::test]
async fn on_terminate_the_server_hears_that_the_job_was_interrupted() {
    let scene = Scene::start(&Config::default()).await;
    let spec = JobSpec::script(["echo it runs", "sleep 100000"]).after_script(["echo after"]);
    let job = scene.server.enqueue(spec).await;
    let mut tart = scene.run();
    job.wait_log_contains("it runs", JOB).await;
    tart.signal(Signal::TERM);
    tart.wait(JOB).await;
    assert_eq!(job.state(), JobState::Failed, "{}", job.log());
    assert_eq!(job.failure_reason().as_deref(), Some("runner_interrupted"), "{}", job.log());
    assert!(job.log().contains("aborted: terminated"), "{}", job.log());
    scene.finish();
}

#[tokio::test]
async fn what_a_killed_runner_left_is_removed_by_the_next() {
    let scene = Scene::start(&Config::default()).await;
    let lost = scene.server.enqueue(JobSpec::script(["echo it runs", "sleep 100000"])).await;
    let mut tart = scene.run();
    lost.wait_log_contains("it runs", JOB).await;
    assert!(!scene.leftovers().processes.is_empty(), "a machine runs");
    tart.signal(Signal::KILL);
    tart.wait(SOON).await;
    let left = scene.leftovers();
    assert_eq!(left.wait_for_processes(SOON), [0; 0], "they outlive the runner:\n{left}");
    assert!(!scene.leftovers().files.is_empty(), "a killed runner cannot remove its files");
    lost.fail("runner_system_failure");

    let job = scene.server.enqueue(JobSpec::script(["echo a new job"])).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    scene.finish();
}
