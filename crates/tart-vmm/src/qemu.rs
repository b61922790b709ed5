//! QEMU's `microvm` machine.

mod args;
mod machine;
mod qmp;

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{Access, access};

use crate::{
    Acceleration, Capabilities, Driver, Machine, MachineSpec, VmmError, cmdline, host, process::Launcher,
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
}

/// Starts machines on QEMU.
#[derive(Debug)]
pub struct QemuDriver {
    binary: PathBuf,
    version: String,
    acceleration: Acceleration,
    tsc_khz: u64,
    launcher: Arc<Launcher>,
}

impl QemuDriver {
    /// Finds QEMU and asks for its version.
    ///
    /// # Errors
    /// [`VmmError::Program`] if it is not there or does not run.
    pub async fn new(options: QemuOptions) -> Result<Self, VmmError> {
        let binary = find(options.binary.as_deref())?;
        let version = version(&binary).await?;
        let tsc = tokio::task::spawn_blocking(host::tsc_khz).await;
        let tsc_khz =
            tsc.map_err(|e| VmmError::system("measure the processor's clock", std::io::Error::other(e)))?;
        let launcher =
            Launcher::start().map_err(|e| VmmError::system("start a thread for virtual machines", e))?;
        Ok(Self { binary, version, acceleration: options.acceleration, tsc_khz, launcher })
    }

    /// The program.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
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

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            disk_serials: true,
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
pub(crate) fn find(binary: Option<&Path>) -> Result<PathBuf, VmmError> {
    let name = binary.unwrap_or(Path::new(PROGRAM));
    let refuse = |reason: &str| VmmError::Program { program: name.to_owned(), reason: reason.to_owned() };
    let usable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if name.components().count() > 1 {
        return if usable(name) { Ok(name.to_owned()) } else { Err(refuse("it is no program")) };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(name)).find(|path| usable(path)).ok_or_else(|| {
        refuse("it is not in the search path; install the package qemu-system-x86 or set `qemu` in the configuration")
    })
}

async fn version(binary: &Path) -> Result<String, VmmError> {
    let refuse = |reason: String| VmmError::Program { program: binary.to_owned(), reason };
    let mut command = tokio::process::Command::new(binary);
    command.arg(OsStr::new("--version")).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_LIMIT, command.output())
        .await
        .map_err(|_| refuse("it does not tell its version".to_owned()))?
        .map_err(|e| refuse(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `QEMU emulator version 7.2.22 (Debian ...)`.
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version
        .map(str::to_owned)
        .ok_or_else(|| refuse(format!("it ended with {} and told no version", output.status)))
}
