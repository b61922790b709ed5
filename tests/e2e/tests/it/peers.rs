//! Peers that are not of this test suite: a mock by others, and this repository itself.

use std::path::Path;

use gitlab_runner_mock::{GitlabRunnerMock, MockJobState, MockJobStepName, MockJobStepWhen};
use tart_e2e::{Config, JOB, Process, SOON, Scene};
use tart_test_gitlab::{JobSpec, JobState};

#[tokio::test]
async fn a_mock_by_others_is_served_too() {
    let mock = GitlabRunnerMock::start().await;
    let mut job = mock.job_builder("independent".into());
    job.add_variable("GIT_STRATEGY".into(), "none".into(), true, false);
    let lines = vec!["echo hello from $CI_JOB_NAME".to_owned()];
    job.add_step(MockJobStepName::Script, lines, 600, MockJobStepWhen::OnSuccess, false);
    let job = job.build();
    mock.enqueue_job(job.clone());

    let scene = Scene::start(&Config::default()).await;
    let url = mock.uri().to_string();
    let config =
        Config::default().render(url.trim_end_matches('/'), mock.runner_token(), &scene.path("state"));
    scene.write_config(&config);
    let mut tart = Process::start(scene.tart(["run-single", "--max-builds", "1"]));
    assert!(tart.wait(JOB).await.success());
    let log = String::from_utf8_lossy(&job.log()).into_owned();
    assert_eq!(job.state(), MockJobState::Success, "{log}");
    assert!(log.contains("hello from"), "{log}");
    scene.finish();
}

#[tokio::test]
async fn tarts_own_ci_job_runs_on_its_own_repository() {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there");
    let file = std::fs::read_to_string(root.join(".gitlab-ci.yml")).expect("it has a CI file");
    assert!(file.contains("    - dev/check-tree\n"), "the job is still the one that is run here");

    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("tart/tart").await;
    let sha = project.import(&root).await.expect("this is a git repository");
    let job = JobSpec::of(&project, ["dev/check-tree"]).name("check").sha(sha.as_str());
    let job = scene.server.enqueue(job).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    assert!(job.log().contains("all is well"), "{}", job.log());
    assert!(job.log().contains(&sha.chars().take(8).collect::<String>()), "{}", job.log());
    scene.finish();
}

#[tokio::test]
async fn a_runner_is_registered_used_and_removed_by_its_commands() {
    let scene = Scene::start(&Config::default()).await;
    let token = scene.runner.token();
    std::fs::remove_file(scene.config()).expect("it was written");
    let register = [
        "register",
        "--non-interactive",
        "--url",
        scene.server.url(),
        "--token",
        &token,
        "--name",
        "made by hand",
    ];
    scene.succeed(register, SOON).await;
    let written = std::fs::read_to_string(scene.config()).expect("register writes it");
    assert!(written.contains(&token), "{written}");
    let list = scene.succeed(["list"], SOON).await;
    assert!(list.contains("made by hand") && !list.contains(&token), "{list}");
    scene.succeed(["verify"], SOON).await;

    let state =
        format!("\n[runners.microvm]\nstate_dir = \"{}\"\nvcpus = 1\n", scene.path("state").display());
    scene.write_config(&(written + &state));
    let job = scene.server.enqueue(JobSpec::script(["echo hi"])).await;
    scene.succeed(["run-single", "--max-builds", "1"], JOB).await;
    assert_eq!(job.state(), JobState::Success, "{}", job.log());

    scene.succeed(["unregister", "--name", "made by hand"], SOON).await;
    let left = std::fs::read_to_string(scene.config()).expect("the file stays");
    assert!(!left.contains(&token), "{left}");
    scene.finish();
}
