//! Machines in the jails of the fake jailer, which are real ones.

mod killed;

use std::{fs, os::unix::fs::MetadataExt as _};

use serde_json::{Value, json};
use tart_test_firecracker::with_plan;
use tart_vmm::{Identity, Isolation, IsolationOptions, Limits};

use super::*;

impl Scene {
    /// A host whose `firecracker` and `jailer` are the fakes with plans.
    pub(super) fn jailed(plan: &Value, jailer_plan: &Value) -> Self {
        let mut scene = Self::new(plan);
        let at = |name: &str| scene.root.path().join(name);
        let fakes = [
            (env!("CARGO_BIN_EXE_fake-firecracker"), "firecracker", plan),
            (env!("CARGO_BIN_EXE_fake-jailer"), "jailer", jailer_plan),
        ];
        for (program, name, plan) in fakes {
            with_plan(Path::new(program), &plan.to_string(), &at(name)).unwrap();
        }
        scene.jailer = Some(at("jailer"));
        fs::set_permissions(at("scratch"), Permissions::from_mode(0o600)).unwrap();
        // Each test is a process.
        let uid = 1_000_000_000 + std::process::id();
        scene.spec.identity = Some(Identity { uid, gid: uid + 1 });
        scene
    }

    fn uid(&self) -> u32 {
        self.spec.identity.unwrap().uid
    }

    /// The root directory of the jail.
    pub(super) fn jail(&self) -> PathBuf {
        self.spec.run_dir.join("firecracker").join(&self.spec.id).join("root")
    }

    /// Nothing of the machine runs, and its jail is gone.
    pub(super) fn assert_gone(&self) {
        assert_eq!(of_user(self.uid()), Vec::<u32>::new(), "a process is left");
        assert!(!self.spec.run_dir.join("firecracker").exists(), "a jail is left");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = self.root.path().to_str().unwrap();
        assert!(!mounts.contains(root), "a mount is left: {mounts}");
    }

    /// A failed start of a jailed machine, of which nothing is left.
    async fn refusal(&self) -> VmmError {
        let error = self.start().await.unwrap_err();
        self.assert_gone();
        error
    }

    /// Puts the machine into a new control group.
    fn with_cgroup(&mut self) -> PathBuf {
        let options = IsolationOptions {
            uid_base: 1,
            uid_count: 0,
            locks: self.root.path().join("uids"),
            cgroup_parent: Some("tart-test".to_owned()),
        };
        self.machine_dir.confine(&Isolation::new(&options).unwrap(), &Limits::of(1 << 30, 0, 2)).unwrap();
        self.spec.cgroup = self.machine_dir.cgroup().map(Path::to_owned);
        self.spec.cgroup.clone().expect("this host has cgroup v2")
    }
}

/// Processes of a user that run.
pub(super) fn of_user(uid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let runs = |pid: &u32| {
        let owner = fs::metadata(format!("/proc/{pid}")).ok().map(|about| about.uid());
        // Those that ended have no command line, until their parent asks how.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        owner == Some(uid) && !line.is_empty()
    };
    pids.filter(runs).collect()
}

/// Words of a line of `/proc/PID/status`.
pub(super) fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn same_file(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(|path| path.metadata().unwrap());
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[tokio::test]
async fn a_jailed_machine_has_its_jail_and_no_rights() {
    let scene = Scene::jailed(&json!({ "closes": 2 }), &json!({}));
    let driver = scene.driver(FirecrackerTuning::default()).await.unwrap();
    assert!(driver.describe().contains(", jailed by "), "{}", driver.describe());
    let machine = driver.start(&scene.spec).await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    assert_eq!(line(&*machine).await, "it is here\n");

    let (pid, uid) = (machine.pid(), scene.uid());
    assert_eq!(of_user(uid), [pid], "the jailer is the machine's process");
    let proc = PathBuf::from(format!("/proc/{pid}"));
    assert!(same_file(&proc.join("root/"), &scene.jail()) && same_file(&proc.join("cwd/"), &scene.jail()));
    for (key, id) in [("Uid", uid), ("Gid", uid + 1)] {
        assert_eq!(status(pid, key), vec![id.to_string(); 4].join(" "));
    }
    assert_eq!(status(pid, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(fs::read(proc.join("environ")).unwrap(), b"");
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let words = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("Max file size"), ["65536", "65536"]);
    assert_eq!(words("Max open files"), ["2048", "2048"]);
    assert_eq!(words("Max core file size"), ["0", "0"]);

    // Whose each file is, and what others may do with it.
    let about = |name: &str| {
        let about = scene.jail().join(name).symlink_metadata().unwrap();
        (about.uid(), about.mode() & 0o777)
    };
    assert_eq!(about("disk1"), (uid, 0o600), "the scratch disk is the machine's");
    assert_eq!(about("firecracker"), (uid, 0o755), "its program is a copy");
    for name in ["kernel", "initrd", "disk0"] {
        let (owner, mode) = about(name);
        assert_eq!((owner, mode & 0o022, mode & 0o004), (0, 0, 0o004), "{name}");
    }
    for (name, original) in [("kernel", "vmlinux"), ("disk0", "helper"), ("disk1", "scratch")] {
        assert!(same_file(&scene.jail().join(name), &scene.root.path().join(original)), "{name} is a copy");
    }

    let exit = machine.kill().await;
    assert_eq!((exit.kind, exit.status), (ExitKind::Killed, ProcessStatus::Signal(9)));
    drop(machine);
    scene.assert_gone();
}

#[tokio::test]
async fn jailed_machines_go_on_from_one_that_was_saved() {
    for version in ["1.13.0", "1.16.1", "1.17.0"] {
        let jailer = json!({ "version": version });
        let mut scene = Scene::jailed(&json!({ "version": version, "closes": 1 }), &jailer);
        let disk = |serial: &str, read_only| DiskSpec { path: None, read_only, serial: serial.into() };
        let scratch = scene.spec.disks.pop().unwrap();
        scene.spec.disks.extend([disk("scratch", false), disk("service-0", true)]);
        scene.spec.origin = Origin::Template;
        let driver = scene.driver(FirecrackerTuning::default()).await.unwrap();
        let template = driver.start(&scene.spec).await.unwrap();
        assert_eq!(line(&*template).await, "it is up\n");
        let snapshot = template.save().await.unwrap_or_else(|error| panic!("{version}: {error}"));
        drop(template);
        scene.assert_gone();

        // One that has its scratch disk at once, and one that gets it later.
        scene.spec.origin = Origin::Snapshot(snapshot.clone());
        let mut machines = Vec::new();
        for (id, at_once) in [("job-2", true), ("job-3", false)] {
            let machine_dir = scene.run_dir.machine(id).unwrap();
            let mut spec = scene.spec.clone();
            (spec.id, spec.run_dir) = (id.into(), machine_dir.path().to_owned());
            if at_once {
                spec.disks[1] = scratch.clone();
            }
            let machine = driver.start(&spec).await.unwrap_or_else(|error| panic!("{version}: {error}"));
            assert_eq!(line(&*machine).await, "it is here\n");
            machines.push((machine, machine_dir));
        }
        let inside = |number: usize, name: &str| {
            let (machine, dir) = &machines[number];
            dir.path().join("firecracker").join(machine.id()).join("root").join(name)
        };
        assert!(same_file(&inside(0, "snapshot.memory"), &inside(1, "snapshot.memory")));
        let memory = inside(0, "snapshot.memory").metadata().unwrap();
        assert_eq!((memory.uid(), memory.mode() & 0o777), (0, 0o444));

        let machine = &machines[1].0;
        let images = [("scratch", "scratch2"), ("service-0", "helper")];
        fs::write(scene.root.path().join("scratch2"), "s").unwrap();
        for (serial, image) in images {
            machine.insert_disk(serial, &scene.root.path().join(image)).await.unwrap();
        }
        assert_eq!(inside(1, "disk1").metadata().unwrap().uid(), scene.uid());
        assert!(same_file(&inside(1, "disk2"), &scene.root.path().join("helper")));
        let error = machine.insert_disk("service-0", Path::new("/gone")).await.unwrap_err();
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"cannot put /gone into a jail");
        }
        for (machine, _) in &machines {
            machine.kill().await;
        }
        drop((machines, snapshot));
        scene.spec.origin = Origin::Boot;
        assert_eq!(fs::read_dir(scene.run_dir.path()).unwrap().count(), 2, "the lock and one machine");
    }
}

#[tokio::test]
async fn images_of_another_file_system_are_copied() {
    let mut scene = Scene::jailed(&json!({}), &json!({}));
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    for (disk, size) in scene.spec.disks.iter_mut().zip([1, 64 << 20]) {
        let image = elsewhere.path().join(&disk.serial);
        fs::File::create_new(&image).unwrap().set_len(size).unwrap();
        disk.path = Some(image);
    }
    let machine = scene.start().await.unwrap();
    let inside = |name: &str| scene.jail().join(name).metadata().unwrap();
    let [helper, scratch] = ["disk0", "disk1"].map(inside);
    assert_eq!((helper.uid(), helper.mode() & 0o777), (0, 0o444));
    assert_eq!((scratch.uid(), scratch.mode() & 0o777), (scene.uid(), 0o600));
    assert_eq!((scratch.len(), scratch.blocks()), (64 << 20, 0), "it is as sparse as it was");
    assert_eq!(elsewhere.path().join("scratch").metadata().unwrap().uid(), 0, "the original is left alone");
    machine.kill().await;
}

#[tokio::test]
async fn a_jailed_start_that_nobody_wants_leaves_nothing() {
    let scene = Scene::jailed(&json!({ "silent_at": "/machine-config" }), &json!({}));
    let started = tokio::time::timeout(Duration::from_millis(500), scene.start()).await;
    assert!(started.is_err(), "it never answers");
    let gone = async {
        while !of_user(scene.uid()).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("a start that was given up leaves no process");
    scene.assert_gone();
}

#[tokio::test]
async fn a_hostile_machine_saves_nothing_of_the_hosts() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    secret.as_file().set_len(256 << 20).unwrap();
    let mut scene = Scene::jailed(&json!({ "saves_links": secret.path() }), &json!({}));
    scene.spec.origin = Origin::Template;
    let machine = scene.start().await.unwrap();
    let error = machine.save().await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot open what Firecracker saved");
}

#[tokio::test]
async fn a_jailed_tap_device_is_found_in_its_namespace() {
    let options = tart_net::NetnsOptions { ready: 0, named_taps: true, ..tart_net::NetnsOptions::default() };
    let network = tart_net::NetnsNetwork::start(options).await.unwrap();
    let attachment = tart_net::Network::attach(&network, &tart_net::AttachRequest::default()).await.unwrap();
    let mut scene = Scene::jailed(&json!({}), &json!({}));
    scene.spec.nic = attachment.guest().nic.clone();
    let machine = scene.start().await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(fs::read_link(format!("/proc/{}/ns/net", machine.pid())).unwrap(), own);
    machine.kill().await;
    attachment.detach().await;
}

#[tokio::test]
async fn a_jailed_machine_is_in_its_control_group() {
    let mut scene = Scene::jailed(&json!({}), &json!({}));
    let group = scene.with_cgroup();
    let machine = scene.start().await.unwrap();
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(members, format!("{}\n", machine.pid()));
    machine.kill().await;
    drop(machine);
    scene.assert_gone();
    drop(scene);
    assert!(!group.exists(), "the control group goes with the machine's directory");

    // The jailer says nothing of a group that is not there.
    let mut scene = Scene::jailed(&json!({}), &json!({}));
    let group = scene.with_cgroup();
    fs::remove_dir(&group).unwrap();
    let error = scene.refusal().await.to_string();
    assert!(error.contains("of `job-1-ab` is not in its control group /sys/fs/cgroup"), "{error}");
    scene.spec.cgroup = Some(scene.root.path().to_owned());
    let error = scene.refusal().await.to_string();
    assert!(error.contains("is no control group of version 2"), "{error}");
}

#[tokio::test]
async fn each_way_to_die_is_told_apart_in_a_jail_too() {
    for (path, code, kind, text) in [
        ("/machine-config", 1, ExitKind::Failed, "failed with exit code 1"),
        ("/actions", 148, ExitKind::Crashed, "its own filter forbids"),
        ("/vsock", 151, ExitKind::Crashed, "limit of file size"),
    ] {
        let scene = Scene::jailed(&json!({ "dies_at": [path, code] }), &json!({}));
        let error = scene.refusal().await;
        let VmmError::EndedInBoot { exit, .. } = &error else { panic!("{error}") };
        assert_eq!((exit.kind, exit.status), (kind, ProcessStatus::Code(code)));
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_jailer_that_fails_is_heard_and_leaves_nothing() {
    for stage in ["arguments", "copied", "limited", "chrooted", "devices", "recorded"] {
        let scene = Scene::jailed(&json!({}), &json!({ "fails_after": stage }));
        let error = scene.refusal().await;
        let VmmError::EndedInBoot { exit, console } = &error else { panic!("{error}") };
        assert_eq!((exit.kind, exit.status), (ExitKind::Failed, ProcessStatus::Code(1)));
        assert!(console.to_lowercase().contains(&format!("it fails after {stage}")), "{console}");
    }
    for stage in ["arguments", "recorded"] {
        let mut scene = Scene::jailed(&json!({}), &json!({ "hangs_after": stage }));
        scene.spec.boot_limit = Duration::from_millis(300);
        let error = scene.refusal().await.to_string();
        assert!(error.contains("cannot be reached within"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_jailed_is_refused_with_what_to_do() {
    let mut scene = Scene::jailed(&json!({}), &json!({}));
    let root = scene.root.path().display().to_string();
    let shown = |error: VmmError| error.to_string().replace(&root, "ROOT");
    let image = scene.spec.disks[0].path.replace(scene.root.path().join("gone"));
    let error = shown(scene.refusal().await);
    assert!(error.contains("cannot put disk0 into the jail ROOT"), "{error}");
    scene.spec.disks[0].path = image;
    let identity = scene.spec.identity.take();
    insta::assert_snapshot!(shown(scene.start().await.unwrap_err()), @r#"virtual machine `job-1-ab` cannot be jailed: it has no user of its own; or set `jailer = "none"`"#);
    scene.spec.identity = identity;

    let tuning = FirecrackerTuning::default;
    let jailer = scene.jailer.clone().unwrap();
    // Its copy of the program was root's once.
    let program = scene.root.path().join("firecracker");
    for (version, mode, usable) in
        [("1.14.1", 0o755, true), ("1.14.1", 0o700, false), ("1.15.0", 0o700, true)]
    {
        let plan = json!({ "version": version }).to_string();
        with_plan(Path::new(env!("CARGO_BIN_EXE_fake-firecracker")), &plan, &program).unwrap();
        with_plan(Path::new(env!("CARGO_BIN_EXE_fake-jailer")), &plan, &jailer).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
        match (scene.start().await, usable) {
            (Ok(machine), true) => drop(machine.kill().await),
            (Err(error), false) => {
                assert!(shown(error).ends_with("`chmod a+x ROOT/firecracker`"), "{version}");
            }
            (started, _) => panic!("{version}, {mode:o}: {started:?}"),
        }
    }
    with_plan(Path::new(env!("CARGO_BIN_EXE_fake-firecracker")), "{}", &program).unwrap();
    with_plan(Path::new(env!("CARGO_BIN_EXE_fake-jailer")), r#"{"version":"1.15.0"}"#, &jailer).unwrap();
    insta::assert_snapshot!(shown(scene.driver(tuning()).await.unwrap_err()), @"cannot use `ROOT/jailer`: it is the jailer of Firecracker 1.15.0, and ROOT/firecracker is 1.16.1: use both of one release");
    fs::remove_file(&jailer).unwrap();
    insta::assert_snapshot!(shown(scene.driver(tuning()).await.unwrap_err()), @"cannot use `ROOT/jailer`: it is no program");
}
