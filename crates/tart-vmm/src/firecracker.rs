//! Firecracker, for hosts with KVM. Facts of its API are from the project's reference (microvm.md 1).

mod api;
mod dir;
mod ends;
mod exit;
mod helped;
mod jail;
mod kvm;
mod machine;
mod pages;
mod place;
mod reports;
mod requests;
mod setting;
mod starter;
mod version;
mod view;
mod vsock;

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::geteuid;

use crate::{Capabilities, Driver, Machine, MachineSpec, VmmError, cmdline, process::Launcher, program};
use helped::Helper;
pub use helped::{HelperPrograms, IsLent, JailServer, JailServerOptions, serve_jail};
use jail::Jailer;
pub use kvm::problem as kvm_problem;
pub use requests::{Bucket, FirecrackerTuning, HugePages, SnapshotMemory};
use starter::Starter;
use version::Features;
pub use version::Version;

/// The program's name.
const PROGRAM: &str = "firecracker";

/// The jailer's.
const JAILER: &str = "jailer";

/// How long it may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// The right of all users to run a program.
const OTHERS_RUN: u32 = 0o001;

/// Memory that it takes for itself, in bytes: a few MiB, and buffers of devices.
const OWN_MEMORY: u64 = 128 << 20;

/// How Firecracker is run.
#[derive(Debug, Clone, Default)]
pub struct FirecrackerOptions {
    /// The program; the `firecracker` of the search path without it.
    pub binary: Option<PathBuf>,
    /// Firecracker's jailer: every machine then runs in a jail, as the user that [`MachineSpec::identity`] gives it. As the
    /// runner's own user without it.
    pub jailer: Option<PathBuf>,
    /// Socket of the root helper that starts it in jails, if this process is not root. It has both programs itself; paths
    /// that are named here have to be those of its own.
    pub helper: Option<PathBuf>,
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
    /// Why saved memory cannot be served page by page, if it would have to be.
    unserved: Option<String>,
    starter: Starter,
}

impl FirecrackerDriver {
    /// Finds Firecracker, and the jailer if there is to be one, and asks for their versions.
    ///
    /// # Errors
    /// [`VmmError::Program`] if one is not there, does not run, or is a version that Tart does not drive, or if the jailer
    /// cannot be used.
    pub async fn new(options: FirecrackerOptions) -> Result<Self, VmmError> {
        let (binary, version, starter) = match options.helper.clone() {
            Some(socket) => {
                let helper = Helper::find(socket, &options).await?;
                (helper.programs.firecracker.clone(), helper.programs.version, Starter::Helper(helper))
            }
            None => {
                let launcher = Launcher::start()
                    .map_err(|e| VmmError::system("start a thread for virtual machines", e))?;
                let (binary, version) = find_firecracker(options.binary.as_deref()).await?;
                let starter = match &options.jailer {
                    Some(jailer) => {
                        Starter::Jailing(launcher, Arc::new(find_jailer(jailer, &binary, version).await?))
                    }
                    None => Starter::Free(launcher),
                };
                (binary, version, starter)
            }
        };
        let (features, tuning) = (version.features(), options.tuning);
        if !features.acpi {
            tracing::warn!(
                %version,
                "Before Firecracker 1.8, guests find no device unless their kernel has CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES, \
                 which Debian's has not"
            );
        }
        if tuning.balloon && !features.page_reporting {
            tracing::warn!(%version, "Guests give no memory back: `balloon` needs Firecracker 1.14");
        }
        let mut driver = Self { binary, version, features, tuning, unserved: None, starter };
        if driver.can_save() && driver.serves_pages() {
            driver.unserved = pages::permission::problem(driver.starter.jails());
        }
        if let Some(problem) = &driver.unserved {
            tracing::warn!(%problem, "Guests boot instead of going on from a snapshot: their memory cannot be served");
        }
        Ok(driver)
    }

    /// Restored memory would have no transparent huge pages: neither a file's pages nor those that are served become any.
    fn can_save(&self) -> bool {
        let kept = self.tuning.huge_pages != HugePages::Transparent;
        self.features.snapshots && kept && self.unserved.is_none()
    }

    /// Whether saved memory is served page by page. That of huge pages is in no file that could be mapped.
    fn serves_pages(&self) -> bool {
        self.tuning.huge_pages == HugePages::TwoMib || self.tuning.snapshot_memory == SnapshotMemory::Uffd
    }

    /// Why no guest can run, and what to do about it: [`kvm_problem`], as whoever starts them sees it.
    #[must_use]
    pub fn kvm_problem(&self) -> Option<String> {
        match &self.starter {
            Starter::Free(_) | Starter::Jailing(..) => kvm::problem(),
            Starter::Helper(helper) => helper.programs.problem.clone(),
        }
    }

    /// Whether it boots compressed kernels too; others need an ELF file.
    #[must_use]
    pub fn boots_bzimage(&self) -> bool {
        self.features.bzimage
    }
}

/// The jailer that is installed with a Firecracker: beside it, with a name like its own, or in the search path.
#[must_use]
pub fn installed_jailer(firecracker: &Path) -> Option<PathBuf> {
    let binary = program::find(firecracker, "").ok()?;
    // Releases have `firecracker-v1.16.1-x86_64` and `jailer-v1.16.1-x86_64`.
    let beside =
        [Some(binary.clone()), binary.canonicalize().ok()].into_iter().flatten().flat_map(|binary| {
            let name = binary.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            [name.replace(PROGRAM, JAILER), JAILER.to_owned()].map(|name| binary.with_file_name(name))
        });
    let names = beside.chain([PathBuf::from(JAILER)]);
    names.filter(|name| *name != binary).find_map(|name| program::find(&name, "").ok())
}

/// Firecracker, and its version.
async fn find_firecracker(binary: Option<&Path>) -> Result<(PathBuf, Version), VmmError> {
    let hint =
        "it is not in the search path; install a release of Firecracker, or set TART_FIRECRACKER to its path";
    let binary = program::find(binary.unwrap_or(Path::new(PROGRAM)), hint)?;
    let refuse = |reason: String| VmmError::Program { program: binary.clone(), reason };
    let said = program::output(&binary, "--version", VERSION_LIMIT).await?;
    let version = Version::parse(&said).ok_or_else(|| refuse("it tells no version".to_owned()))?;
    match version.problem() {
        Some(problem) => Err(refuse(problem)),
        None => Ok((binary, version)),
    }
}

/// Firecracker and its jailer, or those that are installed.
async fn find_programs(
    binary: Option<&Path>,
    jailer: Option<PathBuf>,
) -> Result<(Version, Jailer), VmmError> {
    let (binary, version) = find_firecracker(binary).await?;
    let jailer = jailer.or_else(|| installed_jailer(&binary)).unwrap_or_else(|| JAILER.into());
    Ok((version, find_jailer(&jailer, &binary, version).await?))
}

/// The jailer, which has to be of Firecracker's own release.
async fn find_jailer(jailer: &Path, binary: &Path, version: Version) -> Result<Jailer, VmmError> {
    let hint = "it is not in the search path; set `jailer` to its path, or to \"none\"";
    let program = program::find(jailer, hint)?;
    let refuse = |reason: String| VmmError::Program { program: program.clone(), reason };
    if !geteuid().is_root() {
        return Err(refuse(
            "the jailer has to be started as root; run Tart as root, or set `jailer = \"none\"`".to_owned(),
        ));
    }
    let said = program::output(&program, "--version", VERSION_LIMIT).await?;
    let own = Version::parse(&said).ok_or_else(|| refuse("it tells no version".to_owned()))?;
    if own != version {
        return Err(refuse(format!(
            "it is the jailer of Firecracker {own}, and {} is {version}: use both of one release",
            binary.display()
        )));
    }
    let lost = |e: io::Error| refuse(format!("{} cannot be found: {e}", binary.display()));
    let exec_file = binary.canonicalize().map_err(lost)?;
    let mode = exec_file.metadata().map_err(lost)?.permissions().mode();
    if !version.features().own_copy && mode & OTHERS_RUN == 0 {
        let name = exec_file.display();
        return Err(refuse(format!(
            "before 1.15, it runs programs only that all users may run: `chmod a+x {name}`"
        )));
    }
    Jailer::new(program, exec_file)
}

#[async_trait]
impl Driver for FirecrackerDriver {
    fn name(&self) -> &'static str {
        "firecracker"
    }

    fn describe(&self) -> String {
        let jail = match &self.starter {
            Starter::Free(_) => String::new(),
            Starter::Jailing(_, jailer) => format!(", jailed by {}", jailer.program.display()),
            Starter::Helper(helper) => {
                format!(", jailed by the root helper with {}", helper.programs.jailer.display())
            }
        };
        format!("Firecracker {} ({}), with KVM{jail}", self.version, self.binary.display())
    }

    fn program(&self) -> &std::path::Path {
        &self.binary
    }

    fn own_memory(&self) -> u64 {
        OWN_MEMORY
    }

    fn capabilities(&self) -> Capabilities {
        let snapshots = self.can_save();
        Capabilities { hardware_acceleration: true, named_taps: true, snapshots, ..Capabilities::default() }
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, VmmError> {
        spec.check()?;
        let devices = requests::devices(spec, &self.tuning);
        let line = cmdline::firecracker(devices, &spec.extra_kernel_args)?;
        Ok(Box::new(machine::start(self, spec, &line).await?))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn the_jailer_of_the_same_release_is_found_first() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let install = |name: &str| {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(0o755)).unwrap();
        };
        install("firecracker-v1.16.1-x86_64");
        symlink("firecracker-v1.16.1-x86_64", at("firecracker")).unwrap();
        let found = || installed_jailer(&at("firecracker")).filter(|path| path.starts_with(dir.path()));
        assert_eq!(found(), None);
        install("jailer-v1.16.1-x86_64");
        assert_eq!(found(), Some(at("jailer-v1.16.1-x86_64")));
        install("jailer");
        assert_eq!(found(), Some(at("jailer")));
        assert_eq!(installed_jailer(&at("gone")), None);
    }
}
