//! Firecracker, for hosts with KVM. Facts of its API are from the project's reference (microvm.md 1).

mod api;
mod exit;
mod kvm;
mod machine;
mod reports;
mod requests;
mod version;
mod vsock;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

use crate::{Capabilities, Driver, Machine, MachineSpec, VmmError, cmdline, process::Launcher, program};
pub use kvm::problem as kvm_problem;
pub use requests::{Bucket, FirecrackerTuning, HugePages};
use version::Features;
pub use version::Version;

/// The program's name.
const PROGRAM: &str = "firecracker";

/// How long it may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// How Firecracker is run.
#[derive(Debug, Clone, Default)]
pub struct FirecrackerOptions {
    /// The program; the `firecracker` of the search path without it.
    pub binary: Option<PathBuf>,
    /// What machines are made of beyond their specification.
    pub tuning: FirecrackerTuning,
}

/// Starts machines on Firecracker.
#[derive(Debug)]
pub struct FirecrackerDriver {
    binary: PathBuf,
    version: Version,
    features: Features,
    tuning: FirecrackerTuning,
    launcher: Arc<Launcher>,
}

impl FirecrackerDriver {
    /// Finds Firecracker and asks for its version.
    ///
    /// # Errors
    /// [`VmmError::Program`] if it is not there, does not run, or is a version that Tart does not drive.
    pub async fn new(options: FirecrackerOptions) -> Result<Self, VmmError> {
        let hint = "it is not in the search path; install a release of Firecracker, or set TART_FIRECRACKER to its path";
        let binary = program::find(options.binary.as_deref().unwrap_or(Path::new(PROGRAM)), hint)?;
        let refuse = |reason: String| VmmError::Program { program: binary.clone(), reason };
        let said = program::output(&binary, "--version", VERSION_LIMIT).await?;
        let version = Version::parse(&said).ok_or_else(|| refuse("it tells no version".to_owned()))?;
        if let Some(problem) = version.problem() {
            return Err(refuse(problem));
        }
        let launcher =
            Launcher::start().map_err(|e| VmmError::system("start a thread for virtual machines", e))?;
        Ok(Self { binary, version, features: version.features(), tuning: options.tuning, launcher })
    }

    /// Memory of huge pages is not in a file, so it would have to be served page by page.
    fn can_save(&self) -> bool {
        self.features.snapshots && self.tuning.huge_pages == HugePages::None
    }

    /// Whether it boots compressed kernels too; others need an ELF file.
    #[must_use]
    pub fn boots_bzimage(&self) -> bool {
        self.features.bzimage
    }
}

#[async_trait]
impl Driver for FirecrackerDriver {
    fn name(&self) -> &'static str {
        "firecracker"
    }

    fn describe(&self) -> String {
        format!("Firecracker {} ({}), with KVM", self.version, self.binary.display())
    }

    fn program(&self) -> &std::path::Path {
        &self.binary
    }

    fn capabilities(&self) -> Capabilities {
        let snapshots = self.can_save();
        Capabilities { hardware_acceleration: true, named_taps: true, snapshots, ..Capabilities::default() }
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, VmmError> {
        spec.check()?;
        let line = cmdline::firecracker(&spec.extra_kernel_args)?;
        Ok(Box::new(machine::start(self, spec, &line).await?))
    }
}
