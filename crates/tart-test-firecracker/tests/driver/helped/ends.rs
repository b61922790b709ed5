//! All ends with the runner, and with the helper.

use std::{io::Write as _, process::Stdio};

use tokio::process::Command;

use super::*;

/// The variable that makes a test's process the runner or the helper that is killed.
const KILLED: &str = "TART_TEST_KILLED_HELPED";

/// Runs a test again in a process of its own, until it has said something.
async fn begun(test: &str, dir: &Path) -> (tokio::process::Child, Value) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([&format!("helped::ends::{test}"), "--exact", "--nocapture"])
        .env(KILLED, dir)
        .env("TMPDIR", dir)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().expect("it starts");
        if line.starts_with('{') {
            return (child, serde_json::from_str(&line).unwrap());
        }
    }
}

/// Says something to the test that has started this process, and waits for its end.
async fn told(text: &Value) -> ! {
    let mut out = std::io::stdout();
    writeln!(out, "\n{text}").unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn machines_end_with_a_runner_that_is_killed() {
    if let Some(dir) = std::env::var_os(KILLED) {
        let mut scene = Scene::new(&json!({}));
        scene.helper = Some(Path::new(&dir).join("helper.sock"));
        let machine = scene.start().await.unwrap();
        told(&json!({ "pid": machine.pid() })).await;
    }
    let helper = Helper::start(&json!({}), &json!({}), 0).await;
    let (mut runner, _) = begun("machines_end_with_a_runner_that_is_killed", helper.scene.root.path()).await;
    assert_eq!(helper.machines().len(), 1);
    runner.kill().await.unwrap();
    helper.gone().await;
}

#[tokio::test]
async fn machines_end_with_a_helper_that_is_killed_and_the_next_removes_what_is_left() {
    if std::env::var_os(KILLED).is_some() {
        let helper = Helper::start(&json!({}), &json!({}), 0).await;
        let machine = helper.scene.start().await.unwrap();
        let (machines, root) = (helper.machines(), helper.scene.root.path());
        told(
            &json!({ "pid": machine.pid(), "machine": machines[0], "root": root, "uid": helper.uids.start }),
        )
        .await;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "machines_end_with_a_helper_that_is_killed_and_the_next_removes_what_is_left";
    let (mut killed, told) = begun(test, dir.path()).await;
    let machine = PathBuf::from(told["machine"].as_str().unwrap());
    let group = PathBuf::from(fs::read_to_string(machine.join("cgroup")).unwrap());
    let pid = u32::try_from(told["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), format!("{pid}\n"));
    killed.kill().await.unwrap();
    let uid = u32::try_from(told["uid"].as_u64().unwrap()).unwrap();
    let gone = async {
        while !of_user(uid).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("no machine outlives its helper");
    assert!(machine.exists() && group.exists(), "names are for the next helper");

    // Where the one that was killed had its jails.
    let mut scene = Scene::jailed(&json!({}), &json!({}));
    let jails = Path::new(told["root"].as_str().unwrap()).join("jails");
    fs::rename(&jails, scene.root.path().join("jails")).unwrap();
    scene.spec.identity = None;
    let next = server(&scene, uid, Box::new(|_| false)).await.unwrap();
    assert!(!group.exists());
    let left = fs::read_dir(scene.root.path().join("jails")).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 1, "its own directory is the only one");
    drop(next);
}

#[tokio::test]
async fn a_start_that_nobody_wants_leaves_nothing() {
    let helper = Helper::start(&json!({ "silent_at": "/machine-config" }), &json!({}), 0).await;
    let started = tokio::time::timeout(Duration::from_millis(500), helper.scene.start()).await;
    assert!(started.is_err(), "it never answers");
    helper.gone().await;
}

#[tokio::test]
async fn each_way_to_die_is_told_apart_by_the_helper_too() {
    for (path, code, kind, text) in [
        ("/machine-config", 1, ExitKind::Failed, "failed with exit code 1"),
        ("/actions", 148, ExitKind::Crashed, "its own filter forbids"),
    ] {
        let helper = Helper::start(&json!({ "dies_at": [path, code] }), &json!({}), 0).await;
        let error = helper.scene.start().await.unwrap_err();
        let VmmError::EndedInBoot { exit, .. } = &error else { panic!("{error}") };
        assert_eq!((exit.kind, exit.status), (kind, ProcessStatus::Code(code)));
        assert!(error.to_string().contains(text), "{error}");
        assert!(
            error.to_string().contains(&format!("[Error] Firecracker cannot go on at {path}")),
            "{error}"
        );
        helper.gone().await;
    }
    for stage in ["arguments", "devices"] {
        let helper = Helper::start(&json!({}), &json!({ "fails_after": stage }), 0).await;
        let error = helper.scene.start().await.unwrap_err();
        let VmmError::EndedInBoot { exit, console } = &error else { panic!("{error}") };
        assert_eq!((exit.kind, exit.status), (ExitKind::Failed, ProcessStatus::Code(1)));
        assert!(console.to_lowercase().contains(&format!("it fails after {stage}")), "{console}");
        helper.gone().await;
    }
}

#[tokio::test]
async fn a_machine_outside_its_control_group_is_killed_before_its_guest_runs() {
    let helper = Helper::start(&json!({}), &json!({ "stays": true }), 0).await;
    let error = helper.scene.start().await.unwrap_err().to_string();
    assert!(error.contains("of `job-1-ab` is not in its control group /sys/fs/cgroup"), "{error}");
    assert!(!error.contains("the guest runs"), "{error}");
    helper.gone().await;
}
