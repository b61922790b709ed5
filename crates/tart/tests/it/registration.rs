//! Runners are registered, checked and removed, against the test GitLab server.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::Duration;

use tart_test_gitlab::{Endpoint, Fault, RunnerOptions, TestGitlab};

use crate::support::Home;

/// Registers without questions.
async fn register(home: &Home, server: &TestGitlab, more: &[&str]) -> crate::support::Ran {
    let mut arguments = vec!["register", "--non-interactive", "--url", server.url()];
    arguments.extend(more);
    home.run(&arguments).await
}

#[tokio::test]
async fn a_created_runner_is_verified_saved_listed_and_removed() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let runner = server.add_runner(RunnerOptions::default());
    let token = runner.token();
    let keys =
        ["--token", &token, "--name", "mine", "--limit", "2", "--env", "A=1", "--set", "microvm.vcpus=3"];
    let said = register(&home, &server, &keys).await.hides(&token).succeeded();
    assert!(said.contains("Runner registered successfully"), "{said}");
    let config = tart_config::load(&home.config()).expect("it can be used").config;
    let saved = config.runners.first().expect("one runner");
    assert_eq!((saved.name.as_str(), saved.limit, saved.microvm.vcpus), ("mine", 2, 3));
    assert_eq!((saved.token.expose(), saved.id), (token.as_str(), runner.id()));
    assert_eq!(saved.environment, ["A=1"]);

    let list = home.run(&["list"]).await.hides(&token).succeeded();
    assert!(list.contains("mine") && list.contains(server.url()), "{list}");
    let verified = home.run(&["verify"]).await.hides(&token).succeeded();
    assert!(verified.contains("is valid"), "{verified}");
    assert_eq!(runner.get().expect("it exists").managers().len(), 1);

    home.run(&["unregister", "--name", "mine"]).await.hides(&token).succeeded();
    assert!(!home.config_text().contains(&token));
    assert!(runner.get().expect("only the manager is removed").managers().is_empty());
    server.assert_no_violations();
}

#[tokio::test]
async fn settings_that_belong_to_gitlab_are_refused_for_a_created_runner() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let token = server.add_runner(RunnerOptions::default()).token();
    let refused = register(&home, &server, &["--token", &token, "--tag-list", "a", "--locked=false"]).await;
    insta::assert_snapshot!(refused.failed(1), @r"
    error: --tag-list, --locked cannot be used with a runner's own token
    hint: such settings of a runner that was created in GitLab are changed on its page there
    ");
    assert!(!home.config_text().contains("[[runners]]"));
}

#[tokio::test]
async fn an_old_registration_token_makes_a_runner_with_its_tags() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let registration = server.registration_token().to_owned();
    let flags = ["--registration-token", &registration, "--description", "old", "--tag-list", "a, b"];
    register(&home, &server, &flags).await.hides(&registration).succeeded();
    let config = tart_config::load(&home.config()).expect("it can be used").config;
    let saved = config.runners.first().expect("one runner");
    let runner = server.runner_by_token(saved.token.expose()).expect("the server has it");
    assert_eq!(runner.get().expect("it exists").description(), "old");

    home.run(&["unregister", "--all-runners"]).await.succeeded();
    assert!(runner.get().is_none(), "an old runner is removed as a whole");
    server.assert_no_violations();
}

#[tokio::test]
async fn the_environment_of_a_job_does_not_get_in_the_way_of_flags() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let mut tokens = Vec::new();
    for name in ["a", "b", "c"] {
        let token = server.add_runner(RunnerOptions::default()).token();
        register(&home, &server, &["--token", &token, "--name", name]).await.succeeded();
        tokens.push(token);
    }
    let run = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = home.command(arguments);
        command.env("CI_SERVER_URL", server.url()).envs(environment.iter().copied());
        home.run_command(command, "").await
    };
    let left = || -> Vec<String> {
        let config = tart_config::load(&home.config()).expect("it can be used").config;
        config.runners.into_iter().map(|runner| runner.name).collect()
    };
    insta::assert_snapshot!(run(&["unregister"], &[("RUNNER_NAME", "a")]).await.failed(1), @"error: no runner is named: use --name, --url with --token, or --all-runners");
    assert_eq!(left(), ["a", "b", "c"]);
    run(&["unregister", "--name", "a"], &[]).await.succeeded();
    assert_eq!(left(), ["b", "c"]);
    run(&["unregister"], &[("CI_SERVER_TOKEN", &tokens[1])]).await.succeeded();
    assert_eq!(left(), ["c"]);
    run(&["reset-token", "--all-runners"], &[]).await.succeeded();
    run(&["unregister", "--all-runners"], &[]).await.succeeded();
    assert!(left().is_empty());
    server.assert_no_violations();
}

#[tokio::test]
async fn empty_variables_of_the_environment_count_as_unset() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let token = server.add_runner(RunnerOptions::default()).token();
    let mut command = home.command(&["register", "-n", "--url", server.url(), "--token", &token]);
    for name in ["CONFIG_FILE", "RUNNER_LIMIT", "LOG_LEVEL", "RUNNER_DEBUG", "REGISTER_MAXIMUM_TIMEOUT"] {
        command.env(name, "");
    }
    command.arg("--config").arg(home.config());
    home.run_command(command, "").await.succeeded();
    let config = tart_config::load(&home.config()).expect("it can be used").config;
    assert_eq!(config.runners.len(), 1);
}

#[tokio::test]
async fn questions_are_asked_for_what_is_missing() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let token = server.add_runner(RunnerOptions::default()).token();
    let answers = format!("{}\n\n{token}\nby hand\n\n", server.url());
    let ran = home.run_with(&["register"], &answers).await.hides(&token);
    let questions = ran.stderr();
    ran.succeeded();
    assert!(questions.contains("Enter the registration token:"), "{questions}");
    assert!(home.config_text().contains("name = \"by hand\""));
    let ended = home.run_with(&["register"], "").await.failed(1);
    assert!(ended.contains("hint: --non-interactive asks no questions"), "{ended}");
}

#[tokio::test]
async fn a_runner_can_be_printed_instead_of_saved() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let token = server.add_runner(RunnerOptions::default()).token();
    let printed =
        register(&home, &server, &["--token", &token, "--name", "mine", "--print"]).await.succeeded();
    let parsed = tart_config::parse(&home.config(), &printed, &|_| None).expect("it is a configuration");
    assert_eq!(parsed.config.runners.len(), 1, "{printed}");
    assert!(!home.config().exists());
}

#[tokio::test]
async fn a_runner_that_cannot_be_saved_is_taken_back() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let registration = server.registration_token().to_owned();
    let bad = ["--registration-token", &registration, "--set", "microvm.vcpu=3"];
    let said = register(&home, &server, &bad).await.failed(1);
    assert!(said.contains("vcpus") && said.contains("hint: the runner was unregistered again"), "{said}");
    let left: Vec<_> = server.requests().into_iter().filter(|request| request.method == "DELETE").collect();
    assert_eq!(left.len(), 1);
    server.assert_no_violations();
}

#[tokio::test]
async fn an_interrupted_registration_is_taken_back() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let runner = server.add_runner(RunnerOptions::default());
    let token = runner.token();
    let gate = server.faults().hold(Endpoint::Verify);
    let mut command =
        home.command(&["register", "--non-interactive", "--url", server.url(), "--token", &token]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    gate.arrived(1, Duration::from_secs(60)).await;
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says that it ends");
    gate.release();
    let ended = tokio::task::spawn_blocking(move || {
        said.read_to_string(&mut line).expect("UTF-8");
        (child.wait().expect("it ends"), line)
    });
    let (status, said) = ended.await.expect("the thread ends");
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(runner.get().expect("the runner stays").managers().is_empty());
    assert!(!home.config_text().contains(&token));
}

#[tokio::test]
async fn verify_tells_dead_runners_from_silent_servers() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let (good, dead) =
        (server.add_runner(RunnerOptions::default()), server.add_runner(RunnerOptions::default()));
    for (name, runner) in [("good", &good), ("dead", &dead)] {
        register(&home, &server, &["--token", &runner.token(), "--name", name]).await.succeeded();
    }
    let token = dead.token();
    dead.delete();
    server.faults().next(Endpoint::Verify, Fault::Status(400));
    let ran = home.run(&["verify"]).await.hides(&token);
    let shown = ran.stdout();
    assert!(shown.contains("runner good") && shown.contains("could not be verified: 400"), "{shown}");
    insta::assert_snapshot!(ran.failed(1), @r"
    error: 1 of the runners are not valid
    hint: `tart verify --delete` removes them from the configuration
    ");
    home.run(&["verify", "--delete"]).await.succeeded();
    assert!(home.config_text().contains("good") && !home.config_text().contains("dead"));
}

#[tokio::test]
async fn a_token_is_replaced_in_gitlab_and_in_the_file() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let runner = server.add_runner(RunnerOptions::default());
    let old = runner.token();
    register(&home, &server, &["--token", &old, "--name", "mine"]).await.succeeded();
    home.run(&["reset-token", "--name", "mine"]).await.hides(&old).succeeded();
    assert_ne!(runner.token(), old);
    assert!(home.config_text().contains(&runner.token()) && !home.config_text().contains(&old));
    let id = runner.id().to_string();
    let reset = ["reset-token", "--id", &id, "--pat", server.private_token()];
    home.run(&reset).await.succeeded();
    assert!(home.config_text().contains(&runner.token()));
    server.assert_no_violations();
}

#[tokio::test]
async fn refusals_and_silence_of_a_server_have_their_exit_code() {
    let (server, home) = (TestGitlab::start().await, Home::new());
    let unknown = register(&home, &server, &["--token", "glrt-unknowntoken1234567"]).await;
    let said = unknown.hides("glrt-unknowntoken1234567").failed(3).replace(server.url(), "URL");
    insta::assert_snapshot!(said, @r"
    error: URL does not know this token (unknownto)
    hint: check that it was copied completely; a registration token goes to --registration-token
    ");
    server.disable_registration();
    let token = server.registration_token().to_owned();
    let said = register(&home, &server, &["--registration-token", &token]).await.hides(&token).failed(3);
    assert!(said.contains("takes no registration tokens any more"), "{said}");
}
