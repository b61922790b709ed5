//! Many jobs and runners: limits, turns, and changes of the configuration.

use std::time::Duration;

use tart_test_gitlab::{JobSpec, JobState, Options, RunnerOptions, TestGitlab};

use super::scene::{IMPOSSIBLE, LIMIT, Scene, config, runner};
use crate::daemon::{DaemonError, Order};

/// How long a server holds polls whose answers a test counts.
const SHORT: Duration = Duration::from_millis(50);

/// How many requests for jobs the server has answered.
async fn polls(server: &TestGitlab, more: usize) {
    let seen = server.requests().iter().filter(|request| is_poll(request)).count();
    let wanted = seen + more;
    server
        .wait_for("more polls", LIMIT, |state| {
            state.requests().iter().filter(|request| is_poll(request)).count() >= wanted
        })
        .await;
}

fn is_poll(request: &tart_test_gitlab::Request) -> bool {
    request.uri.path().ends_with("/jobs/request")
}

#[tokio::test]
async fn no_more_jobs_run_than_the_runner_may() {
    let server = TestGitlab::start_with(Options::default().long_poll(SHORT)).await;
    let mut limited = runner(&server, &server.add_runner(RunnerOptions::default()));
    limited.limit = 1;
    let other =
        runner(&server, &server.add_runner(RunnerOptions::default().tags(["other"]).run_untagged(false)));
    let mut scene = Scene::start(config(10, vec![limited, other])).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(server.enqueue(JobSpec::script(["true"])).await);
    }
    for _ in &jobs {
        let running = scene.next_job().await;
        // The other runner asks on; if the limited one asked too, it would get a job.
        polls(&server, 2).await;
        assert!(!scene.has_more_jobs());
        running.succeed();
    }
    for job in jobs {
        assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    }
    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await.jobs, 3);
    server.assert_no_violations();
}

#[tokio::test]
async fn no_more_jobs_run_than_may_run_at_once() {
    let server = TestGitlab::start().await;
    let runners = (0..3).map(|_| runner(&server, &server.add_runner(RunnerOptions::default()))).collect();
    let mut scene = Scene::start(config(2, runners)).await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(server.enqueue(JobSpec::script(["true"])).await);
    }
    let mut running = vec![scene.next_job().await, scene.next_job().await];
    for _ in 0..4 {
        let most = jobs.iter().filter(|job| job.state() == JobState::Running).count();
        assert!(most <= 2, "{most} jobs run");
        running.remove(0).succeed();
        running.push(scene.next_job().await);
    }
    running.into_iter().for_each(super::scene::Running::succeed);
    for job in &jobs {
        assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    }
    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await.jobs, 6);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_held_poll_of_one_runner_does_not_keep_another_from_its_job() {
    let holding = TestGitlab::start().await;
    let other = TestGitlab::start().await;
    let runners = vec![
        runner(&holding, &holding.add_runner(RunnerOptions::default())),
        runner(&other, &other.add_runner(RunnerOptions::default())),
    ];
    // One place for two runners: were the first one's poll held, the second one would wait for most of a minute.
    let mut scene = Scene::start(config(1, runners)).await;
    polls(&holding, 3).await;
    let job = other.enqueue(JobSpec::script(["true"])).await;
    let running =
        tokio::time::timeout(Duration::from_secs(30), scene.next_job()).await.expect("it is not held up");
    running.succeed();
    assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    scene.order(Order::Drain).await;
    scene.end().await;
    holding.assert_no_violations();
    other.assert_no_violations();
}

#[tokio::test]
async fn a_new_configuration_brings_a_runner_and_leaves_jobs_alone() {
    let server = TestGitlab::start().await;
    let first = runner(&server, &server.add_runner(RunnerOptions::default().tags(["first"])));
    let second = runner(&server, &server.add_runner(RunnerOptions::default().tags(["second"])));
    let mut scene = Scene::start(config(2, vec![first])).await;
    let old = server.enqueue(JobSpec::script(["true"]).tags(["first"])).await;
    let new = server.enqueue(JobSpec::script(["true"]).tags(["second"])).await;
    let running = scene.next_job().await;
    scene.order(Order::Reload(Box::new(config(2, vec![second])))).await;
    scene.next_job().await.succeed();
    assert_eq!(new.wait_finished(LIMIT).await, JobState::Success);
    assert_eq!(old.state(), JobState::Running);
    running.succeed();
    assert_eq!(old.wait_finished(LIMIT).await, JobState::Success);
    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await.failed, 0);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_leaves_the_old_one() {
    let server = TestGitlab::start().await;
    let good = runner(&server, &server.add_runner(RunnerOptions::default()));
    let named = |name: &str| config(1, vec![tart_config::Runner { name: name.into(), ..good.clone() }]);
    let mut scene = Scene::start(named("old")).await;
    scene.order(Order::Reload(Box::new(named(IMPOSSIBLE)))).await;
    scene.refused().await;
    let job = server.enqueue(JobSpec::script(["true"])).await;
    let running = scene.next_job().await;
    assert_eq!(running.run.runner.name, "old");
    running.succeed();
    assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    scene.order(Order::Drain).await;
    scene.end().await;

    let error = Scene::try_start(named(IMPOSSIBLE), |_| {}).await.unwrap_err();
    assert!(matches!(error, DaemonError::Host { .. }), "{error}");
}

#[tokio::test]
async fn a_daemon_without_runners_waits_for_one() {
    let server = TestGitlab::start().await;
    let mut scene = Scene::start(config(1, Vec::new())).await;
    let runner = runner(&server, &server.add_runner(RunnerOptions::default()));
    let job = server.enqueue(JobSpec::script(["true"])).await;
    scene.order(Order::Reload(Box::new(config(1, vec![runner])))).await;
    scene.next_job().await.succeed();
    assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    // Nothing is configured any more, and nothing is asked.
    scene.order(Order::Reload(Box::new(config(1, Vec::new())))).await;
    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await.jobs, 1);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_runner_whose_token_is_refused_stops_asking() {
    let server = TestGitlab::start().await;
    let gone = server.add_runner(RunnerOptions::default());
    let mut dead = runner(&server, &gone);
    dead.unhealthy_requests_limit = 2;
    gone.delete();
    let living = runner(&server, &server.add_runner(RunnerOptions::default()));
    // With one place for two runners no poll is held.
    let mut scene = Scene::start(config(1, vec![dead, living])).await;
    server
        .wait_for("two refusals", LIMIT, |state| {
            state.requests().iter().filter(|request| request.status == Some(403)).count() >= 2
        })
        .await;
    let job = server.enqueue(JobSpec::script(["true"])).await;
    scene.next_job().await.succeed();
    assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    polls(&server, 3).await;
    let refusals = server.requests().iter().filter(|request| request.status == Some(403)).count();
    assert_eq!(refusals, 2);
    scene.order(Order::Drain).await;
    scene.end().await;
}

#[tokio::test]
async fn a_daemon_for_one_job_ends_with_it_and_one_without_jobs_by_itself() {
    let server = TestGitlab::start().await;
    let runner = runner(&server, &server.add_runner(RunnerOptions::default()));
    let one = |options: &mut crate::daemon::DaemonOptions| options.max_builds = Some(1);
    let mut scene = Scene::start_with(config(1, vec![runner.clone()]), one).await;
    let _first = server.enqueue(JobSpec::script(["true"])).await;
    let second = server.enqueue(JobSpec::script(["true"])).await;
    scene.next_job().await.succeed();
    assert_eq!(scene.end().await.jobs, 1);
    assert_eq!(second.state(), JobState::Pending);
    second.abort();

    let idle =
        |options: &mut crate::daemon::DaemonOptions| options.wait_timeout = Some(Duration::from_millis(50));
    let scene = Scene::start_with(config(1, vec![runner]), idle).await;
    assert_eq!(scene.end().await.jobs, 0);
    server.assert_no_violations();
}
