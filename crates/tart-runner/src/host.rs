//! What the jobs of a runner share on this host: the machine driver, the network, what guests boot from.

use std::path::PathBuf;
use std::sync::Arc;

use tart_assets::{AgentSource, AssetError, BootAssets, Progress, Store};
use tart_config::MicroVm;
use tart_net::{NetError, Network};
use tart_vmm::{Driver, RunDir, VmmError};

/// Why this host cannot run jobs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The driver.
    #[error(transparent)]
    Machine(#[from] VmmError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetError),
    /// What guests boot from.
    #[error(transparent)]
    Assets(#[from] AssetError),
    /// The configuration asks for something that is not there.
    #[error("{0}")]
    Unsupported(String),
}

/// How a host is prepared.
pub struct PrepareOptions {
    /// Hears of long steps, such as building the guest's disks.
    pub progress: Arc<dyn Progress>,
    /// The guest's agent.
    pub agent: AgentSource,
}

/// What the jobs of one runner share. Cheap to share by reference; its directory is removed when it is dropped.
#[derive(Debug)]
pub struct HostSetup {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) store: Store,
    pub(crate) boot: BootAssets,
    pub(crate) run_dir: RunDir,
    pub(crate) config: MicroVm,
}

/// Where running machines have their directories: for [`tart_vmm::reap`] at the start of a runner.
#[must_use]
pub fn run_root(config: &MicroVm) -> PathBuf {
    let _ = config;
    todo!()
}

impl HostSetup {
    /// Prepares the host. Builds what guests boot from if it is missing, which takes minutes the first time.
    ///
    /// # Errors
    /// What is missing on this host, and what to do.
    pub async fn prepare(config: &MicroVm, options: PrepareOptions) -> Result<Self, HostError> {
        let _ = (config, options);
        todo!()
    }

    /// Lines for `tart doctor` and the start of a runner.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        todo!()
    }
}
