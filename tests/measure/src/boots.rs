//! Whether guests come up, every time, on a machine that has other things to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tart_assets::{AgentSource, BootAssets, BootRequest, KernelSource, Store, default_root};
use tart_guest::{Guest, NoRelay};
use tart_vmm::{
    Accel, AgentStream, Driver, Greet, Isolation, MachineSpec, PROBE_LIMIT, Probe, QemuDriver, QemuOptions,
    RunDir, await_boot, choose,
};

use crate::load::Load;
use crate::report::{line, quantile, seconds};

/// How guests are booted.
#[derive(Debug, clap::Args)]
pub(crate) struct Boots {
    /// Boot this many guests.
    #[arg(long, default_value_t = 50)]
    boots: u32,

    /// Keep every processor of the host busy meanwhile.
    #[arg(long)]
    load: bool,

    /// Virtual processors of a guest.
    #[arg(long, default_value_t = 2)]
    vcpus: u32,

    /// How long a boot may take, in seconds.
    #[arg(long, default_value_t = 120)]
    limit_secs: u64,
}

impl Boots {
    /// Boots guests until all are done, whether or not they come up.
    pub(crate) async fn run(&self) -> Result<()> {
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        let run_dir = RunDir::create(directory.path())?;
        let request = BootRequest { kernel: KernelSource::Distribution, agent: AgentSource::Installed };
        let boot = Store::open(&default_root())?.boot_assets(&request)?;
        let driver = driver(&boot, &run_dir).await?;
        let load = self.load.then(Load::start);
        line(&format!(
            "{} boots of {} with {} CPUs, {}, {}",
            self.boots,
            boot.release,
            self.vcpus,
            driver.describe(),
            if load.is_some() { "all processors of the host busy" } else { "nothing else to do" }
        ));
        let mut times = Vec::new();
        for number in 1..=self.boots {
            let started = Instant::now();
            match self.boot(&driver, &boot, &run_dir, number).await {
                Ok(()) => {
                    times.push(started.elapsed());
                    line(&format!("boot {number}: {}", seconds(started.elapsed())));
                }
                Err(error) => line(&format!("boot {number}: FAILED: {error:#}")),
            }
        }
        drop(load);
        let (median, worst) = (quantile(&times, 0.5), quantile(&times, 1.0));
        let good = times.len();
        line(&format!(
            "{good} of {} boots: median {}, worst {}",
            self.boots,
            seconds(median),
            seconds(worst)
        ));
        ensure!(u32::try_from(good) == Ok(self.boots), "not all guests came up");
        Ok(())
    }

    /// One boot, up to the agent's answer to a request.
    async fn boot(
        &self,
        driver: &QemuDriver,
        boot: &BootAssets,
        run_dir: &RunDir,
        number: u32,
    ) -> Result<()> {
        let id = format!("boot-{number}");
        let machine_dir = run_dir.machine(&id)?;
        let limit = Duration::from_secs(self.limit_secs);
        let spec = MachineSpec {
            id,
            run_dir: machine_dir.path().to_owned(),
            kernel: boot.kernel.clone(),
            initrd: boot.initrd.clone(),
            extra_kernel_args: Vec::new(),
            vcpus: self.vcpus,
            memory_bytes: 512 << 20,
            disks: Vec::new(),
            nic: None,
            later_disk: None,
            later_images: Vec::new(),
            identity: None,
            cgroup: None,
            origin: tart_vmm::Origin::Boot,
            boot_limit: limit,
        };
        let machine = driver.start(&spec).await?;
        let up = async {
            let stream = machine.connect_agent().await?;
            let connected = Guest::connect(stream, Arc::new(NoRelay), limit);
            let (guest, hello) = await_boot(&*machine, limit, connected).await?;
            ensure!(hello.cpus == self.vcpus, "{} of {} CPUs are up", hello.cpus, self.vcpus);
            guest.ping().await?;
            Ok(())
        };
        let up = up.await;
        machine.kill().await;
        up
    }
}

async fn driver(boot: &BootAssets, run_dir: &RunDir) -> Result<QemuDriver> {
    let cache = run_dir.path().join("probe.json");
    let probe = Probe {
        qemu: None,
        kernel: &boot.kernel,
        initrd: &boot.initrd,
        digest: &boot.digest,
        cache: &cache,
        run_dir,
        limit: PROBE_LIMIT,
        isolation: &Isolation::default(),
        helper: None,
    };
    let greet: &Greet = &|stream: AgentStream| {
        Box::pin(async {
            let connected = Guest::connect(stream, Arc::new(NoRelay), PROBE_LIMIT).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
    };
    let choice = choose(Accel::Auto, &probe, greet).await?;
    Ok(QemuDriver::new(QemuOptions {
        binary: None,
        acceleration: choice.acceleration,
        helper: None,
        disk_bandwidth: None,
    })
    .await?)
}
