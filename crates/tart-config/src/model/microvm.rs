//! `[runners.microvm]`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::wire;
use crate::size::ByteSize;

/// The VM of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MicroVm {
    /// The virtual machine monitor.
    #[serde(alias = "vmm")]
    pub driver: Driver,
    /// The Firecracker program.
    pub firecracker: Option<PathBuf>,
    /// Firecracker's jailer, or `none` for no jail.
    pub jailer: Option<PathBuf>,
    /// A CPU template of Firecracker.
    pub cpu_template: Option<String>,
    /// What huge pages back the memory of Firecracker's guests.
    pub huge_pages: HugePages,
    /// Where memory of Firecracker's guests comes from that go on from a snapshot.
    pub snapshot_memory: SnapshotMemory,
    /// Whether Firecracker's guests give memory back that they do not use.
    pub balloon: bool,
    /// Bytes in a second that a guest reads from its disks and writes to them.
    pub disk_bandwidth: Option<ByteSize>,
    /// First user and group of those that monitors run as where the runner is root.
    pub uid_base: u32,
    /// How many users there are; 0 runs monitors as the runner's user.
    pub uid_count: u32,
    /// The cgroup of version 2 that monitors have theirs in; found without it.
    pub cgroup_parent: Option<String>,
    /// Socket of the root helper; found without it where the runner is not root.
    pub root_helper: Option<PathBuf>,
    /// How the guest's processor is run.
    pub accel: Accel,
    /// The guest's kernel; the installed one without it.
    pub kernel: Option<PathBuf>,
    /// The guest's initramfs; the installed one without it.
    pub initrd: Option<PathBuf>,
    /// Words added to the kernel's command line.
    pub kernel_args: Option<String>,
    /// The image of jobs that name none, or the absolute path of a root file system; the installed one without it.
    pub image: Option<String>,
    /// Bytes that fetched images may take.
    pub image_quota: Option<ByteSize>,
    /// `host[:port]` of registries that may speak plain HTTP or have any certificate.
    pub insecure_registries: Vec<String>,
    /// A directory with certificates by registry.
    pub registry_certs_dir: Option<PathBuf>,
    /// Registries that are asked for Docker Hub's images first.
    pub registry_mirrors: Vec<String>,
    /// Virtual processors, at least 1.
    pub vcpus: u32,
    /// Memory.
    pub memory: ByteSize,
    /// Size of the scratch disk.
    pub disk: ByteSize,
    /// The most processors a job may ask for, as written; see [`MicroVm::vcpus_ceiling`].
    pub vcpus_max: Option<u32>,
    /// The most memory a job may ask for, as written; see [`MicroVm::memory_ceiling`].
    pub memory_max: Option<ByteSize>,
    /// The largest disk a job may ask for, as written; see [`MicroVm::disk_ceiling`].
    pub disk_max: Option<ByteSize>,
    /// How long the VM may take until its agent answers.
    #[serde(with = "wire::go_duration")]
    pub boot_timeout: Duration,
    /// Whether guests go on from a snapshot of a booted one, where the driver can.
    pub snapshots: bool,
    /// Where disks and sockets of running VMs are; [`crate::default_state_dir`] without it.
    pub state_dir: Option<PathBuf>,
    /// Where the installed kernel and disks are.
    pub assets_dir: Option<PathBuf>,
    /// Bytes that the caches of all jobs on this host may take.
    pub cache_quota: ByteSize,
    /// Machines that are kept ready.
    pub pool: Pool,
    /// The network of the VM.
    pub network: Network,
}

impl Default for MicroVm {
    fn default() -> Self {
        Self {
            driver: Driver::default(),
            firecracker: None,
            jailer: None,
            cpu_template: None,
            huge_pages: HugePages::default(),
            snapshot_memory: SnapshotMemory::default(),
            balloon: false,
            disk_bandwidth: None,
            uid_base: 1_879_048_192,
            uid_count: 4096,
            cgroup_parent: None,
            root_helper: None,
            accel: Accel::default(),
            kernel: None,
            initrd: None,
            kernel_args: None,
            image: None,
            image_quota: None,
            insecure_registries: Vec::new(),
            registry_certs_dir: None,
            registry_mirrors: Vec::new(),
            vcpus: 2,
            memory: ByteSize::gibibytes(1),
            disk: ByteSize::gibibytes(20),
            vcpus_max: None,
            memory_max: None,
            disk_max: None,
            boot_timeout: Duration::from_secs(120),
            snapshots: true,
            state_dir: None,
            assets_dir: None,
            cache_quota: ByteSize::gibibytes(10),
            pool: Pool::default(),
            network: Network::default(),
        }
    }
}

impl MicroVm {
    /// The most processors a job may have.
    pub fn vcpus_ceiling(&self) -> u32 {
        self.vcpus_max.unwrap_or(self.vcpus)
    }

    /// The most memory a job may have.
    pub fn memory_ceiling(&self) -> ByteSize {
        self.memory_max.unwrap_or(self.memory)
    }

    /// The largest disk a job may have.
    pub fn disk_ceiling(&self) -> ByteSize {
        self.disk_max.unwrap_or(self.disk)
    }
}

/// `[runners.microvm.pool]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// The most memory of the machines in it.
    pub memory: Option<ByteSize>,
    /// How many machines it has. The last one that holds counts.
    pub policy: Vec<PoolPolicy>,
}

/// `[[runners.microvm.pool.policy]]`, in the words of the official autoscaler.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolPolicy {
    /// Crontab expressions of the minutes in which it holds.
    pub periods: Vec<String>,
    /// Their IANA time zone; the host's if empty.
    pub timezone: String,
    /// Machines that are ready.
    pub idle_count: u32,
    /// How long a machine beyond these is kept.
    #[serde(with = "wire::go_duration")]
    pub idle_time: Duration,
    /// Machines that are ready beside these, for each job that runs.
    pub scale_factor: Factor,
    /// The most of the latter.
    pub scale_factor_limit: u32,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            periods: vec!["* * * * *".to_owned()],
            timezone: String::new(),
            idle_count: 0,
            idle_time: Duration::from_secs(20 * 60),
            scale_factor: Factor::default(),
            scale_factor_limit: 100,
        }
    }
}

/// A number of at least 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Factor(f64);

impl Factor {
    /// The factor.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<f64> for Factor {
    /// What is below 0, or no number, is 0.
    fn from(factor: f64) -> Self {
        Self(factor.max(0.0))
    }
}

// The checker lets no NaN through, and neither does `From`.
impl Eq for Factor {}

/// The virtual machine monitor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The best one that is installed.
    #[default]
    Auto,
    /// QEMU with its microvm machine.
    Qemu,
    /// Firecracker.
    Firecracker,
}

/// What huge pages back a guest's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum HugePages {
    /// None.
    #[default]
    #[serde(rename = "none")]
    None,
    /// Those of 2 MiB that the administrator reserved.
    #[serde(rename = "2M")]
    TwoMib,
    /// Whatever the host's kernel finds.
    #[serde(rename = "transparent")]
    Transparent,
}

/// Where a guest's memory comes from that was saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotMemory {
    /// A file that the monitor maps.
    #[default]
    File,
    /// Tart, page by page.
    Uffd,
}

/// How the guest's processor is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// KVM if it can be used, else emulation.
    #[default]
    Auto,
    /// KVM only.
    Kvm,
    /// Emulation.
    Tcg,
}

/// `[runners.microvm.network]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// How the VM reaches the network.
    pub mode: NetworkMode,
    /// Name servers; the host's without them.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// `name:address` entries of `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// What the VM reaches without being listed.
    pub egress: EgressMode,
    /// What the VM may reach, also in private networks.
    pub allow: Vec<String>,
    /// What the VM may not reach.
    pub deny: Vec<String>,
    /// The most bytes that the VM's network device carries in a second, each way.
    pub bandwidth: Option<ByteSize>,
}

/// What the VM reaches without being listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// All public addresses.
    #[default]
    Public,
    /// Nothing.
    Listed,
}

/// How the VM reaches the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The best one that works here.
    #[default]
    Auto,
    /// Tart's own relay.
    Relay,
    /// A network namespace for each VM.
    Netns,
    /// The passt program.
    Passt,
    /// No network.
    None,
}
