//! What the jobs of a runner share on this host: the machine driver, the network, what guests boot from.

mod firecracker;
mod jailer;
mod network;
mod places;
mod template;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tart_assets::{
    AgentSource, AssetError, BootAssets, BootRequest, DEFAULT_IMAGE, ImageDisk, KernelSource, Progress, Store,
};
use tart_config::MicroVm;
use tart_guest::{Guest, NoRelay};
use tart_images::{ImageError, ImageSettings, Images};
use tart_net::{Egress, NetError, Network};
use tart_proto::time::scaled;
use tart_registry::{RegistryError, RegistrySettings};
use tart_vmm::{
    Accel, AgentStream, Choice, Driver, Guard, Isolation, IsolationOptions, MachineSpec, Origin, PROBE_LIMIT,
    Probe, QemuDriver, QemuOptions, RunDir, Snapshot, VmmError, choose,
};
use tokio::sync::watch;

use crate::CacheStore;
use crate::guest::{Factory, Pool, template_disks};
pub use firecracker::program as firecracker_program;
pub use jailer::named as named_jailer;
pub(crate) use places::Places;

/// Name of the file with the result of the KVM probe, in the state directory.
const PROBE_CACHE: &str = "kvm-probe.json";

/// Name of the directory of running machines, in the state directory.
const RUN_DIR: &str = "run";

/// Name of the directory of caches, in the state directory.
const CACHE_DIR: &str = "cache";

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
    /// Images and registries.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// A task of this process ended before its work was done.
    #[error("the preparation was interrupted")]
    Interrupted,
}

/// How a host is prepared.
#[derive(Clone)]
pub struct PrepareOptions {
    /// Hears of long steps, such as building the guest's disks.
    pub progress: Arc<dyn Progress>,
    /// The guest's agent.
    pub agent: AgentSource,
    /// Keep machines ready for jobs to come, if the configuration says so.
    pub pool: bool,
}

impl fmt::Debug for PrepareOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrepareOptions").field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// What the jobs of one runner share; its directory is removed when it is dropped.
#[derive(Debug)]
pub struct HostSetup {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) network: Arc<dyn Network>,
    /// What it lets every job reach.
    pub(crate) egress: Egress,
    pub(crate) images: Images,
    pub(crate) boot: BootAssets,
    /// Dropped before what its machines use.
    pub(crate) pool: Option<Pool>,
    pub(crate) places: Places,
    pub(crate) config: MicroVm,
    /// Where caches of jobs are kept, if they can be.
    pub(crate) caches: Option<CacheStore>,
    /// What guests go on from.
    pub(crate) snapshot: Option<Snapshot>,
    /// Of machines that the kernel does not end with the runner.
    _guard: Option<Guard>,
    choice: Choice,
    notes: Vec<String>,
}

/// Where running machines have their directories: for [`tart_vmm::reap`] at the start of a runner.
#[must_use]
pub fn run_root(config: &MicroVm) -> PathBuf {
    state_dir(config).join(RUN_DIR)
}

/// Where a configuration has what outlives its jobs.
pub(crate) fn state_dir(config: &MicroVm) -> PathBuf {
    config.state_dir.clone().unwrap_or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        tart_config::default_state_dir(rustix::process::geteuid().is_root(), home.as_deref())
    })
}

impl HostSetup {
    /// Prepares the host. Builds what guests boot from if it is missing, which takes minutes the first time, and finds
    /// out whether guests boot with KVM, which is remembered.
    ///
    /// # Errors
    /// What is missing on this host, and what to do.
    pub async fn prepare(config: &MicroVm, options: PrepareOptions) -> Result<Self, HostError> {
        let run_dir = RunDir::create(&run_root(config))?;
        let (wanted, progress, pool) = (config.clone(), options.progress.clone(), options.pool);
        let assets = tokio::task::spawn_blocking(move || assets(&wanted, options));
        let (store, mut boot) = assets.await.map_err(|_| HostError::Interrupted)??;
        let helper = root_helper(config, rustix::process::geteuid().is_root());
        let isolation = match &helper {
            Some(socket) => Isolation::of_helper(socket),
            None => Isolation::new(&isolation(config))?,
        };
        let (mut bare, mut guard) = (None, None);
        let (driver, choice): (Arc<dyn Driver>, Choice) = match firecracker_program(config) {
            Some(binary) => {
                let driver = if let Some(socket) = &helper {
                    firecracker::by_helper(config, socket).await?
                } else {
                    let jailer = jailer::program(config, &binary);
                    bare = jailer::note(jailer.as_deref());
                    if jailer.is_some() {
                        guard = Some(Guard::start(&run_dir)?);
                    }
                    firecracker::here(config, binary, jailer).await?
                };
                boot.kernel.clone_from(&boot.vmlinux);
                (Arc::new(driver), Choice::required("Firecracker runs guests in no other way"))
            }
            None => {
                let choice = acceleration(config, &boot, &run_dir, (&isolation, helper.as_deref())).await?;
                let options = QemuOptions {
                    binary: None,
                    acceleration: choice.acceleration,
                    helper: helper.clone(),
                    disk_bandwidth: config.disk_bandwidth.map(|bytes| bytes.bytes()),
                };
                (Arc::new(QemuDriver::new(options).await?), choice)
            }
        };
        let egress = network::egress(&config.network)?;
        let named_taps = driver.capabilities().named_taps;
        let (network, mut notes) = network::choose(&config.network, &egress, named_taps, helper).await?;
        notes.extend(bare);
        let places = Places {
            run_dir: Arc::new(run_dir),
            isolation: Arc::new(isolation),
            own_memory: driver.own_memory(),
            bandwidth: config.disk_bandwidth.map(|bytes| bytes.bytes()),
        };
        let mut setup = Self {
            driver,
            network,
            egress,
            images: open_images(store, config)?,
            boot,
            pool: None,
            places,
            config: config.clone(),
            caches: None,
            snapshot: None,
            _guard: guard,
            choice,
            notes,
        };
        match CacheStore::open(&state_dir(config).join(CACHE_DIR), config.cache_quota.bytes()) {
            Ok(caches) => setup.caches = Some(caches),
            Err(error) => setup.notes.push(format!("jobs have no caches: {error}")),
        }
        if config.snapshots && setup.driver.capabilities().snapshots {
            let begins = || progress.step("saving a booted guest for jobs to start from");
            match template::prepare(&setup, begins).await {
                Ok(snapshot) => setup.snapshot = Some(snapshot),
                Err(error) => setup.notes.push(format!("guests boot, since none can be saved: {error}")),
            }
        }
        if pool {
            setup.pool = setup.start_pool();
        }
        Ok(setup)
    }

    /// Machines for jobs to come.
    fn start_pool(&mut self) -> Option<Pool> {
        let (pool, snapshot) = (&self.config.pool, self.snapshot.clone());
        let Some(snapshot) = snapshot else {
            if !pool.policy.is_empty() {
                self.notes.push("no machines are kept ready, since guests boot".to_owned());
            }
            return None;
        };
        // Images are verified objects of the store, or the administrator's own.
        let mut later_images: Vec<_> = self.images.store().roots().map(Path::to_owned).collect();
        later_images
            .extend(self.config.image.iter().filter(|image| image.starts_with('/')).map(PathBuf::from));
        let spec = MachineSpec {
            disks: template_disks(&self.boot.helper),
            later_images,
            origin: Origin::Snapshot(snapshot),
            ..self.machine()
        };
        let (driver, network, places) = (self.driver.clone(), self.network.clone(), self.places.clone());
        let (helper, store, disk) =
            (self.boot.helper.clone(), self.images.store().clone(), self.config.disk.bytes());
        Pool::start(pool, Factory { driver, network, places, spec, disk, helper, store })
    }

    /// A machine of this host's jobs, without a name, disks and network.
    pub(crate) fn machine(&self) -> MachineSpec {
        let (boot, config) = (&self.boot, &self.config);
        MachineSpec {
            id: String::new(),
            run_dir: PathBuf::new(),
            kernel: boot.kernel.clone(),
            initrd: boot.initrd.clone(),
            extra_kernel_args: words(config.kernel_args.as_deref()),
            vcpus: config.vcpus,
            memory_bytes: config.memory.bytes(),
            disks: Vec::new(),
            nic: None,
            boot_limit: scaled(config.boot_timeout),
            later_disk: None,
            later_images: Vec::new(),
            identity: None,
            cgroup: None,
            origin: Origin::Boot,
        }
    }

    /// Ends the machines that are ready and waits until nothing of them is left. Dropping it only begins that.
    pub async fn close(mut self) {
        if let Some(pool) = self.pool.take() {
            pool.close().await;
        }
    }

    /// How many machines are ready for jobs to come, now and later. `None` if none are kept ready.
    #[must_use]
    pub fn ready(&self) -> Option<watch::Receiver<usize>> {
        self.pool.as_ref().map(Pool::count)
    }

    /// Lines for `tart doctor` and the start of a runner.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![
            format!("driver: {}", self.driver.describe()),
            self.choice.explain(),
            format!("guest kernel: {}", self.boot.release),
            format!("network: {}", self.network.describe()),
            format!("isolation: {}", self.places.isolation),
            format!("assets: {}", self.images.store().root().display()),
            match &self.snapshot {
                Some(snapshot) => {
                    format!("start: from a snapshot that takes {} MiB", snapshot.resident_bytes() >> 20)
                }
                None => "start: guests boot".to_owned(),
            },
        ];
        lines.extend(self.notes.iter().cloned());
        lines
    }

    /// The root file system at a path, verified.
    pub(crate) async fn rootfs(&self, path: String) -> Result<ImageDisk, HostError> {
        let store = self.images.store().clone();
        let image = tokio::task::spawn_blocking(move || store.image(&path));
        Ok(image.await.map_err(|_| HostError::Interrupted)??)
    }
}

fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Where Docker has the certificates of registries.
const CERTS_DIR: &str = "/etc/docker/certs.d";

/// The images of a store, fetched as the configuration says.
///
/// # Errors
/// If a mirror's address is none.
pub fn open_images(store: Store, config: &MicroVm) -> Result<Images, ImageError> {
    let mut mirrors = Vec::new();
    for mirror in &config.registry_mirrors {
        let address = mirror.parse().map_err(|error| {
            RegistryError::Settings(format!("`registry_mirrors`: `{mirror}` is no address: {error}"))
        });
        mirrors.push(address?);
    }
    let registry = RegistrySettings {
        insecure: config.insecure_registries.clone(),
        certs_dir: Some(config.registry_certs_dir.clone().unwrap_or_else(|| CERTS_DIR.into())),
        mirrors,
        ..RegistrySettings::default()
    };
    let quota = config.image_quota.map(|quota| quota.bytes());
    Images::open(store, ImageSettings { quota, registry, ..ImageSettings::default() })
}

/// What guests boot from, and the image of jobs that name none. Blocks.
fn assets(config: &MicroVm, options: PrepareOptions) -> Result<(Store, BootAssets), HostError> {
    let root = config.assets_dir.clone().unwrap_or_else(tart_assets::default_root);
    let store = Store::open(&root)?.with_progress(options.progress);
    let kernel = match &config.kernel {
        Some(kernel) => KernelSource::File { kernel: kernel.clone(), modules: None },
        None => KernelSource::Distribution,
    };
    let mut boot = store.boot_assets(&BootRequest { kernel, agent: options.agent })?;
    if let Some(initrd) = &config.initrd {
        boot.initrd.clone_from(initrd);
    }
    // Images with a name are fetched when a job needs them.
    match config.image.as_deref() {
        Some(path) if path.starts_with(['/', '.']) => store.image(path)?,
        _ => store.image(DEFAULT_IMAGE)?,
    };
    Ok((store, boot))
}

/// A path that the environment names.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The socket of the root helper that a runner uses, who is root or not: the one that is configured, else the usual one if it
/// is there and needed.
#[must_use]
pub fn root_helper(config: &MicroVm, is_root: bool) -> Option<PathBuf> {
    let default = || {
        let is_there = Path::new(tart_root_helper::DEFAULT_SOCKET).exists();
        (is_there && !is_root).then(|| tart_root_helper::DEFAULT_SOCKET.into())
    };
    config.root_helper.clone().or_else(default)
}

/// What machines are kept apart with.
fn isolation(config: &MicroVm) -> IsolationOptions {
    IsolationOptions {
        uid_base: config.uid_base,
        uid_count: config.uid_count,
        locks: crate::root_helper::UID_LOCKS.into(),
        cgroup_parent: config.cgroup_parent.clone(),
    }
}

async fn acceleration(
    config: &MicroVm,
    boot: &BootAssets,
    run_dir: &RunDir,
    (isolation, helper): (&Isolation, Option<&Path>),
) -> Result<Choice, VmmError> {
    let wish = match config.accel {
        tart_config::Accel::Auto => Accel::Auto,
        tart_config::Accel::Kvm => Accel::Kvm,
        tart_config::Accel::Tcg => Accel::Tcg,
    };
    let probe = Probe {
        qemu: None,
        kernel: &boot.kernel,
        initrd: &boot.initrd,
        digest: &boot.digest,
        cache: &state_dir(config).join(PROBE_CACHE),
        run_dir,
        limit: scaled(PROBE_LIMIT),
        isolation,
        helper,
    };
    let greet = |stream: AgentStream| -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        Box::pin(greet(stream, scaled(PROBE_LIMIT)))
    };
    choose(wish, &probe, &greet).await
}

/// Waits until the agent is ready.
async fn greet(stream: AgentStream, limit: Duration) -> Result<(), String> {
    let connected = Guest::connect(stream, Arc::new(NoRelay), limit).await;
    connected.map(drop).map_err(|error| error.to_string())
}
