//! Guests on Firecracker: which program, and who starts it.

use std::path::{Path, PathBuf};

use tart_config::MicroVm;
use tart_vmm::{
    Bucket, FirecrackerDriver, FirecrackerOptions, FirecrackerTuning, HugePages, SnapshotMemory, VmmError,
};

use super::{jailer, variable};

/// The variable that names the Firecracker program.
const FIRECRACKER: &str = "TART_FIRECRACKER";

/// Where the configuration or the environment names the program.
fn named(config: &MicroVm) -> Option<PathBuf> {
    config.firecracker.clone().or_else(|| variable(FIRECRACKER))
}

/// The program, if guests run on Firecracker: where the configuration or the environment names it, or where the
/// configuration asks for that driver.
#[must_use]
pub fn program(config: &MicroVm) -> Option<PathBuf> {
    let named = named(config);
    match config.driver {
        tart_config::Driver::Qemu => None,
        tart_config::Driver::Auto => named,
        tart_config::Driver::Firecracker => Some(named.unwrap_or_else(|| "firecracker".into())),
    }
}

/// What the configuration says of Firecracker's machines.
fn tuning(config: &MicroVm) -> FirecrackerTuning {
    FirecrackerTuning {
        huge_pages: match config.huge_pages {
            tart_config::HugePages::None => HugePages::None,
            tart_config::HugePages::TwoMib => HugePages::TwoMib,
            tart_config::HugePages::Transparent => HugePages::Transparent,
        },
        snapshot_memory: match config.snapshot_memory {
            tart_config::SnapshotMemory::File => SnapshotMemory::File,
            tart_config::SnapshotMemory::Uffd => SnapshotMemory::Uffd,
        },
        cpu_template: config.cpu_template.clone(),
        balloon: config.balloon,
        disk_bandwidth: config.disk_bandwidth.map(|bytes| Bucket { size: bytes.bytes(), refill_ms: 1000 }),
        ..FirecrackerTuning::default()
    }
}

/// What starts machines as this process, in jails if there is a jailer.
pub(super) async fn here(
    config: &MicroVm,
    binary: PathBuf,
    jailer: Option<PathBuf>,
) -> Result<FirecrackerDriver, VmmError> {
    no_kvm(tart_vmm::kvm_problem())?;
    let options = FirecrackerOptions {
        binary: Some(binary),
        jailer,
        tuning: tuning(config),
        ..FirecrackerOptions::default()
    };
    FirecrackerDriver::new(options).await
}

/// What has the root helper start machines in jails, with programs of its own.
pub(super) async fn by_helper(config: &MicroVm, socket: &Path) -> Result<FirecrackerDriver, VmmError> {
    let jailer = jailer::named(config);
    if let Some(none) = jailer.as_ref().filter(|jailer| jailer::is_none(jailer)) {
        let reason =
            "the root helper starts Firecracker in jails only: remove `jailer` from the configuration"
                .to_owned();
        return Err(VmmError::Program { program: none.clone(), reason });
    }
    let driver = FirecrackerDriver::new(FirecrackerOptions {
        binary: named(config),
        jailer,
        helper: Some(socket.to_owned()),
        tuning: tuning(config),
    })
    .await?;
    no_kvm(driver.kvm_problem())?;
    Ok(driver)
}

fn no_kvm(problem: Option<String>) -> Result<(), VmmError> {
    let Some(problem) = problem else { return Ok(()) };
    Err(VmmError::NoKvm { reason: format!("{problem}; or set `driver = \"qemu\"`, which needs none") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_root_helper_starts_nothing_without_a_jail() {
        let config = MicroVm { jailer: Some("none".into()), ..MicroVm::default() };
        let error = by_helper(&config, Path::new("/nowhere")).await.unwrap_err();
        insta::assert_snapshot!(error, @"cannot use `none`: the root helper starts Firecracker in jails only: remove `jailer` from the configuration");
    }
}
