//! A runner that is another user and has no privileges, in a process of its own.

use std::{
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    process::Command,
};

use rustix::{
    process::{Gid, Uid},
    thread::{
        UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
        unshare_unsafe,
    },
};

use tart_vmm::SnapshotMemory;

use super::*;

/// The user that it is.
const NOBODY: u32 = 65_534;

/// Where its helper is.
const SOCKET: &str = "TART_TEST_JAIL_HELPER";

/// A process of that user that runs one test, which all others leave to it.
fn runner(helper: &Helper, test: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", &format!("helped::unprivileged::{test}"), "--ignored", "--nocapture"]);
    command.env(SOCKET, &helper.socket).current_dir("/");
    let lower = || {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        #[expect(unsafe_code, reason = "descriptors that threads share could be unshared by it")]
        // SAFETY: the flag is not about descriptors, and this is the child of a fork with one thread.
        unsafe {
            // As a service of systemd: all mounts are others than the helper's.
            unshare_unsafe(UnshareFlags::NEWNS)?;
        }
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(set_no_new_privs(true)?)
    };
    #[expect(unsafe_code, reason = "the standard library has no other way to prepare a child")]
    // SAFETY: the closure makes system calls only.
    unsafe {
        command.pre_exec(lower);
    }
    command
}

/// Its host, as far as it can make it itself.
fn scene() -> Scene {
    let mut scene = Scene::new(&json!({}));
    scene.helper = Some(std::env::var_os(SOCKET).expect("another test runs this one").into());
    assert_ne!(rustix::process::geteuid().as_raw(), 0);
    scene
}

#[tokio::test]
async fn a_runner_needs_no_privileges_beside_a_helper() {
    let helper = Helper::start(&json!({ "closes": 1 }), &json!({}), NOBODY).await;
    let mut command = runner(&helper, "the_runner_without_privileges");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    helper.gone().await;
}

#[tokio::test]
#[ignore = "run by another test, as another user"]
async fn the_runner_without_privileges() {
    for memory in [SnapshotMemory::File, SnapshotMemory::Uffd] {
        whole_life(scene(), memory).await;
    }
}

/// The variable that makes a test's process the helper that is a service.
const SERVICE: &str = "TART_TEST_SERVICE_HELPER";

/// The capabilities that the packaged unit gives, as words for setpriv(1).
fn capabilities() -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd/tart-root-helper.service");
    let unit = fs::read_to_string(unit).unwrap();
    let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    lines.flat_map(str::split_whitespace).map(|name| name.to_lowercase().replace("cap_", ",+")).collect()
}

#[tokio::test]
async fn the_capabilities_of_the_packaged_unit_are_enough() {
    if std::env::var_os(SERVICE).is_some() {
        for memory in [SnapshotMemory::File, SnapshotMemory::Uffd] {
            let helper = Helper::start(&json!({ "closes": 1 }), &json!({}), 0).await;
            let mut scene = Scene::new(&json!({}));
            scene.helper = helper.scene.helper.clone();
            whole_life(scene, memory).await;
            helper.gone().await;
        }
        return;
    }
    let mut command = tokio::process::Command::new("setpriv");
    command.args([
        "--no-new-privs",
        "--inh-caps=-all",
        &format!("--bounding-set=-all{}", capabilities()),
        "--",
    ]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "helped::unprivileged::the_capabilities_of_the_packaged_unit_are_enough"]);
    let output = command.arg("--nocapture").env(SERVICE, "1").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A machine is saved, and another goes on from there and is given a disk.
async fn whole_life(mut scene: Scene, memory: SnapshotMemory) {
    let owner = rustix::process::geteuid().as_raw();
    let driver = scene.driver(FirecrackerTuning { snapshot_memory: memory, ..FirecrackerTuning::default() });
    let driver = driver.await.unwrap();
    scene.spec.disks.push(DiskSpec { path: None, read_only: true, serial: "service-0".into() });
    scene.spec.origin = Origin::Template;
    let template = driver.start(&scene.spec).await.unwrap();
    let about = |name: &str| fs::metadata(scene.root.path().join(name)).unwrap();
    for name in ["vmlinux", "helper", "scratch"] {
        assert_eq!(about(name).nlink(), 2, "{name} is a copy");
    }
    assert_eq!(about("vmlinux").uid(), owner);
    assert_ne!(about("scratch").uid(), owner, "it is not the machine's");
    assert_eq!(line(&*template).await, "it is up\n");
    let snapshot = template.save().await.unwrap();
    drop(template);

    let machine_dir = scene.run_dir.machine("job-2").unwrap();
    (scene.spec.id, scene.spec.run_dir) = ("job-2".into(), machine_dir.path().to_owned());
    fs::write(scene.root.path().join("scratch2"), "s").unwrap();
    scene.spec.disks[1].path = Some(scene.root.path().join("scratch2"));
    scene.spec.origin = Origin::Snapshot(snapshot);
    let machine = driver.start(&scene.spec).await.unwrap();
    assert_eq!(line(&*machine).await, "it is here\n");
    machine.insert_disk("service-0", &scene.root.path().join("helper")).await.unwrap();
    assert!(machine.counters().await.unwrap().disks.read_bytes > 0);
    let exit = machine.kill().await;
    assert_eq!((exit.kind, exit.status), (ExitKind::Killed, ProcessStatus::Signal(9)));
}
