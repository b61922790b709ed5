//! QEMU's `microvm` machine.

mod args;
mod confine;
mod machine;
mod migration;
mod qmp;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Acceleration, Capabilities, Driver, Machine, MachineSpec, VmmError, cmdline, host, monitor::Starter,
    program,
};

/// The program's name.
const PROGRAM: &str = "qemu-system-x86_64";

/// How long QEMU may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// How QEMU is run.
#[derive(Debug, Clone)]
pub struct QemuOptions {
    /// The program; the `qemu-system-x86_64` of the search path without it.
    pub binary: Option<PathBuf>,
    /// How guest code is run.
    pub acceleration: Acceleration,
    /// Socket of the root helper that starts it, if this process cannot give machines users itself.
    pub helper: Option<PathBuf>,
    /// Bytes in a second that a machine of the helper's reads from disks, and that it writes. Others have limits of this in
    /// [`MachineSpec::cgroup`].
    pub disk_bandwidth: Option<u64>,
}

/// Starts machines on QEMU.
#[derive(Debug)]
pub struct QemuDriver {
    binary: PathBuf,
    version: String,
    acceleration: Acceleration,
    tsc_khz: u64,
    starter: Starter,
    disk_bandwidth: Option<u64>,
}

impl QemuDriver {
    /// Finds QEMU and asks for its version.
    ///
    /// # Errors
    /// [`VmmError::Program`] if it is not there or does not run.
    pub async fn new(options: QemuOptions) -> Result<Self, VmmError> {
        let binary = find_qemu(options.binary.as_deref())?;
        let version = version(&binary).await?;
        let tsc = tokio::task::spawn_blocking(host::tsc_khz).await;
        let tsc_khz =
            tsc.map_err(|e| VmmError::system("measure the processor's clock", std::io::Error::other(e)))?;
        let starter = Starter::new(options.helper.clone())?;
        let QemuOptions { acceleration, disk_bandwidth, .. } = options;
        Ok(Self { binary, version, acceleration, tsc_khz, starter, disk_bandwidth })
    }
}

#[async_trait]
impl Driver for QemuDriver {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn describe(&self) -> String {
        format!("QEMU {} ({}), {}", self.version, self.binary.display(), self.acceleration)
    }

    fn program(&self) -> &Path {
        &self.binary
    }

    fn own_memory(&self) -> u64 {
        confine::own_memory(self.acceleration)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            disk_serials: true,
            snapshots: true,
            hardware_acceleration: self.acceleration == Acceleration::Kvm,
            ..Capabilities::default()
        }
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, VmmError> {
        spec.check()?;
        let line = cmdline::qemu(self.acceleration, self.tsc_khz, spec.vcpus, &spec.extra_kernel_args)?;
        Ok(Box::new(machine::start(self, spec, &line).await?))
    }
}

/// The program to run: as given, or from the search path.
///
/// # Errors
/// [`VmmError::Program`] if it is not there.
pub fn find_qemu(binary: Option<&Path>) -> Result<PathBuf, VmmError> {
    let hint = "it is not in the search path; install the package qemu-system-x86 or set `qemu` in the configuration";
    program::find(binary.unwrap_or(Path::new(PROGRAM)), hint)
}

async fn version(binary: &Path) -> Result<String, VmmError> {
    let text = program::output(binary, "--version", VERSION_LIMIT).await?;
    // `QEMU emulator version 7.2.22 (Debian ...)`.
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let refuse =
        || VmmError::Program { program: binary.to_owned(), reason: "it tells no version".to_owned() };
    version.map(str::to_owned).ok_or_else(refuse)
}
