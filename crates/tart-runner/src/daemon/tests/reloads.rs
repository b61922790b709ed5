//! Polls that a new configuration overtakes. Driven step by step, so that it overtakes them for sure.

use std::sync::Arc;

use tart_config::{Config, Runner};
use tart_test_gitlab::{JobSpec, RunnerOptions, TestGitlab};

use super::scene::{LIMIT, Scripted, config, options, runner};
use crate::daemon::{Daemon, Prepared, entry};

/// A daemon for `before` whose poll has brought one of two jobs, after it was told to go on with `after`.
async fn overtaken(server: &TestGitlab, before: Config, after: Config) -> Daemon {
    for _ in 0..2 {
        server.enqueue(JobSpec::script(["true"])).await;
    }
    let (executor, _jobs, _refused) = Scripted::new();
    let mut daemon = Daemon::start(before, options(), Arc::new(executor)).await.expect("it starts");
    daemon.take_turn();
    let entries = entry::all(&after, &daemon.options, &daemon.entries).expect("well-formed");
    daemon.prepared(Ok(Prepared { config: after, entries, result: Ok(()) })).await;
    let polled = tokio::time::timeout(LIMIT, daemon.polls.join_next()).await.expect("answered in time");
    daemon.polled(polled.expect("it polls"));
    assert_eq!(daemon.jobs.len(), 1, "what the server has assigned is run");
    daemon
}

#[tokio::test]
async fn a_removed_runner_asks_for_no_more_jobs() {
    let server = TestGitlab::start().await;
    let removed = runner(&server, &server.add_runner(RunnerOptions::default()));
    let daemon = overtaken(&server, config(10, vec![removed]), config(10, Vec::new())).await;
    assert!(daemon.polls.is_empty());
}

#[tokio::test]
async fn a_lowered_limit_holds_for_the_next_poll() {
    let server = TestGitlab::start().await;
    let free = runner(&server, &server.add_runner(RunnerOptions::default()));
    let limited = Runner { limit: 1, ..free.clone() };
    let daemon = overtaken(&server, config(10, vec![free]), config(10, vec![limited])).await;
    assert!(daemon.polls.is_empty());
}

#[tokio::test]
async fn a_runner_that_stays_asks_again_at_once() {
    let server = TestGitlab::start().await;
    let stays = runner(&server, &server.add_runner(RunnerOptions::default()));
    let daemon = overtaken(&server, config(10, vec![stays.clone()]), config(10, vec![stays])).await;
    assert_eq!(daemon.polls.len(), 1);
}
