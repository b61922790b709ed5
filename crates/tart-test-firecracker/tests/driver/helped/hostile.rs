//! What a runner that was taken over gets of its helper, and what a jailed program that was taken over gets of either.

use std::{
    fs::File,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{fs::symlink, net::UnixListener},
    },
};

use rustix::fs::{Mode, OFlags, open};
use tart_root_helper::{Answer, Connection, Open};
use tart_vmm::SnapshotMemory;

use super::*;

/// A machine that boots with one disk of its own, as the runner asks for it.
fn wanted() -> Value {
    json!({
        "machine": "job-1-ab",
        "version": "1.16.1",
        "files": [
            { "name": "kernel", "source": { "shared": null } },
            { "name": "initrd", "source": { "shared": null } },
            { "name": { "disk": 0 }, "source": { "own": null } },
        ],
        "listeners": { "agent": true, "memory": false },
        "has_namespace": false,
        "memory": 256 << 20,
        "vcpus": 1,
        "bandwidth": null,
        "max_file": 4096,
    })
}

impl Helper {
    /// Descriptors for it: the console, the standard error, and files.
    fn descriptors(&self) -> Vec<OwnedFd> {
        let at = |name: &str| self.scene.root.path().join(name);
        let read = |name: &str| File::open(at(name)).unwrap().into();
        let own = File::options().read(true).write(true).open(at("scratch")).unwrap();
        let null = || File::options().write(true).open("/dev/null").unwrap().into();
        vec![null(), null(), read("vmlinux"), read("initrd"), own.into()]
    }

    /// Asks for a machine, and hands on what came with the answer.
    async fn ask(
        &self,
        wanted: &Value,
        descriptors: &[OwnedFd],
    ) -> (Connection, Answer<Value>, Vec<OwnedFd>) {
        let connection = Connection::open(&self.socket, Open::Jail).await.unwrap();
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(OwnedFd::as_fd).collect();
        connection.send(&json!({ "start": wanted }), &descriptors).await.unwrap();
        let (answer, given) = connection.receive::<Answer<Value>>().await.unwrap();
        (connection, answer, given)
    }

    async fn refusal(&self, wanted: &Value, descriptors: &[OwnedFd]) -> String {
        self.ask(wanted, descriptors).await.1.unwrap_err()
    }
}

#[tokio::test]
async fn nobody_elses_files_namespaces_and_programs_are_to_be_had() {
    let helper = Helper::start(&json!({}), &json!({}), 0).await;
    let scene = &helper.scene;
    let at = |name: &str| scene.root.path().join(name);
    std::os::unix::fs::chown(at("helper"), Some(65_534), None).unwrap();
    let mut descriptors = helper.descriptors();

    // What would be written to is somebody else's, here not root's.
    descriptors[4] = File::options().read(true).write(true).open(at("helper")).unwrap().into();
    insta::assert_snapshot!(helper.refusal(&wanted(), &descriptors).await, @"disk0: it is no file that is the runner's alone");
    // Its path can be had by who may not read it.
    descriptors = helper.descriptors();
    descriptors[2] = open("/etc/shadow", OFlags::PATH, Mode::empty()).unwrap();
    insta::assert_snapshot!(helper.refusal(&wanted(), &descriptors).await, @"kernel: its descriptor is not open for reading");
    descriptors[2] = File::open("/proc/self/environ").unwrap().into();
    insta::assert_snapshot!(helper.refusal(&wanted(), &descriptors).await, @"kernel: it is a file of the kernel's");

    // The host's own network is no guest's.
    let mut descriptors = helper.descriptors();
    descriptors.insert(2, File::open("/proc/self/ns/net").unwrap().into());
    let mut namespaced = wanted();
    namespaced["has_namespace"] = true.into();
    insta::assert_snapshot!(helper.refusal(&namespaced, &descriptors).await, @"its network namespace is none that this helper has made for a guest");

    for (key, value, refusal) in [
        ("machine", json!("../../up"), "`../../up` is no machine name"),
        ("version", json!("1.13.0"), "the root helper has 1.16.1"),
        ("memory", json!(0), "0 is no size"),
        ("files", json!([]), "neither a kernel with its initramfs nor a saved state"),
        ("has_namespace", json!(true), "5 descriptors came, and 6 are needed"),
    ] {
        let mut changed = wanted();
        changed[key] = value;
        let error = helper.refusal(&changed, &helper.descriptors()).await;
        assert!(error.contains(refusal), "{key}: {error}");
    }
    // What is no request is no reason for anything, such as a program to be run.
    for (key, value) in
        [("program", json!("/bin/sh")), ("files", json!([{ "name": "../x", "source": { "shared": null } }]))]
    {
        let mut changed = wanted();
        changed[key] = value;
        let connection = Connection::open(&helper.socket, Open::Jail).await.unwrap();
        connection.send(&json!({ "start": changed }), &[]).await.unwrap();
        assert!(connection.receive::<Value>().await.is_err(), "{key}");
    }
    helper.gone().await;

    // The same without any of this is a machine.
    let (connection, answer, given) = helper.ask(&wanted(), &helper.descriptors()).await;
    assert!(answer.unwrap()["pid"].is_u64());
    assert_eq!(given.len(), 4, "the line, the log, the metrics, the agent");
    drop((connection, given));
    helper.gone().await;
}

#[tokio::test]
async fn other_programs_are_named_in_vain() {
    let helper = Helper::start(&json!({}), &json!({}), 0).await;
    let root = helper.scene.root.path().display().to_string();
    for (binary, jailer) in [(Some("/bin/true".into()), None), (None, Some("/bin/true".into()))] {
        let options = FirecrackerOptions {
            binary,
            jailer,
            helper: helper.scene.helper.clone(),
            ..FirecrackerOptions::default()
        };
        let error = FirecrackerDriver::new(options).await.unwrap_err().to_string().replace(&root, "ROOT");
        assert!(error.starts_with("cannot use `/bin/true`: the root helper has ROOT/"), "{error}");
    }
}

#[tokio::test]
async fn requests_about_a_machine_are_in_their_turn_and_bounded() {
    let helper = Helper::start(&json!({}), &json!({}), 0).await;
    let mut machine = wanted();
    let empty = json!({ "name": { "disk": 1 }, "source": { "empty": { "writable": true } } });
    machine["files"].as_array_mut().unwrap().push(empty);
    let (connection, answer, mut given) = helper.ask(&machine, &helper.descriptors()).await;
    answer.unwrap();
    let line = Connection::handed(given.remove(0)).unwrap();
    let ask = async |request: &Value, descriptors: &[BorrowedFd<'_>]| {
        line.send(request, descriptors).await.unwrap();
        line.receive::<Answer<Value>>().await.unwrap().0
    };
    let put = |disk: u8, kind: &str| json!({ "put": { "name": { "disk": disk }, "source": { kind: null } } });
    let scratch =
        File::options().read(true).write(true).open(helper.scene.root.path().join("helper")).unwrap();
    let scratch = [scratch.as_fd()];
    let refused = [
        ask(&put(0, "own"), &scratch).await,
        ask(&put(9, "own"), &scratch).await,
        ask(&put(1, "shared"), &scratch).await,
        ask(&put(1, "own"), &[]).await,
        ask(&json!("take"), &scratch).await,
    ];
    let refused: Vec<_> = refused.into_iter().map(Result::unwrap_err).collect();
    insta::assert_snapshot!(refused.join("\n"), @"
    it has no empty disk disk0
    it has no empty disk disk9
    disk1 cannot be of that kind
    0 descriptors came, and 1 are needed
    1 descriptors came, and 0 are needed
    ");
    assert_eq!(ask(&put(1, "own"), &scratch).await, Ok(json!("done")));
    assert_eq!(ask(&put(1, "own"), &scratch).await.unwrap_err(), "it has no empty disk disk1");
    assert!(ask(&json!("take"), &[]).await.is_err(), "nothing was saved");

    // What is no request ends the line, and not the machine, which has its own.
    line.send(&json!({ "connect": "/run/systemd/private" }), &[]).await.unwrap();
    assert!(line.receive::<Value>().await.is_err());
    assert_eq!(helper.machines().len(), 1);
    rustix::net::shutdown(&connection, rustix::net::Shutdown::Write).unwrap();
    let (ended, _) = connection.receive::<Value>().await.unwrap();
    assert_eq!(ended, json!({ "status": { "signal": 9 } }));
    helper.gone().await;
}

#[tokio::test]
async fn what_a_jailed_program_replaces_leads_nowhere() {
    let mut helper = Helper::start(&json!({}), &json!({}), 0).await;
    helper.scene.spec.disks.push(DiskSpec { path: None, read_only: true, serial: "service-0".into() });
    let scene = &helper.scene;
    // What a jail must not lead to.
    let [outside, secret] = ["outside.sock", "secret"].map(|name| scene.root.path().join(name));
    let listener = UnixListener::bind(&outside).unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::write(&secret, "secret").unwrap();
    let machine = scene.start().await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    let jail = helper.jail();
    let replace = |name: &str, by: &Path| {
        fs::remove_file(jail.join(name)).unwrap();
        symlink(by, jail.join(name)).unwrap();
    };

    replace("disk2", &secret);
    machine.insert_disk("service-0", &scene.root.path().join("helper")).await.unwrap();
    assert!(same_file(&jail.join("disk2"), &scene.root.path().join("helper")));

    replace("agent.vsock", &outside);
    machine.connect_agent().await.unwrap_err();
    replace("run/firecracker.socket", &outside);
    // It cannot be asked, and has counted since it was last.
    machine.counters().await.unwrap();

    replace("agent.vsock_1024", &secret);
    machine.kill().await;
    drop(machine);
    helper.gone().await;
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody came");
    let about = secret.metadata().unwrap();
    assert_eq!((std::os::unix::fs::MetadataExt::uid(&about), about.len()), (0, 6), "removal follows no link");
}

#[tokio::test]
async fn a_hostile_machine_saves_nothing_of_the_hosts() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    secret.as_file().set_len(256 << 20).unwrap();
    let mut helper = Helper::start(&json!({ "saves_links": secret.path() }), &json!({}), 0).await;
    helper.scene.spec.origin = Origin::Template;
    let machine = helper.scene.start().await.unwrap();
    let error = machine.save().await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot open what Firecracker saved");
    drop(machine);
    helper.gone().await;
}

#[tokio::test]
async fn a_monitor_that_introduces_no_memory_is_killed_by_the_helper() {
    let tuning =
        || FirecrackerTuning { snapshot_memory: SnapshotMemory::Uffd, ..FirecrackerTuning::default() };
    for (manner, problem) in [("garbage", "is not what is expected"), ("no-descriptor", "has 0 descriptors")]
    {
        let mut helper = Helper::start(&json!({ "memory": manner }), &json!({}), 0).await;
        let driver = helper.scene.driver(tuning()).await.unwrap();
        helper.scene.spec.origin = Origin::Template;
        let template = driver.start(&helper.scene.spec).await.unwrap();
        assert_eq!(line(&*template).await, "it is up\n");
        let snapshot = template.save().await.unwrap();
        drop(template);
        helper.gone().await;

        let machine_dir = helper.scene.run_dir.machine("job-2").unwrap();
        helper.scene.spec.run_dir = machine_dir.path().to_owned();
        fs::write(helper.scene.root.path().join("scratch2"), "s").unwrap();
        helper.scene.spec.disks[1].path = Some(helper.scene.root.path().join("scratch2"));
        helper.scene.spec.origin = Origin::Snapshot(snapshot);
        let error = driver.start(&helper.scene.spec).await.unwrap_err().to_string();
        assert!(
            error.contains("cannot be given its memory page by page: its message ")
                && error.contains(problem),
            "{error}"
        );
        helper.gone().await;
    }
}
