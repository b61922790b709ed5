//! What a job sees, and what the server sees of it.

use serde_json::json;
use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState, Variable};

#[tokio::test]
async fn a_job_builds_its_commit_in_a_machine_of_its_own() {
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/hello").await;
    let sha = project.commit_file("hello.txt", "hello from git\n").await;
    let spec = JobSpec::of(
        &project,
        [
            "cat hello.txt",
            "echo kernel=$(uname -r) pid1=$(cat /proc/1/comm) user=$(id -u) shell=$BASH_VERSION",
            "echo head=$(git rev-parse HEAD) sha=$CI_COMMIT_SHA dir=$PWD project=$CI_PROJECT_DIR",
            "echo secret=$PASSWORD token=$CI_JOB_TOKEN; echo $PASSWORD | base64",
            "echo file=$SETTINGS; cat $SETTINGS",
            "export CARRIED=yes",
            "echo carried=$CARRIED runner=$CI_RUNNER_DESCRIPTION disposable=$CI_DISPOSABLE_ENVIRONMENT",
            ">&2 echo to standard error",
        ],
    )
    .after_script(["echo after: status=$CI_JOB_STATUS carried=${CARRIED:-no}"])
    .variable(Variable::masked("PASSWORD", "correct-horse-battery"))
    .variable(Variable::new("SETTINGS", "one\ntwo = 2\n").file());
    let job = scene.server.enqueue(spec).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;

    let log = job.log();
    let host = rustix::system::uname().release().to_string_lossy().into_owned();
    for expected in [
        "hello from git",
        "pid1=init user=0 shell=5",
        &format!("head={sha} sha={sha} dir=/builds/group/hello project=/builds/group/hello"),
        "secret=[MASKED] token=[MASKED]",
        "two = 2",
        "carried=yes",
        "disposable=true",
        "to standard error",
        "after: status=success carried=no",
        "section_start:",
        "Job succeeded",
    ] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    assert!(!log.contains("correct-horse-battery"), "a masked value is shown: {log}");
    assert!(!log.contains(&format!("kernel={host} ")), "the job runs on the host's kernel {host}");
    let states: Vec<String> = job.updates().into_iter().map(|update| update.state).collect();
    assert_eq!(states.first().map(String::as_str), Some("running"));
    assert_eq!(states.last().map(String::as_str), Some("success"));
    scene.finish();
}

#[tokio::test]
async fn inputs_are_in_the_script_before_it_runs_and_wrong_ones_fail_the_job() {
    let scene = Scene::start(&Config::default().concurrent(2)).await;
    let inputs = json!([
        {"key": "target", "value": {"type": "string", "content": "staging"}},
        {"key": "replicas", "value": {"type": "number", "content": 3}},
    ]);
    let line = "echo to=${{ job.inputs.target }} count=${{ str(job.inputs.replicas + 1) }}";
    let good = scene.server.enqueue(JobSpec::script([line]).field("inputs", inputs.clone())).await;
    let bad = JobSpec::script(["echo ${{ job.inputs.tarjet }}"]).field("inputs", inputs).name("bad");
    let bad = scene.server.enqueue(bad).await;
    let tart = scene.run();
    assert_eq!(good.wait_finished(JOB).await, JobState::Success, "{}", good.log());
    assert_eq!(bad.wait_finished(JOB).await, JobState::Failed, "{}", bad.log());
    scene.drain(tart).await;
    assert!(good.log().contains("to=staging count=4"), "{}", good.log());
    assert_eq!(bad.failure_reason().as_deref(), Some("runner_configuration_error"), "{}", bad.log());
    assert!(bad.log().contains("there is no `tarjet`; there is replicas, target"), "{}", bad.log());
    scene.finish();
}

#[tokio::test]
async fn jobs_share_nothing() {
    let scene = Scene::start(&Config::default().concurrent(2)).await;
    let leave = "touch /root/left /tmp/left /builds/left /cache/left /usr/bin/left";
    let look = "(ls /root/left /tmp/left /builds/left /cache/left /usr/bin/left 2>&1 || true) | grep -c 'No such file'";
    let first = scene.server.enqueue(JobSpec::script([leave, "echo wrote"]).name("first")).await;
    let tart = scene.run();
    first.wait_finished(JOB).await;
    let second = scene.server.enqueue(JobSpec::script([look]).name("second")).await;
    let third = scene.server.enqueue(JobSpec::script(["false"]).name("third")).await;
    assert_eq!(second.wait_finished(JOB).await, JobState::Success, "{}", second.log());
    assert_eq!(third.wait_finished(JOB).await, JobState::Failed);
    scene.drain(tart).await;
    assert_eq!(first.state(), JobState::Success, "{}", first.log());
    assert!(second.log().lines().any(|line| line.trim_end().ends_with('5')), "{}", second.log());
    scene.finish();
}
