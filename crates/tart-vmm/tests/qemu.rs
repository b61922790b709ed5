//! Machines on a real QEMU, emulated. They need the guest's kernel: `TART_TEST_KERNEL` and, for the tests with an
//! agent, `TART_TEST_INITRD` name the files of `tart assets`.
#![cfg(feature = "slow-tests")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tart_net::{Nic, NicLink};
use tart_proto::{
    Mux, Role,
    message::{GuestOpen, Hello, decode},
    mux,
};
use tart_vmm::{
    Accel, Acceleration, AgentStream, DiskSpec, Driver, ExitKind, Greet, Isolation, IsolationOptions, Limits,
    MachineDir, MachineSpec, MonitorServer, Origin, PROBE_LIMIT, Probe, ProcessStatus, QemuDriver,
    QemuOptions, RunDir, Snapshot, VmmError, await_boot, choose, reap,
};

/// A loaded machine may need most of it.
const LIMIT: Duration = Duration::from_secs(120);

struct Fixture {
    driver: QemuDriver,
    spec: MachineSpec,
    // In this order: what is inside goes first.
    machine_dir: MachineDir,
    run_dir: RunDir,
    root: tempfile::TempDir,
}

/// An initramfs without anything: the kernel panics when it finds no root file system.
fn empty_initrd(dir: &Path) -> PathBuf {
    let path = dir.join("empty.cpio");
    let name = "TRAILER!!!\0";
    let mut header = String::from("070701");
    for field in 0..13 {
        header.push_str(&format!("{:08X}", if field == 11 { name.len() } else { 0 }));
    }
    let mut bytes = [header.as_bytes(), name.as_bytes()].concat();
    bytes.resize(512, 0);
    fs::write(&path, bytes).unwrap();
    path
}

fn kernel() -> PathBuf {
    env::var_os("TART_TEST_KERNEL").expect("TART_TEST_KERNEL names the guest's kernel").into()
}

/// What keeps machines apart for whoever runs the tests, with users that no other test's process has.
fn isolation() -> Isolation {
    let options = IsolationOptions {
        uid_base: isolation_uid(),
        uid_count: 8,
        locks: env::temp_dir().join("tart-test-uids"),
        cgroup_parent: None,
    };
    Isolation::new(&options).unwrap()
}

async fn driver(acceleration: Acceleration) -> QemuDriver {
    QemuDriver::new(QemuOptions { binary: None, acceleration, helper: None, disk_bandwidth: None })
        .await
        .unwrap()
}

async fn fixture() -> Fixture {
    let root = tempfile::tempdir().unwrap();
    // Longer than a socket's path may be.
    let deep = root.path().join("d".repeat(100));
    let run_dir = RunDir::create(&deep).unwrap();
    let mut machine_dir = run_dir.machine("vm").unwrap();
    let driver = driver(Acceleration::Tcg).await;
    machine_dir.confine(&isolation(), &Limits::of(256 << 20, driver.own_memory(), 2)).unwrap();
    let mut spec = MachineSpec {
        id: "vm".into(),
        run_dir: PathBuf::new(),
        kernel: kernel(),
        initrd: empty_initrd(root.path()),
        extra_kernel_args: vec![],
        vcpus: 2,
        memory_bytes: 256 << 20,
        disks: vec![],
        nic: None,
        boot_limit: LIMIT,
        later_disk: None,
        later_images: Vec::new(),
        identity: None,
        cgroup: None,
        origin: Origin::Boot,
    };
    spec.place_in(&machine_dir);
    Fixture { driver, spec, machine_dir, run_dir, root }
}

/// True if a process ends within the limit. It must have been alive when its number was learnt.
fn ends(pid: u32, limit: Duration) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap(), tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

async fn never() -> Result<(), String> {
    std::future::pending().await
}

#[tokio::test]
async fn a_guest_that_panics_is_explained_by_its_console() {
    let f = fixture().await;
    let machine = f.driver.start(&f.spec).await.unwrap();
    let error = await_boot(&*machine, LIMIT, never()).await.unwrap_err();
    let VmmError::EndedInBoot { exit, console } = error else { panic!("{error}") };
    assert_eq!((exit.kind, exit.status), (ExitKind::Guest, ProcessStatus::Code(0)), "{console}");
    assert!(console.contains("Kernel panic"), "{console}");
    assert!(ends(machine.pid(), LIMIT));
}

#[tokio::test]
async fn a_monitor_that_refuses_to_run_is_explained_by_what_it_says() {
    let mut f = fixture().await;
    f.spec.kernel = f.root.path().join("no-kernel");
    let error = f.driver.start(&f.spec).await.unwrap_err();
    let VmmError::EndedInBoot { exit, console } = error else { panic!("{error}") };
    assert_eq!(exit.kind, ExitKind::Failed);
    assert!(console.contains("no-kernel"), "{console}");
}

#[tokio::test]
async fn a_slow_boot_times_out_and_can_be_killed_any_number_of_times() {
    let f = fixture().await;
    let machine = f.driver.start(&f.spec).await.unwrap();
    let error = await_boot(&*machine, Duration::from_millis(10), never()).await.unwrap_err();
    assert!(matches!(error, VmmError::BootTimeout { .. }), "{error}");
    let (first, second, waited) = tokio::join!(machine.kill(), machine.kill(), machine.wait());
    assert_eq!(first.kind, ExitKind::Killed);
    assert_eq!((first, first), (second, waited));
    assert_eq!(machine.kill().await, first);
}

#[tokio::test]
async fn a_stopped_monitor_is_killed_all_the_same() {
    let f = fixture().await;
    let machine = f.driver.start(&f.spec).await.unwrap();
    let pid = Pid::from_raw(i32::try_from(machine.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let exit = tokio::time::timeout(LIMIT, machine.kill()).await.unwrap();
    assert_eq!((exit.kind, exit.status), (ExitKind::Killed, ProcessStatus::Signal(9)));
}

#[tokio::test]
async fn a_monitor_killed_by_others_has_crashed() {
    let f = fixture().await;
    let machine = f.driver.start(&f.spec).await.unwrap();
    let pid = Pid::from_raw(i32::try_from(machine.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exit = tokio::time::timeout(LIMIT, machine.wait()).await.unwrap();
    assert_eq!((exit.kind, exit.status), (ExitKind::Crashed, ProcessStatus::Signal(9)));
}

#[tokio::test]
async fn a_dropped_machine_leaves_no_process() {
    let f = fixture().await;
    let machine = f.driver.start(&f.spec).await.unwrap();
    let pid = machine.pid();
    drop(machine);
    assert!(tokio::task::spawn_blocking(move || ends(pid, LIMIT)).await.unwrap());
}

#[tokio::test]
async fn disks_and_directories_are_left_to_their_owner() {
    let mut f = fixture().await;
    let disk = |serial: &str, read_only| {
        let path = f.root.path().join(format!("{serial},x"));
        fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
        DiskSpec { path: Some(path), read_only, serial: serial.into() }
    };
    f.spec.disks = vec![disk("image", true), disk("scratch", false)];
    let machine = f.driver.start(&f.spec).await.unwrap();
    machine.kill().await;
    assert!(f.spec.disks.iter().all(|disk| disk.path.as_ref().is_some_and(|path| path.exists())));
    let dir = f.machine_dir.path().to_owned();
    drop(f);
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_network_device_is_a_socket_that_ends_with_the_machine() {
    let mut f = fixture().await;
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let link = NicLink::Stream(Arc::new(far.into()));
    f.spec.nic = Some(Nic { mac: "02:00:00:00:00:01".into(), link });
    let machine = f.driver.start(&f.spec).await.unwrap();
    f.spec.nic = None;
    assert_eq!(machine.kill().await.kind, ExitKind::Killed);
    near.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!((&near).read(&mut [0; 1]).unwrap(), 0);
}

/// Not a test: what the next one kills.
#[tokio::test]
#[ignore = "runs in a process of its own, started by another test"]
#[expect(clippy::print_stderr, reason = "the other test reads it")]
async fn runner_to_be_killed() {
    let Some(root) = env::var_os("TART_TEST_RUNNER_ROOT") else { return };
    let run_dir = RunDir::create(Path::new(&root)).unwrap();
    let machine_dir = run_dir.machine("vm").unwrap();
    let f = fixture().await;
    let spec = MachineSpec { run_dir: machine_dir.path().to_owned(), ..f.spec.clone() };
    let machine = f.driver.start(&spec).await.unwrap();
    eprintln!("started {}", machine.pid());
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_runner_leaves_nothing_after_the_next_has_reaped() {
    let root = tempfile::tempdir().unwrap();
    let mut runner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "runner_to_be_killed", "--ignored", "--nocapture"])
        .env("TART_TEST_RUNNER_ROOT", root.path())
        // What it has no time to remove goes with the root.
        .env("TMPDIR", root.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(runner.stderr.take().unwrap()).lines().map_while(Result::ok);
    let started = lines.filter_map(|line| line.strip_prefix("started ")?.parse().ok());
    let pid: u32 = { started }.next().expect("the runner has started a machine");
    assert_eq!(reap(root.path()).unwrap().dirs.len(), 0, "a living runner is left alone");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(ends(pid, LIMIT), "the kernel ends the machine with its runner");
    let reaped = reap(root.path()).unwrap();
    assert_eq!((reaped.dirs.len(), reaped.problems.len()), (1, 0), "{reaped:?}");
}

fn initrd() -> PathBuf {
    env::var_os("TART_TEST_INITRD").expect("TART_TEST_INITRD names the guest's initramfs").into()
}

/// What the agent says first. The session ends with the stream.
async fn hello(stream: AgentStream) -> Result<Hello, String> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let decoder = mux::handshake_host(&mut reader, &mut writer).await.map_err(|e| e.to_string())?;
    let (_mux, mut incoming) = Mux::start(reader, writer, Role::Host, decoder);
    let (payload, _stream) = incoming.next().await.ok_or("the session ended")?;
    match decode(&payload) {
        Ok(GuestOpen::Hello(hello)) => Ok(hello),
        other => Err(format!("no greeting: {other:?}")),
    }
}

#[tokio::test]
async fn the_agent_greets_on_every_stream_of_its_port() {
    let mut f = fixture().await;
    f.spec.initrd = initrd();
    let machine = f.driver.start(&f.spec).await.unwrap();
    for _ in 0..2 {
        let stream = machine.connect_agent().await.unwrap();
        let hello = await_boot(&*machine, LIMIT, hello(stream)).await.unwrap();
        assert_eq!(hello.cpus, f.spec.vcpus);
    }
    assert_eq!(machine.kill().await.kind, ExitKind::Killed);
}

#[tokio::test]
async fn a_probe_is_made_once_and_its_result_works() {
    let mut f = fixture().await;
    let (kernel, initrd, cache) = (kernel(), initrd(), f.root.path().join("kvm.json"));
    let probe = Probe {
        qemu: None,
        kernel: &kernel,
        initrd: &initrd,
        digest: "test",
        cache: &cache,
        run_dir: &f.run_dir,
        limit: PROBE_LIMIT,
        isolation: &isolation(),
        helper: None,
    };
    let greet: &Greet = &|stream| Box::pin(async { hello(stream).await.map(drop) });
    let choice = choose(Accel::Auto, &probe, greet).await.unwrap();
    let again = choose(Accel::Auto, &probe, greet).await.unwrap();
    assert_eq!((again.acceleration, &again.reason), (choice.acceleration, &choice.reason));
    assert_eq!(again.cached, cache.exists(), "{}", again.explain());
    assert_eq!(choose(Accel::Kvm, &probe, greet).await.is_ok(), choice.acceleration == Acceleration::Kvm);

    f.driver = driver(choice.acceleration).await;
    f.spec.initrd = initrd;
    let machine = f.driver.start(&f.spec).await.unwrap();
    let stream = machine.connect_agent().await.unwrap();
    await_boot(&*machine, LIMIT, hello(stream)).await.unwrap();
}

#[tokio::test]
async fn machines_go_on_from_one_that_was_saved() {
    let mut f = fixture().await;
    f.spec.initrd = initrd();
    f.spec.disks = vec![DiskSpec { path: None, read_only: true, serial: "image".into() }];
    f.spec.origin = Origin::Template;
    let template = f.driver.start(&f.spec).await.unwrap();
    let stream = template.connect_agent().await.unwrap();
    let first = await_boot(&*template, LIMIT, hello(stream)).await.unwrap();
    let snapshot = tokio::time::timeout(LIMIT, template.save()).await.unwrap().unwrap();
    assert_eq!(template.wait().await.kind, ExitKind::Killed);
    assert!(template.save().await.is_err());
    drop(template);

    // What was written and read is as good.
    let kept = tempfile::tempdir().unwrap();
    snapshot.write(kept.path()).unwrap();
    let snapshot = Snapshot::read(kept.path()).unwrap().unwrap();

    let image = f.root.path().join("image");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    f.spec.origin = Origin::Snapshot(snapshot);
    f.spec.later_images = vec![image.clone()];
    let (one_dir, two_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let in_dir = |dir: &tempfile::TempDir| MachineSpec { run_dir: dir.path().to_owned(), ..f.spec.clone() };
    let (one, two) = (in_dir(&one_dir), in_dir(&two_dir));
    let (one, two) = tokio::join!(f.driver.start(&one), f.driver.start(&two));
    for machine in [one.unwrap(), two.unwrap()] {
        let stream = machine.connect_agent().await.unwrap();
        let hello = await_boot(&*machine, LIMIT, hello(stream)).await.unwrap();
        assert_eq!(hello.kernel, first.kernel);
        machine.insert_disk("image", &image).await.unwrap();
        let error = machine.insert_disk("other", &image).await.unwrap_err();
        assert!(error.to_string().contains("no empty disk `other`"), "{error}");
        assert_eq!(machine.kill().await.kind, ExitKind::Killed);
    }
}

#[tokio::test]
async fn a_machine_with_other_memory_does_not_go_on_from_one_that_was_saved() {
    let mut f = fixture().await;
    f.spec.initrd = initrd();
    f.spec.origin = Origin::Template;
    let template = f.driver.start(&f.spec).await.unwrap();
    let snapshot = template.save().await.unwrap();
    f.spec.origin = Origin::Snapshot(snapshot);
    f.spec.memory_bytes = 512 << 20;
    let error = f.driver.start(&f.spec).await.unwrap_err();
    assert!(matches!(error, VmmError::Spec { .. }), "{error}");
}

/// A line of `/proc/pid/status`.
fn status(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_machine_has_a_user_namespaces_a_root_and_a_cgroup_of_its_own() {
    assert!(rustix::process::geteuid().is_root(), "only root can give machines users of their own");
    let mut f = fixture().await;
    let scratch = f.machine_dir.path().join("scratch");
    fs::File::create(&scratch).unwrap().set_len(16 << 20).unwrap();
    f.spec.initrd = initrd();
    f.spec.disks = vec![DiskSpec { path: Some(scratch.clone()), read_only: false, serial: "scratch".into() }];
    let machine = f.driver.start(&f.spec).await.unwrap();
    let stream = machine.connect_agent().await.unwrap();
    await_boot(&*machine, LIMIT, hello(stream)).await.unwrap();
    let pid = machine.pid();

    let user = isolation_uid();
    let all = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    assert_eq!(
        (status(pid, "Uid"), status(pid, "Gid"), status(pid, "Groups")),
        (all(user), all(user), String::new())
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pid, set), "0".repeat(16), "{set}");
    }
    // Filters of system calls are in force, and nothing that it runs could get it more than it has.
    assert_eq!((status(pid, "NoNewPrivs"), status(pid, "Seccomp")), ("1".into(), "2".into()));
    for namespace in ["net", "mnt", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    assert_eq!(
        devices.lines().skip(2).map(|line| line.split(':').next().unwrap().trim()).collect::<Vec<_>>(),
        ["lo"]
    );
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let seen = |path: &str| root.join(path.trim_start_matches('/')).exists();
    let own = |path: &Path| root.join(path.strip_prefix("/").unwrap()).exists();
    assert!(own(&scratch) && own(&f.spec.kernel) && seen("/usr/bin"));
    for hidden in ["/root", "/home", "/etc/passwd", "/var/log", "/run", "/dev/mem", "/dev/net/tun"] {
        assert!(!seen(hidden), "{hidden}");
    }
    let siblings = root.join(f.machine_dir.path().parent().unwrap().strip_prefix("/").unwrap());
    assert_eq!(siblings.read_dir().unwrap().count(), 1);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&scratch.metadata().unwrap()), user);
    let cgroup = cgroup_of(pid);
    assert!(cgroup.file_name().unwrap().to_string_lossy().starts_with("vm-"), "{}", cgroup.display());

    assert_eq!(machine.kill().await.kind, ExitKind::Killed);
    drop(f);
    assert!(!cgroup.exists());
}

/// The first user of this process's tests.
fn isolation_uid() -> u32 {
    1_000_000 + 8 * (std::process::id() % 100_000)
}

/// The cgroup of version 2 that a process is in.
fn cgroup_of(pid: u32) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    Path::new(mount).join(path)
}

/// Machines of a process without privileges are as those of root: the helper gives them what they have.
#[tokio::test]
async fn the_root_helper_starts_machines_for_others() {
    let mut f = fixture().await;
    let scratch = f.machine_dir.path().join("scratch");
    fs::File::create(&scratch).unwrap().set_len(16 << 20).unwrap();
    f.spec.initrd = initrd();
    f.spec.disks = vec![DiskSpec { path: Some(scratch.clone()), read_only: false, serial: "scratch".into() }];
    (f.spec.identity, f.spec.cgroup) = (None, None);
    let socket = f.root.path().join("helper.sock");
    let program = f.driver.program().to_owned();
    let helper = |programs: Vec<PathBuf>| {
        let server = Arc::new(MonitorServer::new(Arc::new(isolation()), programs).unwrap());
        let listener = tart_root_helper::Listener::bind(&socket, 0).unwrap();
        tokio::spawn(async move {
            let (connection, peer) = listener.accept().await.unwrap();
            assert_eq!(
                connection.receive::<tart_root_helper::Open>().await.unwrap().0,
                tart_root_helper::Open::Monitor
            );
            tart_vmm::serve_monitor(&server, &connection, peer).await
        })
    };
    let options = || QemuOptions {
        binary: None,
        acceleration: Acceleration::Tcg,
        helper: Some(socket.clone()),
        disk_bandwidth: Some(1 << 30),
    };
    f.driver = QemuDriver::new(options()).await.unwrap();

    let refusing = helper(vec!["/usr/bin/other".into()]);
    let error = f.driver.start(&f.spec).await.unwrap_err();
    let VmmError::Helper { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().ends_with("is none of the programs that it may run"), "{source}");
    refusing.await.unwrap().unwrap();
    fs::remove_file(f.machine_dir.path().join("agent.sock")).unwrap();

    let serving = helper(vec![program.clone()]);
    let machine = f.driver.start(&f.spec).await.unwrap();
    let stream = machine.connect_agent().await.unwrap();
    await_boot(&*machine, LIMIT, hello(stream)).await.unwrap();
    let (pid, user) = (machine.pid(), std::os::unix::fs::MetadataExt::uid(&scratch.metadata().unwrap()));
    assert_eq!(status(pid, "Uid"), [user; 4].map(|id| id.to_string()).join(" "));
    assert_ne!(user, 0);
    let cgroup = cgroup_of(pid);
    assert_eq!(machine.kill().await.kind, ExitKind::Killed);
    serving.await.unwrap().unwrap();
    assert!(!cgroup.exists());

    // A runner that goes away takes its machine along.
    fs::remove_file(f.machine_dir.path().join("agent.sock")).unwrap();
    std::os::unix::fs::chown(&scratch, Some(0), Some(0)).unwrap();
    let serving = helper(vec![program]);
    let machine = f.driver.start(&f.spec).await.unwrap();
    let pid = machine.pid();
    drop(machine);
    serving.await.unwrap().unwrap();
    assert!(ends(pid, LIMIT));
    assert!(f.driver.start(&f.spec).await.is_err(), "there is no helper any more");
}
