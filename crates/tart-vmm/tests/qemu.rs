//! Machines on a real QEMU, emulated. They need the guest's kernel: `TART_TEST_KERNEL` and, for the tests with an
//! agent, `TART_TEST_INITRD` name the files of `tart assets`.
#![cfg(feature = "slow-tests")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tart_vmm::{
    Acceleration, DiskSpec, Driver, ExitKind, MachineDir, MachineSpec, ProcessStatus, QemuDriver,
    QemuOptions, RunDir, VmmError, await_boot, reap,
};

/// A loaded machine may need most of it.
const LIMIT: Duration = Duration::from_secs(120);

struct Fixture {
    driver: QemuDriver,
    spec: MachineSpec,
    // In this order: what is inside goes first.
    machine_dir: MachineDir,
    _run_dir: RunDir,
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

async fn fixture() -> Fixture {
    let root = tempfile::tempdir().unwrap();
    // Longer than a socket's path may be.
    let deep = root.path().join("d".repeat(100));
    let run_dir = RunDir::create(&deep).unwrap();
    let machine_dir = run_dir.machine("vm").unwrap();
    let driver =
        QemuDriver::new(QemuOptions { binary: None, acceleration: Acceleration::Tcg }).await.unwrap();
    let spec = MachineSpec {
        id: "vm".into(),
        run_dir: machine_dir.path().to_owned(),
        kernel: kernel(),
        initrd: empty_initrd(root.path()),
        extra_kernel_args: vec![],
        vcpus: 2,
        memory_bytes: 256 << 20,
        disks: vec![],
        nic: None,
        boot_limit: LIMIT,
    };
    Fixture { driver, spec, machine_dir, _run_dir: run_dir, root }
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
        DiskSpec { path, read_only, serial: serial.into() }
    };
    f.spec.disks = vec![disk("image", true), disk("scratch", false)];
    let machine = f.driver.start(&f.spec).await.unwrap();
    machine.kill().await;
    assert!(f.spec.disks.iter().all(|disk| disk.path.exists()));
    let dir = f.machine_dir.path().to_owned();
    drop(f);
    assert!(!dir.exists());
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
