//! Booting a guest to see whether one boots.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{Acceleration, Greet, Probe};
use crate::{Driver, Limits, MachineSpec, QemuDriver, QemuOptions, VmmError, await_boot};

const KVM: &str = "/dev/kvm";

/// The machine's name.
const NAME: &str = "probe";

/// Memory of the probe's guest, in bytes.
const MEMORY: u64 = 256 << 20;

/// Why KVM is out of the question, if it is.
pub(super) fn open_kvm() -> Result<(), String> {
    match File::options().read(true).write(true).open(KVM) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => format!("{KVM} does not exist: this host has no KVM"),
            io::ErrorKind::PermissionDenied => {
                format!(
                    "{KVM} may not be opened by this user; being in its group (often `kvm`) would allow it"
                )
            }
            _ => format!("{KVM} cannot be opened: {error}"),
        }),
    }
}

/// Boots a guest with KVM. The inner result tells whether it came up, and how that was seen.
pub(super) async fn boot(
    probe: &Probe<'_>,
    qemu: &Path,
    greet: &Greet,
) -> Result<Result<String, String>, VmmError> {
    let options = QemuOptions {
        binary: Some(qemu.to_owned()),
        acceleration: Acceleration::Kvm,
        helper: probe.helper.map(Path::to_owned),
        disk_bandwidth: None,
    };
    let driver = QemuDriver::new(options).await?;
    let mut dir = probe.run_dir.machine(NAME)?;
    dir.confine(probe.isolation, &Limits::of(MEMORY, driver.own_memory(), 1))?;
    let mut spec = MachineSpec {
        id: NAME.to_owned(),
        run_dir: PathBuf::new(),
        kernel: probe.kernel.to_owned(),
        initrd: probe.initrd.to_owned(),
        extra_kernel_args: Vec::new(),
        vcpus: 1,
        memory_bytes: MEMORY,
        disks: Vec::new(),
        nic: None,
        boot_limit: probe.limit,
        later_disk: None,
        later_images: Vec::new(),
        identity: None,
        cgroup: None,
        origin: crate::Origin::Boot,
    };
    spec.place_in(&dir);
    let start = Instant::now();
    let machine = match driver.start(&spec).await {
        Ok(machine) => machine,
        Err(error @ (VmmError::EndedInBoot { .. } | VmmError::Control { .. })) => {
            return Ok(Err(failed(&error)));
        }
        Err(error) => return Err(error),
    };
    let ready = async { greet(machine.connect_agent().await.map_err(|e| e.to_string())?).await };
    let booted = await_boot(&*machine, probe.limit, ready).await;
    machine.kill().await;
    Ok(match booted {
        Ok(()) => Ok(format!("a guest booted with KVM in {:.1} seconds", start.elapsed().as_secs_f64())),
        Err(error) => Err(failed(&error)),
    })
}

/// The first line tells what happened; the console would be too much for a reason.
fn failed(error: &VmmError) -> String {
    let (what, console) = match error {
        VmmError::EndedInBoot { exit, console } => (exit.to_string(), console.as_str()),
        VmmError::BootTimeout { limit, console } => {
            (format!("its agent was not ready within {} seconds", limit.as_secs()), console.as_str())
        }
        other => (other.to_string(), ""),
    };
    let last = console.lines().map(str::trim).rfind(|line| !line.is_empty());
    let said = last.map_or_else(|| "it printed nothing".to_owned(), |line| format!("its last words: {line}"));
    format!("{KVM} exists, but no guest boots with it: {what}; {said}")
}
