//! Single jobs: their ends, cancellations and interruptions, and what servers are told.

use tart_job::outcome::Failure;
use tart_test_gitlab::{Endpoint, Fault, JobSpec, JobState, Options, RunnerOptions, TestGitlab};

use super::scene::{LIMIT, Scene, config, runner};
use crate::daemon::{DaemonEnd, Order};

#[tokio::test]
async fn jobs_run_and_their_servers_hear_of_their_ends() {
    let server = TestGitlab::start().await;
    let config = config(1, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    let mut scene = Scene::start(config).await;

    let good = server.enqueue(JobSpec::script(["true"])).await;
    let running = scene.next_job().await;
    assert_eq!(running.run.payload.id, i64::try_from(good.id()).unwrap());
    assert_eq!(good.state(), JobState::Running, "it was acknowledged before it began");
    running.succeed();
    assert_eq!(good.wait_finished(LIMIT).await, JobState::Success);
    assert_eq!(good.log(), format!("job {} begins\n", good.id()));

    let bad = server.enqueue(JobSpec::script(["false"])).await;
    scene.next_job().await.fail(Failure::ExitCode(3));
    assert_eq!(bad.wait_finished(LIMIT).await, JobState::Failed);
    assert_eq!((bad.failure_reason().as_deref(), bad.exit_code()), (Some("script_failure"), Some(3)));

    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await, DaemonEnd { jobs: 2, failed: 1, abandoned: 0 });
    server.assert_no_violations();
}

#[tokio::test]
async fn a_drained_daemon_lets_its_job_finish_and_takes_no_other() {
    let server = TestGitlab::start().await;
    let config = config(2, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    let mut scene = Scene::start(config).await;
    let first = server.enqueue(JobSpec::script(["true"])).await;
    let running = scene.next_job().await;
    scene.order(Order::Drain).await;
    // Orders are obeyed before anything else: once the channel has room again, this one was.
    let _room = scene.orders.reserve_many(scene.orders.max_capacity()).await.expect("the daemon lives");
    let second = server.enqueue(JobSpec::script(["true"])).await;
    running.succeed();
    drop(_room);
    assert_eq!(scene.end().await, DaemonEnd { jobs: 1, failed: 0, abandoned: 0 });
    assert_eq!(first.state(), JobState::Success);
    assert_eq!(second.state(), JobState::Pending);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_stopped_daemon_tells_the_server_why_its_jobs_ended() {
    let server = TestGitlab::start().await;
    let config = config(2, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    let mut scene = Scene::start(config).await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        jobs.push(server.enqueue(JobSpec::script(["sleep"]).failure_reasons(["runner_interrupted"])).await);
    }
    let _running = (scene.next_job().await, scene.next_job().await);
    scene.order(Order::Stop("terminated".into())).await;
    assert_eq!(scene.end().await, DaemonEnd { jobs: 2, failed: 2, abandoned: 0 });
    for job in jobs {
        assert_eq!(job.state(), JobState::Failed);
        assert_eq!(job.failure_reason().as_deref(), Some("runner_interrupted"));
    }
    server.assert_no_violations();
}

#[tokio::test]
async fn a_stop_gives_jobs_up_when_its_time_is_over() {
    let server = TestGitlab::start().await;
    let mut config = config(1, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    config.shutdown_timeout = std::time::Duration::from_millis(100);
    let mut scene = Scene::start(config).await;
    let _job = server.enqueue(JobSpec::script(["sleep"])).await;
    let _running = scene.next_job().await;
    let gate = server.faults().hold(Endpoint::UpdateJob);
    scene.order(Order::Stop("terminated".into())).await;
    assert_eq!(scene.end().await, DaemonEnd { jobs: 1, failed: 0, abandoned: 1 });
    gate.release();
}

#[tokio::test]
async fn cancelled_jobs_end_in_order_and_aborted_ones_without_a_word() {
    let server = TestGitlab::start().await;
    let config = config(1, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    let mut scene = Scene::start(config).await;

    let canceled = server.enqueue(JobSpec::script(["sleep"])).await;
    let _running = scene.next_job().await;
    canceled.cancel();
    assert_eq!(canceled.wait_finished(LIMIT).await, JobState::Canceled);

    let aborted = server.enqueue(JobSpec::script(["sleep"])).await;
    let _running = scene.next_job().await;
    aborted.abort();
    assert_eq!(aborted.wait_finished(LIMIT).await, JobState::Canceled);

    let after = server.enqueue(JobSpec::script(["true"])).await;
    scene.next_job().await.succeed();
    assert_eq!(after.wait_finished(LIMIT).await, JobState::Success);
    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await.jobs, 3);
    server.assert_no_violations();
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_gets_its_job_run_later() {
    let server = TestGitlab::start().await;
    let config = config(1, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    server.faults().times(3, Endpoint::RequestJob, Fault::Drop);
    let mut scene = Scene::start(config).await;
    let job = server.enqueue(JobSpec::script(["true"])).await;
    scene.next_job().await.succeed();
    assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    assert_eq!(server.faults().pending(), 0);
    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await.failed, 0);
    server.assert_no_violations();
}

#[tokio::test]
async fn what_the_runner_adds_to_a_job_is_of_its_configuration() {
    let server = TestGitlab::start().await;
    let handle = server.add_runner(RunnerOptions::default());
    let mut runner = runner(&server, &handle);
    runner.environment = vec!["FROM_RUNNER=a=b".into()];
    runner.pre_build_script = Some("echo before".into());
    let mut scene = Scene::start(config(1, vec![runner])).await;
    let job = server.enqueue(JobSpec::script(["true"])).await;
    let running = scene.next_job().await;
    let context = &running.run.context;
    assert_eq!(context.environment, [("FROM_RUNNER".to_owned(), "a=b".to_owned())]);
    assert_eq!(context.scripts.pre_build, "echo before");
    assert_eq!((context.concurrent_id, context.concurrent_project_id), (0, 0));
    let reached: Vec<_> = running.run.allowed.iter().map(|allowed| allowed.endpoint.to_string()).collect();
    let url = url::Url::parse(server.url()).unwrap();
    assert_eq!(reached, [format!("127.0.0.1:{}", url.port().unwrap())]);
    running.succeed();
    job.wait_finished(LIMIT).await;
    scene.order(Order::Drain).await;
    scene.end().await;
    server.assert_no_violations();
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_it_was_accepted_does_not_begin() {
    let server = TestGitlab::start().await;
    let config = config(1, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    let gate = server.faults().hold(Endpoint::UpdateJob);
    let mut scene = Scene::start(config).await;
    let job = server.enqueue(JobSpec::script(["true"])).await;
    gate.arrived(1, LIMIT).await;
    job.cancel();
    gate.release();
    assert_eq!(job.wait_finished(LIMIT).await, JobState::Canceled);
    let other = server.enqueue(JobSpec::script(["true"])).await;
    let running = scene.next_job().await;
    assert_eq!(running.run.payload.id, i64::try_from(other.id()).unwrap());
    running.succeed();
    assert_eq!(other.wait_finished(LIMIT).await, JobState::Success);
    scene.order(Order::Drain).await;
    scene.end().await;
    server.assert_no_violations();
}

#[tokio::test]
async fn a_mistake_in_one_job_costs_neither_its_server_s_knowledge_nor_the_next_job() {
    let server = TestGitlab::start().await;
    let config = config(1, vec![runner(&server, &server.add_runner(RunnerOptions::default()))]);
    let mut scene = Scene::start(config).await;
    let bad = server.enqueue(JobSpec::script(["true"])).await;
    scene.next_job().await.panic();
    assert_eq!(bad.wait_finished(LIMIT).await, JobState::Failed);
    assert_eq!(bad.failure_reason().as_deref(), Some("runner_system_failure"));
    let good = server.enqueue(JobSpec::script(["true"])).await;
    let running = scene.next_job().await;
    assert_eq!(running.run.context.concurrent_id, 0, "the number is free again");
    running.succeed();
    assert_eq!(good.wait_finished(LIMIT).await, JobState::Success);
    scene.order(Order::Drain).await;
    assert_eq!(scene.end().await, DaemonEnd { jobs: 2, failed: 1, abandoned: 0 });
    server.assert_no_violations();
}

#[tokio::test]
async fn a_job_trusts_the_certificates_of_the_server_it_came_from() {
    let server = TestGitlab::start_with(Options::default().tls()).await;
    let authority = tempfile::NamedTempFile::new().unwrap();
    let pem = server.ca_pem().expect("it has TLS");
    std::fs::write(authority.path(), pem).unwrap();
    let mut runner = runner(&server, &server.add_runner(RunnerOptions::default()));
    runner.tls_ca_file = Some(authority.path().to_owned());
    let mut scene = Scene::start(config(1, vec![runner])).await;
    let job = server.enqueue(JobSpec::script(["true"])).await;
    let running = scene.next_job().await;
    let trusted = running.run.context.tls.ca.as_deref().expect("certificates");
    assert!(trusted.contains(pem.trim()));
    running.succeed();
    assert_eq!(job.wait_finished(LIMIT).await, JobState::Success);
    scene.order(Order::Drain).await;
    scene.end().await;
    server.assert_no_violations();
}
