//! Tart's driver against the fakes.

/// Needs root.
#[cfg(feature = "slow-tests")]
mod helped;

/// Needs root.
#[cfg(feature = "slow-tests")]
mod jail;

/// Needs root, since not everybody may serve memory.
#[cfg(feature = "slow-tests")]
mod pages;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tart_vmm::{
    DiskSpec, Driver, ExitKind, FirecrackerDriver, FirecrackerOptions, FirecrackerTuning, HugePages, Machine,
    MachineDir, MachineSpec, Origin, ProcessStatus, RunDir, VmmError, await_boot,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// A loaded machine may need most of it.
const LIMIT: Duration = Duration::from_secs(60);

struct Scene {
    program: PathBuf,
    jailer: Option<PathBuf>,
    /// The root helper's socket, which has the programs then.
    helper: Option<PathBuf>,
    spec: MachineSpec,
    // In this order: what is inside goes first.
    machine_dir: MachineDir,
    run_dir: RunDir,
    root: tempfile::TempDir,
}

impl Scene {
    /// A host whose `firecracker` is the fake with a plan.
    fn new(plan: &Value) -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("plan.json"), plan.to_string()).unwrap();
        let program = at("firecracker");
        let script = format!(
            "#!/bin/sh\nexec {} --fake {} \"$@\"\n",
            env!("CARGO_BIN_EXE_fake-firecracker"),
            at("plan.json").display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        for (name, contents) in
            [("vmlinux", b"\x7fELF" as &[u8]), ("initrd", b"07"), ("helper", b"h"), ("scratch", b"s")]
        {
            fs::write(at(name), contents).unwrap();
        }
        // Longer than a socket's path may be.
        let run_dir = RunDir::create(&root.path().join("d".repeat(100))).unwrap();
        let machine_dir = run_dir.machine("job-1-ab").unwrap();
        let disk = |name: &str, read_only| DiskSpec { path: Some(at(name)), read_only, serial: name.into() };
        let spec = MachineSpec {
            id: "job-1-ab".into(),
            run_dir: machine_dir.path().to_owned(),
            kernel: at("vmlinux"),
            initrd: at("initrd"),
            extra_kernel_args: Vec::new(),
            vcpus: 2,
            memory_bytes: 256 << 20,
            disks: vec![disk("helper", true), disk("scratch", false)],
            nic: None,
            boot_limit: LIMIT,
            later_disk: None,
            later_images: Vec::new(),
            identity: None,
            cgroup: None,
            origin: Origin::Boot,
        };
        Self { program, jailer: None, helper: None, spec, machine_dir, run_dir, root }
    }

    async fn driver(&self, tuning: FirecrackerTuning) -> Result<FirecrackerDriver, VmmError> {
        FirecrackerDriver::new(FirecrackerOptions {
            binary: self.helper.is_none().then(|| self.program.clone()),
            jailer: self.jailer.clone().filter(|_| self.helper.is_none()),
            helper: self.helper.clone(),
            tuning,
        })
        .await
    }

    async fn start(&self) -> Result<Box<dyn Machine>, VmmError> {
        self.driver(FirecrackerTuning::default()).await?.start(&self.spec).await
    }

    /// A failed start, and that nothing of it runs.
    async fn failure(&self) -> VmmError {
        let error = self.start().await.unwrap_err();
        assert!(processes(self.machine_dir.path()).is_empty(), "a process is left");
        error
    }
}

/// Processes whose working directory is this one.
fn processes(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries.filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == directory)).collect()
}

async fn line(machine: &dyn Machine) -> String {
    let stream = tokio::time::timeout(LIMIT, machine.connect_agent()).await.unwrap().unwrap();
    let mut line = String::new();
    tokio::time::timeout(LIMIT, BufReader::new(stream).read_line(&mut line)).await.unwrap().unwrap();
    line
}

#[tokio::test]
async fn every_version_gets_what_it_knows_and_its_agent_is_reached() {
    for version in ["1.7.0", "1.12.1", "1.13.0", "1.14.0", "1.15.1", "1.16.1", "1.17.0"] {
        let scene = Scene::new(&json!({ "version": version, "closes": 2 }));
        let tuning = FirecrackerTuning {
            balloon: true,
            cpu_template: Some("T2".into()),
            ..FirecrackerTuning::default()
        };
        let driver = scene.driver(tuning).await.unwrap();
        assert!(driver.describe().contains(version), "{}", driver.describe());
        assert!(driver.capabilities().hardware_acceleration && !driver.capabilities().disk_serials);
        let machine = driver.start(&scene.spec).await.unwrap_or_else(|error| panic!("{version}: {error}"));
        // The agent reports once; later connections are asked for, until it listens.
        assert_eq!(line(&*machine).await, "it is up\n");
        assert_eq!(line(&*machine).await, "it is here\n");
        let exit = machine.kill().await;
        assert_eq!((exit.kind, exit.status), (ExitKind::Killed, ProcessStatus::Signal(9)));
        assert!(processes(scene.machine_dir.path()).is_empty());
    }
}

#[tokio::test]
async fn other_versions_and_programs_are_refused_with_what_to_do() {
    let scene = Scene::new(&json!({ "version": "1.6.0" }));
    let program = scene.program.display().to_string();
    let shown = |error: VmmError| error.to_string().replace(&program, "PROGRAM");
    insta::assert_snapshot!(shown(scene.driver(FirecrackerTuning::default()).await.unwrap_err()), @"cannot use `PROGRAM`: it is Firecracker 1.6.0, which is older than 1.7.0");
    fs::write(&scene.program, "#!/bin/sh\necho hello\n").unwrap();
    insta::assert_snapshot!(shown(scene.driver(FirecrackerTuning::default()).await.unwrap_err()), @"cannot use `PROGRAM`: it tells no version");
    fs::write(&scene.program, "#!/bin/sh\nexit 3\n").unwrap();
    insta::assert_snapshot!(shown(scene.driver(FirecrackerTuning::default()).await.unwrap_err()), @"cannot use `PROGRAM`: it ended with exit status: 3 and told no version");
    fs::remove_file(&scene.program).unwrap();
    insta::assert_snapshot!(shown(scene.driver(FirecrackerTuning::default()).await.unwrap_err()), @"cannot use `PROGRAM`: it is no program");
}

#[tokio::test]
async fn what_firecracker_refuses_is_shown() {
    let mut scene = Scene::new(&json!({}));
    fs::write(&scene.spec.kernel, "no kernel").unwrap();
    let error = scene.failure().await.to_string();
    assert!(
        error.contains("refuses /boot-source: ") && error.contains("Invalid ELF magic number"),
        "{error}"
    );
    scene = Scene::new(&json!({ "version": "1.17.0" }));
    fs::write(&scene.spec.kernel, "a bzImage").unwrap();
    assert!(scene.start().await.is_ok(), "1.17 boots other kernels too");

    let mut scene = Scene::new(&json!({}));
    scene.spec.disks[0].path = Some(scene.root.path().join("gone"));
    let error = scene.failure().await.to_string();
    assert!(error.contains("refuses /drives/disk0: The drive file cannot be opened"), "{error}");
}

#[tokio::test]
async fn each_way_to_die_is_told_apart() {
    for (path, code, kind, text) in [
        ("/machine-config", 1, ExitKind::Failed, "failed with exit code 1"),
        ("/actions", 148, ExitKind::Crashed, "its own filter forbids"),
        ("/actions", 149, ExitKind::Crashed, "no huge pages left"),
        ("/vsock", 151, ExitKind::Crashed, "limit of file size"),
    ] {
        let scene = Scene::new(&json!({ "dies_at": [path, code] }));
        let error = scene.failure().await;
        let VmmError::EndedInBoot { exit, .. } = &error else { panic!("{error}") };
        assert_eq!((exit.kind, exit.status), (kind, ProcessStatus::Code(code)));
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn the_end_of_the_log_belongs_to_the_error_of_a_machine_that_fails() {
    for version in ["1.7.0", "1.16.1"] {
        let scene = Scene::new(&json!({ "version": version, "dies_at": ["/vsock", 148] }));
        let error = scene.failure().await.to_string();
        assert!(error.contains("[Error] Firecracker cannot go on at /vsock"), "{error}");
    }
    // Whatever the guest makes it log, the machine runs on, and the end is kept.
    let scene = Scene::new(&json!({ "warnings": 20_000 }));
    let machine = scene.start().await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    let told = machine.console_tail();
    assert!(told.contains("[Warn] the guest did something strange, ") && told.len() < 8192, "{told}");
    machine.kill().await;
}

#[tokio::test]
async fn a_machine_tells_what_its_devices_did() {
    let mut scene = Scene::new(&json!({}));
    scene.spec.origin = Origin::Template;
    let driver = scene.driver(FirecrackerTuning::default()).await.unwrap();
    let template = driver.start(&scene.spec).await.unwrap();
    // One line at the start, one for each question.
    assert_eq!(template.counters().await.unwrap().disks.read_bytes, 2 * 4096);
    let counters = template.counters().await.unwrap();
    assert_eq!((counters.disks.read_bytes, counters.disks.written_bytes), (3 * 4096, 3 * 512));
    assert_eq!((counters.agent.written_bytes, counters.agent.failures), (60, 3));
    assert_eq!((counters.forbidden_calls, counters.lost_reports), (0, 0));

    // A machine that goes on from another has a log and counters of its own.
    assert_eq!(line(&*template).await, "it is up\n");
    scene.spec.origin = Origin::Snapshot(template.save().await.unwrap());
    let other = tempfile::tempdir().unwrap();
    scene.spec.run_dir = other.path().to_owned();
    let machine = driver.start(&scene.spec).await.unwrap();
    assert_eq!(machine.counters().await.unwrap().disks.read_bytes, 4096);
    machine.kill().await;
    assert_eq!(machine.counters().await.unwrap().disks.read_bytes, 4096);
}

#[tokio::test]
async fn a_guest_that_resets_ends_the_machine_and_one_that_crashes_is_explained() {
    let scene = Scene::new(&json!({ "exits": 0, "reports": false, "prints": 1_000_000 }));
    let machine = scene.start().await.unwrap();
    let never = std::future::pending::<Result<(), String>>();
    let error = await_boot(&*machine, LIMIT, never).await.unwrap_err();
    let VmmError::EndedInBoot { exit, console } = error else { panic!("{error}") };
    assert_eq!((exit.kind, exit.status), (ExitKind::Guest, ProcessStatus::Code(0)));
    assert!(console.ends_with("the guest runs\n") && console.len() <= 64 * 1024, "{} bytes", console.len());

    let scene = Scene::new(&json!({ "exits": 150 }));
    let machine = scene.start().await.unwrap();
    let exit = tokio::time::timeout(LIMIT, machine.wait()).await.unwrap();
    assert_eq!(exit.kind, ExitKind::Crashed);
    assert!(machine.console_tail().ends_with("Firecracker crashed (SIGSEGV)"), "{}", machine.console_tail());
}

#[tokio::test]
async fn nonsense_and_silence_are_errors() {
    let scene = Scene::new(&json!({ "nonsense_at": "/vsock" }));
    let error = scene.failure().await.to_string();
    assert!(error.contains("answers /vsock with status 299"), "{error}");

    let scene = Scene::new(&json!({ "reports": true, "answer": "NO\nmore" }));
    let machine = scene.start().await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    let error = machine.connect_agent().await.unwrap_err();
    let VmmError::System { source, .. } = error else { panic!("{error}") };
    insta::assert_snapshot!(source, @r#"the vsock answers "NO\n""#);
}

#[tokio::test]
async fn a_slow_start_is_waited_for_and_one_that_nobody_wants_leaves_nothing() {
    let scene = Scene::new(&json!({ "delay_ms": 300 }));
    let machine = scene.start().await.unwrap();
    let pid = machine.pid();
    drop(machine);
    let gone = async {
        while Path::new(&format!("/proc/{pid}/exe")).exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("it is killed when it is dropped");

    let scene = Scene::new(&json!({ "silent_at": "/machine-config" }));
    let started = tokio::time::timeout(Duration::from_millis(500), scene.start()).await;
    assert!(started.is_err(), "it never answers");
    let gone = async {
        while !processes(scene.machine_dir.path()).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("a start that was given up leaves no process");
}

#[tokio::test]
async fn a_network_device_is_needed_by_name() {
    let mut scene = Scene::new(&json!({}));
    let (link, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let link = tart_net::NicLink::Stream(std::sync::Arc::new(link.into()));
    scene.spec.nic = Some(tart_net::Nic { mac: "02:00:00:00:00:01".into(), link });
    insta::assert_snapshot!(scene.failure().await, @"machine `job-1-ab` cannot be started: Firecracker needs a named tap device: use `mode = \"netns\"` for the network");
}

/// Needs root.
#[cfg(feature = "slow-tests")]
#[tokio::test]
async fn a_tap_device_is_found_in_its_namespace() {
    let options = tart_net::NetnsOptions { ready: 0, named_taps: true, ..tart_net::NetnsOptions::default() };
    let network = tart_net::NetnsNetwork::start(options).await.unwrap();
    let attachment = tart_net::Network::attach(&network, &tart_net::AttachRequest::default()).await.unwrap();
    let mut scene = Scene::new(&json!({}));
    scene.spec.nic = attachment.guest().nic.clone();
    let machine = scene.start().await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    machine.kill().await;
    attachment.detach().await;
}

#[tokio::test]
async fn huge_pages_are_asked_for_as_the_version_has_them() {
    let scene = Scene::new(&json!({ "version": "1.17.0" }));
    for huge_pages in [HugePages::None, HugePages::TwoMib, HugePages::Transparent] {
        let tuning = FirecrackerTuning { huge_pages, ..FirecrackerTuning::default() };
        let driver = scene.driver(tuning).await.unwrap();
        let machine = driver.start(&scene.spec).await.unwrap();
        machine.kill().await;
        for socket in ["api.sock", "agent.vsock", "agent.vsock_1024"] {
            let _gone = fs::remove_file(scene.machine_dir.path().join(socket));
        }
    }
}

#[tokio::test]
async fn machines_go_on_from_one_that_was_saved() {
    for version in ["1.13.0", "1.15.1", "1.16.1", "1.17.0"] {
        let mut scene = Scene::new(&json!({ "version": version, "closes": 1 }));
        scene.spec.disks.push(DiskSpec { path: None, read_only: true, serial: "service-0".into() });
        scene.spec.origin = Origin::Template;
        let driver = scene.driver(FirecrackerTuning::default()).await.unwrap();
        assert!(driver.capabilities().snapshots);
        let template = driver.start(&scene.spec).await.unwrap();
        assert_eq!(line(&*template).await, "it is up\n");
        let snapshot = template.save().await.unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(template.wait().await.kind, ExitKind::Killed);
        assert!(snapshot.resident_bytes() < 4 << 20, "what is empty takes no memory");

        scene.spec.origin = Origin::Snapshot(snapshot);
        let other = tempfile::tempdir().unwrap();
        scene.spec.run_dir = other.path().to_owned();
        let machine = driver.start(&scene.spec).await.unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(line(&*machine).await, "it is here\n");
        machine.insert_disk("service-0", &scene.root.path().join("helper")).await.unwrap();
        let error = machine.insert_disk("service-0", Path::new("/gone")).await.unwrap_err();
        assert!(
            error.to_string().contains("refuses /drives/disk2: The drive file cannot be opened"),
            "{error}"
        );
        let error = machine.insert_disk("helper", Path::new("/gone")).await.unwrap_err();
        assert!(error.to_string().contains("has no empty disk `helper`"), "{error}");
        machine.kill().await;
    }
}

#[tokio::test]
async fn a_snapshot_of_another_version_is_refused_and_ends_the_process() {
    let mut scene = Scene::new(&json!({ "version": "1.15.0" }));
    scene.spec.origin = Origin::Template;
    let snapshot = scene.start().await.unwrap().save().await.unwrap();
    let mut scene = Scene::new(&json!({ "version": "1.16.1" }));
    scene.spec.origin = Origin::Snapshot(snapshot);
    let error = scene.failure().await.to_string();
    assert!(
        error.contains("refuses /snapshot/load: Load snapshot error: the snapshot is of another version"),
        "{error}"
    );
}

#[tokio::test]
async fn versions_that_lose_the_agent_of_saved_machines_boot_theirs() {
    let mut scene = Scene::new(&json!({ "version": "1.16.0" }));
    assert!(!scene.driver(FirecrackerTuning::default()).await.unwrap().capabilities().snapshots);
    scene.spec.origin = Origin::Template;
    insta::assert_snapshot!(scene.failure().await, @"machine `job-1-ab` cannot be started: Firecracker 1.16.0 cannot go on from a saved machine");
}
