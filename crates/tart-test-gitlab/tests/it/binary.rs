//! The binary, with a runner at the other end.

use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::client::{Client, output};

fn start(arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tart-test-gitlab"));
    let mut child = command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    (child, stdout)
}

async fn value(stdout: &mut BufReader<ChildStdout>, name: &str) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).await.expect("a line");
    line.trim_end().strip_prefix(name).unwrap_or_else(|| panic!("{line:?} is not {name}")).to_owned()
}

async fn run(arguments: &[&str], log: &[u8], end: &str) -> (ExitStatus, Value, String) {
    let (mut child, mut stdout) = start(arguments);
    let url = value(&mut stdout, "url: ").await;
    let client = Client::at(&url, &value(&mut stdout, "token: ").await);
    value(&mut stdout, "job: ").await;
    let job = client.take_job().await;
    assert_eq!(client.append(&job, 0, log).await.status(), 202);
    assert_eq!(client.update(&job, end, output(log)).await.status(), 200);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.expect("text");
    (child.wait().await.expect("it ends"), job, rest)
}

#[tokio::test]
async fn it_shows_the_log_and_ends_as_the_job() {
    let (status, job, shown) = run(&["--script", "echo hi", "--image", "alpine"], b"hi\n", "success").await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(job["steps"][0]["script"][0], "echo hi");
    assert_eq!(job["image"]["name"], "alpine");
    assert_eq!(shown, format!("hi\njob {}: success\n", job["id"]));
    let (status, job, shown) = run(&["--script", "false"], b"no\n", "failed").await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(shown, format!("no\njob {}: failed (script_failure)\n", job["id"]));
}

#[tokio::test]
async fn it_takes_a_job_from_a_file_and_the_commit_of_a_repository() {
    let directory = tempfile::tempdir().expect("a directory");
    let git = "git init -q . && git -c user.name=A -c user.email=a@b commit -q --allow-empty -m Start \
               && git rev-parse HEAD";
    let made = Command::new("sh").args(["-c", git]).current_dir(&directory).output().await.expect("git");
    let sha = String::from_utf8(made.stdout).expect("text");
    let file = directory.path().join("job.json");
    std::fs::write(&file, r#"{"steps": [{"name": "script", "script": ["make"]}]}"#).expect("a file");
    let file = file.to_str().expect("text");
    let repo = directory.path().to_str().expect("text");
    let (status, job, _) = run(&["--job", file, "--repo", repo], b"x", "success").await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(job["steps"][0]["script"][0], "make");
    assert_eq!(job["git_info"]["sha"], sha.trim());
}

#[tokio::test]
async fn it_says_what_is_wrong_with_its_arguments() {
    for (arguments, expected) in [
        (vec!["--job", "/nonexistent/job.json"], "cannot read the job /nonexistent/job.json"),
        (vec!["--script", "x", "--repo", "/nonexistent"], "cannot use the repository /nonexistent"),
        (vec!["--script", "x", "--repo", "/proc"], "does not appear to be a git repository"),
    ] {
        let (child, _stdout) = start(&arguments);
        let output = child.wait_with_output().await.expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
}
