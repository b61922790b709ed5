//! Machines whose memory is served page by page: their monitor looks at what comes.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tart_vmm::{HugePages, SnapshotMemory};

use super::*;

fn served() -> FirecrackerTuning {
    FirecrackerTuning { snapshot_memory: SnapshotMemory::Uffd, ..FirecrackerTuning::default() }
}

fn huge() -> FirecrackerTuning {
    FirecrackerTuning { huge_pages: HugePages::TwoMib, ..FirecrackerTuning::default() }
}

/// The threads of this process that serve memory.
fn servers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "tart-pages").count()
}

async fn no_server_is_left() {
    let gone = async {
        while servers() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("a machine's server ends with it");
}

/// A scene whose machine goes on from one that was saved.
async fn restoring(mut scene: Scene, tuning: &FirecrackerTuning) -> (Scene, FirecrackerDriver) {
    scene.spec.disks.push(DiskSpec { path: None, read_only: true, serial: "service-0".into() });
    scene.spec.origin = Origin::Template;
    let driver = scene.driver(tuning.clone()).await.unwrap();
    assert!(driver.capabilities().snapshots);
    let template = driver.start(&scene.spec).await.unwrap();
    assert_eq!(line(&*template).await, "it is up\n");
    let snapshot = template.save().await.unwrap();
    drop(template);
    // Its directory is not used again.
    let machine_dir = scene.run_dir.machine("job-2").unwrap();
    (scene.spec.id, scene.spec.run_dir) = ("job-2".into(), machine_dir.path().to_owned());
    scene.machine_dir = machine_dir;
    scene.spec.origin = Origin::Snapshot(snapshot);
    (scene, driver)
}

/// Two machines at once go on from one, and use their memory while they run.
async fn go_on(scene: Scene, tuning: &FirecrackerTuning) {
    let (scene, driver) = restoring(scene, tuning).await;
    let other_dir = scene.run_dir.machine("job-3").unwrap();
    let mut other = scene.spec.clone();
    (other.id, other.run_dir) = ("job-3".into(), other_dir.path().to_owned());
    let mut machines = Vec::new();
    for spec in [&scene.spec, &other] {
        let machine = driver.start(spec).await.unwrap();
        assert_eq!(line(&*machine).await, "it is here\n");
        machines.push(machine);
    }
    assert_eq!(servers(), 2);
    for machine in &machines {
        machine.insert_disk("service-0", &scene.root.path().join("helper")).await.unwrap();
        let exit = machine.kill().await;
        assert_eq!((exit.kind, exit.status), (ExitKind::Killed, ProcessStatus::Signal(9)));
    }
    drop(machines);
    no_server_is_left().await;
}

#[tokio::test]
async fn each_machine_gets_what_was_saved_page_by_page() {
    for version in ["1.13.0", "1.16.1", "1.17.0"] {
        go_on(Scene::new(&json!({ "version": version, "closes": 1 })), &served()).await;
    }
}

#[tokio::test]
async fn huge_pages_are_given_whole() {
    for version in ["1.13.0", "1.16.1", "1.17.0"] {
        go_on(Scene::new(&json!({ "version": version })), &huge()).await;
    }
}

#[tokio::test]
async fn jailed_machines_get_their_memory_too_and_no_file_of_it() {
    for tuning in [served(), huge()] {
        let scene = Scene::jailed(&json!({}), &json!({}));
        go_on(scene, &tuning).await;

        let scene = Scene::jailed(&json!({}), &json!({}));
        let (scene, driver) = restoring(scene, &tuning).await;
        let machine = driver.start(&scene.spec).await.unwrap();
        let jail = scene.jail();
        assert!(jail.join("snapshot.state").exists() && !jail.join("snapshot.memory").exists());
        machine.kill().await;
        drop(machine);
        scene.assert_gone();
    }
}

#[tokio::test]
async fn a_host_without_huge_pages_is_told_what_it_lacks() {
    let (scene, driver) = restoring(Scene::new(&json!({ "memory": "only-huge" })), &huge()).await;
    match driver.start(&scene.spec).await {
        // This host has some.
        Ok(machine) => drop(machine.kill().await),
        Err(error) => {
            insta::assert_snapshot!(error, @"the virtual machine monitor of `job-2` cannot be given its memory page by page: the host has no huge page left for it: raise `vm.nr_hugepages`");
        }
    }
}

/// What is said of a machine that introduces its memory in some manner, of which nothing is left.
async fn refusal(manner: &str, jailed: bool) -> String {
    let plan: Value = json!({ "memory": manner });
    let scene = if jailed { Scene::jailed(&plan, &json!({})) } else { Scene::new(&plan) };
    let (scene, driver) = restoring(scene, &served()).await;
    let error = driver.start(&scene.spec).await.unwrap_err();
    assert!(processes(scene.machine_dir.path()).is_empty(), "{manner}: a process is left");
    if jailed {
        scene.assert_gone();
    }
    no_server_is_left().await;
    error.to_string()
}

#[tokio::test]
async fn a_monitor_that_introduces_no_memory_is_killed_at_once_and_told_why() {
    let mut told = String::new();
    for manner in [
        "garbage",
        "endless",
        "half",
        "no-descriptor",
        "two-descriptors",
        "other-descriptor",
        "beyond",
        "overlapping",
        "other-pages",
    ] {
        let error = refusal(manner, false).await;
        let said = error.split_once("page by page: ").expect(&error).1;
        let _infallible = writeln!(told, "{manner}: {said}");
    }
    insta::assert_snapshot!(told, @r"
    garbage: its message is not what is expected: expected ident at line 1 column 2
    endless: its message is longer than 65536 bytes
    half: it closed the connection before its message was complete
    no-descriptor: its message has 0 descriptors, not one
    two-descriptors: its message has 2 descriptors, not one
    other-descriptor: its descriptor is no userfaultfd
    beyond: its mapping 1 is not within the 268435456 bytes of the memory
    overlapping: its mappings overlap
    other-pages: its mapping 1 has pages of 1073741824 bytes, which are neither 4096 nor 2097152
    ");
    for manner in ["garbage", "no-descriptor", "beyond"] {
        let error = refusal(manner, true).await;
        assert!(error.contains("cannot be given its memory page by page"), "{error}");
    }
}

#[tokio::test]
async fn a_machine_whose_memory_is_served_no_more_is_killed_and_not_left_waiting() {
    for jailed in [false, true] {
        let plan = json!({ "memory": "untold" });
        let scene = if jailed { Scene::jailed(&plan, &json!({})) } else { Scene::new(&plan) };
        let (scene, driver) = restoring(scene, &served()).await;
        let machine = driver.start(&scene.spec).await.unwrap();
        assert_eq!(line(&*machine).await, "it is here\n");
        // It touches what nobody serves.
        machine.insert_disk("service-0", &scene.root.path().join("helper")).await.unwrap_err();
        let exit = tokio::time::timeout(LIMIT, machine.wait()).await.expect("it does not hang");
        assert_eq!((exit.kind, exit.status), (ExitKind::Crashed, ProcessStatus::Signal(9)));
        let told = machine.console_tail();
        assert!(
            told.contains("Firecracker cannot be given its memory page by page: it waits for memory at 0x"),
            "{told}"
        );
        assert!(told.ends_with("which it did not tell of, and was killed"), "{told}");
        drop(machine);
        no_server_is_left().await;
    }
}

#[tokio::test]
async fn a_start_that_nobody_wants_leaves_no_server() {
    let (scene, driver) = restoring(Scene::new(&json!({ "silent_at": "/snapshot/load" })), &served()).await;
    let started = tokio::time::timeout(Duration::from_millis(500), driver.start(&scene.spec)).await;
    assert!(started.is_err(), "it never answers");
    no_server_is_left().await;
}
