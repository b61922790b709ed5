//! `tart exec`, without a server and without root.

use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;
use tart_e2e::{Config, JOB, Process, Scene, program};

const CI_FILE: &str = r#"
include: { local: common.yml }
.base: &base
  variables: { GREETING: hello }
  before_script: [echo before]
greet:
  extends: .shared
  <<: *base
  script:
    - echo $GREETING $NAME from $(cat file.txt) of $CI_JOB_NAME
    - test -f not-committed.txt
fail:
  script: [exit 9]
"#;

fn shell(directory: &Path, script: &str) -> Output {
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output().expect("sh runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A repository with a change that was not committed.
fn make_repository(directory: &Path, ci_file: &str) {
    std::fs::create_dir(directory).expect("the directory is new");
    std::fs::write(directory.join(".gitlab-ci.yml"), ci_file).expect("it is writable");
    std::fs::write(directory.join("common.yml"), ".shared: { after_script: [echo after] }\n")
        .expect("it is writable");
    std::fs::write(directory.join("file.txt"), "committed\n").expect("it is writable");
    let commit = "git init -q -b main . && git add . && \
                  git -c user.name=a -c user.email=a@example.com commit -q -m first && echo changed > file.txt && \
                  echo new > not-committed.txt";
    shell(directory, commit);
}

#[tokio::test]
async fn a_job_of_a_local_file_runs_with_the_working_tree_as_it_is() {
    let scene = Scene::start(&Config::default()).await;
    let repository = scene.path("repository");
    make_repository(&repository, CI_FILE);
    let before =
        shell(&repository, "git status --porcelain && git rev-parse HEAD && git count-objects").stdout;
    let mut greet = scene.tart(["exec", "greet", "--variable", "NAME=world"]);
    greet.current_dir(&repository);
    let log = Process::start(greet).succeed(JOB).await;
    for expected in ["before", "hello world from changed of greet", "after"] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    let mut fail = scene.tart(["exec", "fail"]);
    fail.current_dir(&repository);
    let mut fail = Process::start(fail);
    let status = fail.wait(JOB).await;
    assert!(!status.success(), "{}", fail.output());
    let after =
        shell(&repository, "git status --porcelain && git rev-parse HEAD && git count-objects").stdout;
    assert_eq!(before, after, "the repository was changed");
    scene.finish();
}

const CHAIN: &str = r#"
stages: [build, test]
build:
  stage: build
  variables: { GIT_STRATEGY: none }
  script: ["mkdir out; echo of build > out/file", "echo VERSION=1.2 > build.env"]
  artifacts: { paths: [out/], reports: { dotenv: build.env } }
test:
  stage: test
  variables: { GIT_STRATEGY: none }
  script: ["cat out/file; echo version $VERSION"]
"#;

#[tokio::test]
async fn a_job_gets_what_earlier_ones_left_here() {
    let scene = Scene::start(&Config::default()).await;
    let repository = scene.path("repository");
    make_repository(&repository, CHAIN);
    let exec = |job: &str| {
        let mut command = scene.tart(["exec", job]);
        command.current_dir(&repository);
        Process::start(command)
    };
    let mut early = exec("test");
    assert!(!early.wait(JOB).await.success(), "{}", early.output());
    assert!(early.output().contains("`test` gets no artifacts of `build`"), "{}", early.output());
    let log = exec("build").succeed(JOB).await;
    assert!(log.contains("Uploading artifacts as \"archive\" to this host... ok"), "{log}");
    let log = exec("test").succeed(JOB).await;
    for expected in ["Downloading artifacts from this host... ok", "of build", "version 1.2"] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    let mut all = scene.tart(["exec", "--all"]);
    all.current_dir(&repository);
    let log = Process::start(all).succeed(JOB).await;
    assert!(log.contains("the pipeline passed"), "{log}");
    scene.finish();
}

const GRAPH: &str = r#"
stages: [build, test, report]
variables: { GIT_STRATEGY: none }
one:
  stage: build
  script: ["mkdir one; echo of one > one/file", "echo VERSION=1.2 > build.env"]
  artifacts: { paths: [one/], reports: { dotenv: build.env } }
two:
  stage: build
  script: ["echo of two > two"]
  artifacts: { paths: [two] }
join:
  stage: test
  needs: [one, two]
  script: ["cat one/file two; echo version $VERSION"]
half:
  stage: test
  needs: [{ job: one, artifacts: false }, two]
  script: ["test ! -e one; test -z $VERSION; cat two; exit 7"]
flaky: { stage: test, needs: [], allow_failure: { exit_codes: 3 }, script: exit 3 }
publish: { stage: report, script: echo published }
mend: { stage: report, script: echo mended, when: on_failure }
clean: { stage: report, script: echo cleaned, when: always, needs: [half] }
deploy: { stage: report, script: echo deployed, when: manual, needs: [join] }
"#;

#[tokio::test]
async fn all_jobs_of_a_pipeline_run_in_their_order_and_pass_artifacts_on() {
    let scene = Scene::start(&Config::default()).await;
    let repository = scene.path("repository");
    make_repository(&repository, GRAPH);
    let mut command = scene.tart(["exec", "--all", "--concurrency", "2", "--manual", "deploy"]);
    command.current_dir(&repository);
    let mut all = Process::start(command);
    let status = all.wait(JOB).await;
    let log = all.output();
    assert_eq!(status.code(), Some(1), "{log}");
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    assert!(at("two     | started") < at("one     | passed"), "they run at the same time: {log}");
    for earlier in ["one     | passed", "two     | passed"] {
        assert!(at(earlier) < at("join    | started"), "{log}");
    }
    for expected in ["join    | of one", "join    | of two", "join    | version 1.2", "half    | of two"] {
        at(expected);
    }
    at("deploy  | deployed");
    at("the pipeline failed: `half` (");
    let table = log.get(at("STAGE ")..).unwrap_or_default();
    let row = |line: &str| line.split_whitespace().take(4).map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<String> = table.lines().skip(1).take(9).map(|line| row(line)[..3].join(" ")).collect();
    let expected = [
        "build one passed",
        "build two passed",
        "test join passed",
        "test half failed",
        "test flaky failed",
        "report publish skipped",
        "report mend passed",
        "report clean passed",
        "report deploy passed",
    ];
    assert_eq!(rows, expected, "{log}");
    assert!(table.contains("failed (allowed)") && table.contains("exit code 7"), "{log}");
    scene.finish();
}

const ENDLESS: &str = r#"
stages: [build, test]
variables: { GIT_STRATEGY: none }
one: { stage: build, script: ["echo one begins", "sleep 1000"] }
two: { stage: build, script: ["echo two begins", "sleep 1000"] }
next: { stage: test, script: echo next }
"#;

#[tokio::test]
async fn a_signal_ends_all_jobs_of_a_pipeline_and_starts_none() {
    let scene = Scene::start(&Config::default()).await;
    let repository = scene.path("repository");
    make_repository(&repository, ENDLESS);
    let mut command = scene.tart(["exec", "--all", "--concurrency", "2"]);
    command.current_dir(&repository);
    let mut all = Process::start(command);
    for begun in ["one  | one begins", "two  | two begins"] {
        all.wait_output(begun, JOB).await;
    }
    all.signal(Signal::INT);
    let status = all.wait(JOB).await;
    let log = all.output();
    assert_eq!(status.code(), Some(4), "{log}");
    assert!(log.contains("the pipeline was canceled") && !log.contains("next | started"), "{log}");
    scene.finish();
}

/// Takes the user away again.
struct User(String);

impl Drop for User {
    fn drop(&mut self) {
        let _status = Command::new("userdel").args(["--force", "--remove", &self.0]).output();
    }
}

#[tokio::test]
async fn an_ordinary_user_runs_jobs_too() {
    assert!(rustix::process::geteuid().is_root(), "root makes the ordinary user of this test");
    let scene = Scene::start(&Config::default()).await;
    let user = User(format!("tart-e2e-{}", std::process::id()));
    let home = scene.path("users-home");
    shell(scene.directory(), &format!("useradd --no-create-home --home-dir {} {}", home.display(), user.0));
    std::fs::create_dir(&home).expect("the directory is new");
    make_repository(&home.join("repository"), CI_FILE);
    // Build directories are often out of reach of other users.
    std::fs::copy(program(), home.join("tart")).expect("the program can be copied");
    shell(scene.directory(), &format!("chown -R {0}: users-home tmp && chmod 755 .", user.0));

    let mut command = tokio::process::Command::new("setpriv");
    let ids = [format!("--reuid={}", user.0), format!("--regid={}", user.0)];
    command.args(ids).args(["--clear-groups", "--no-new-privs", "--"]).arg(home.join("tart"));
    command.args(["exec", "greet"]).current_dir(home.join("repository"));
    command.env_clear().env("HOME", &home).env("TMPDIR", scene.path("tmp"));
    for name in ["PATH", "TART_ASSETS_DIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let log = Process::start(command).succeed(JOB).await;
    assert!(log.contains("from changed of greet"), "{log}");
    scene.finish();
}
