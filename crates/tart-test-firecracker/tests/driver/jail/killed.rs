//! What becomes of jailed machines whose runner is killed.

use std::{io::Write as _, process::Stdio};

use tart_vmm::{Guard, reap};
use tokio::process::Command;

use super::*;

/// The variable that makes a test's process the runner that is killed.
const RUNNER: &str = "TART_TEST_JAILED_RUNNER";

/// What is left of a runner.
struct Killed {
    pid: u32,
    uid: u32,
    group: PathBuf,
    root: PathBuf,
    _dir: tempfile::TempDir,
}

/// Runs a test again as a runner with a jailed machine, and kills it.
async fn killed(test: &str, guarded: bool) -> Killed {
    if std::env::var_os(RUNNER).is_some() {
        let mut scene = Scene::jailed(&json!({}), &json!({}));
        let group = scene.with_cgroup();
        let machine = scene.start().await.unwrap();
        let _guard = guarded.then(|| Guard::start(&scene.run_dir).unwrap());
        let root = scene.run_dir.path().parent().unwrap();
        let told = json!({ "pid": machine.pid(), "uid": scene.uid(), "group": group, "root": root });
        let mut out = std::io::stdout();
        writeln!(out, "\n{told}").unwrap();
        std::future::pending::<()>().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .args([&format!("jail::killed::{test}"), "--exact", "--nocapture"])
        .env(RUNNER, "1")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines();
    let told: Value = loop {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().expect("it starts");
        if line.starts_with('{') {
            break serde_json::from_str(&line).unwrap();
        }
    };
    runner.kill().await.unwrap();
    let (pid, uid) = (told["pid"].as_u64().unwrap(), told["uid"].as_u64().unwrap());
    let [pid, uid] = [pid, uid].map(|number| u32::try_from(number).unwrap());
    let [group, root] = ["group", "root"].map(|name| PathBuf::from(told[name].as_str().unwrap()));
    Killed { pid, uid, group, root, _dir: dir }
}

#[tokio::test]
async fn the_guard_ends_what_a_killed_runner_left() {
    let killed = killed("the_guard_ends_what_a_killed_runner_left", true).await;
    let gone = async {
        while !of_user(killed.uid).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("no machine outlives its runner");
    assert!(killed.group.exists(), "names are for the next runner");
    let reaped = tokio::task::spawn_blocking(move || reap(&killed.root)).await.unwrap().unwrap();
    assert_eq!((reaped.dirs.len(), reaped.problems), (1, vec![]));
    assert!(!reaped.dirs[0].exists() && !killed.group.exists());
}

#[tokio::test]
async fn what_a_killed_runner_left_in_a_jail_is_reaped() {
    let killed = killed("what_a_killed_runner_left_in_a_jail_is_reaped", false).await;
    let Killed { pid, uid, group, root, _dir } = killed;
    assert_eq!(of_user(uid), [pid], "the change of the user saved it from the runner's end");

    let reaped = tokio::task::spawn_blocking(move || reap(&root)).await.unwrap().unwrap();
    assert_eq!((reaped.processes, reaped.problems), (vec![pid], vec![]));
    assert_eq!(reaped.dirs.len(), 1);
    assert!(of_user(uid).is_empty() && !reaped.dirs[0].exists() && !group.exists());
}
