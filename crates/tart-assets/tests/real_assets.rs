//! Assets from real packages: needs the package registry, mmdebstrap, tar2sqfs and QEMU.
#![cfg(feature = "slow-tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tart_assets::{AgentSource, BootRequest, KernelSource, Kind, Progress, Scratch, Store};

/// Says the steps of a long test.
struct Steps;

impl Progress for Steps {
    fn step(&self, text: &str) {
        tracing::info!("{text}");
    }
}

/// A first process that loads the modules, mounts the disks and ends the machine.
const INIT: &str = include_str!("init.c");

fn init(directory: &Path) -> PathBuf {
    let (source, program) = (directory.join("init.c"), directory.join("init"));
    fs::write(&source, INIT).unwrap();
    let status =
        Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(&source).status().unwrap();
    assert!(status.success(), "a C compiler is needed");
    program
}

fn tsc_khz() -> u64 {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    let mhz = cpus.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split(':').nth(1)).unwrap();
    let (whole, rest) = mhz.trim().split_once('.').unwrap();
    whole.parse::<u64>().unwrap() * 1000 + rest[..3].parse::<u64>().unwrap()
}

/// `TART_TEST_STORE` keeps the store between runs.
fn store(directory: &Path) -> Store {
    let root = std::env::var_os("TART_TEST_STORE").map_or_else(|| directory.join("assets"), PathBuf::from);
    Store::open(&root).unwrap().with_progress(Arc::new(Steps))
}

#[test]
fn a_machine_boots_from_assets_and_sees_all_disks() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let request =
        BootRequest { kernel: KernelSource::Distribution, agent: AgentSource::File(init(dir.path())) };
    let assets = store.boot_assets(&request).unwrap();
    assert_eq!(store.boot_assets(&request).unwrap(), assets, "nothing is built twice");
    let image = store.image(tart_assets::DEFAULT_IMAGE).unwrap();
    let scratch = Scratch::create(&dir.path().join("scratch"), 1 << 30).unwrap();

    let log = dir.path().join("console");
    let mut qemu = Command::new("timeout");
    qemu.args(["120", "qemu-system-x86_64", "-M", "microvm,acpi=on,rtc=on", "-accel", "tcg", "-cpu", "max"]);
    qemu.args(["-m", "512", "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{}", log.display()));
    qemu.arg("-kernel").arg(&assets.kernel).arg("-initrd").arg(&assets.initrd);
    let khz = tsc_khz();
    qemu.arg("-append").arg(format!(
        "console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz={khz} no_timer_check tsc=reliable maxcpus=1"
    ));
    let disks =
        [("helper", &*assets.helper, "on"), ("image", &image.path, "on"), ("scratch", scratch.path(), "off")];
    for (name, path, read_only) in disks {
        let file = format!("id={name},if=none,format=raw,read-only={read_only},file={}", path.display());
        qemu.arg("-drive")
            .arg(file)
            .arg("-device")
            .arg(format!("virtio-blk-device,drive={name},serial={name}"));
    }
    let status = qemu.status().unwrap();
    let console = fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{status}: {console}");
    for expected in ["helper: /h/usr/bin/git", "image: /i/bin/bash", "scratch: written", "CPUs: 2", "end"] {
        assert!(console.contains(expected), "no `{expected}` in {console}");
    }
}

#[test]
fn the_same_packages_make_the_same_disk() {
    let dir = tempfile::tempdir().unwrap();
    let agent = init(dir.path());
    let request = BootRequest { kernel: KernelSource::Distribution, agent: AgentSource::File(agent) };
    let digests = |name: &str| {
        let store = Store::open(&dir.path().join(name)).unwrap();
        let assets = store.boot_assets(&request).unwrap();
        assert_eq!(
            store.ls().unwrap().iter().map(|entry| entry.kind).collect::<Vec<_>>(),
            [Kind::Kernel, Kind::Initrd, Kind::Helper]
        );
        assets.digest
    };
    assert_eq!(digests("one"), digests("two"));
}
