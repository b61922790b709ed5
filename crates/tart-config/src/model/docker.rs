//! `[runners.docker]`: the official runner's words for the job's surroundings.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::wire;
use crate::size::ByteSize;

/// The job's image, limits and services.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Docker {
    /// The image of jobs that name none.
    pub image: Option<String>,
    /// How images are pulled, tried in order.
    #[serde(with = "wire::one_or_many")]
    pub pull_policy: Vec<PullPolicy>,
    /// The policies jobs may choose; only `pull_policy` if empty.
    pub allowed_pull_policies: Vec<PullPolicy>,
    /// Patterns of images jobs may use; all if empty.
    pub allowed_images: Vec<String>,
    /// Patterns of services jobs may use; all if empty.
    pub allowed_services: Vec<String>,
    /// All capabilities and devices of the VM.
    pub privileged: bool,
    /// The same for services; as `privileged` without it.
    pub services_privileged: Option<bool>,
    /// Patterns of images that may be privileged; all if empty.
    pub allowed_privileged_images: Vec<String>,
    /// Patterns of services that may be privileged; all if empty.
    pub allowed_privileged_services: Vec<String>,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities removed.
    pub cap_drop: Vec<String>,
    /// The user of job scripts.
    pub user: Option<String>,
    /// Patterns of users jobs may choose; all if empty.
    pub allowed_users: Vec<String>,
    /// Groups added to the user.
    pub group_add: Vec<String>,
    /// Memory of the VM.
    pub memory: Option<ByteSize>,
    /// Memory the VM gives back down to.
    pub memory_reservation: Option<ByteSize>,
    /// Memory and swap together.
    pub memory_swap: Option<ByteSize>,
    /// Processors, a decimal number.
    pub cpus: Option<String>,
    /// Weight when processors are short; 0 is normal.
    pub cpu_shares: u32,
    /// Host processors of the VM.
    pub cpuset_cpus: Option<String>,
    /// Host memory nodes of the VM.
    pub cpuset_mems: Option<String>,
    /// The control group of the VM.
    pub cgroup_parent: Option<String>,
    /// How soon the VM is killed when memory is short.
    pub oom_score_adjust: i32,
    /// Size of `/dev/shm`.
    pub shm_size: Option<ByteSize>,
    /// Directories in memory and their mount options.
    pub tmpfs: BTreeMap<String, String>,
    /// The same for services.
    pub services_tmpfs: BTreeMap<String, String>,
    /// Resource limits, `soft` or `soft:hard`.
    pub ulimit: BTreeMap<String, String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// `name:address` entries.
    pub extra_hosts: Vec<String>,
    /// The host name of the job.
    pub hostname: Option<String>,
    /// The hardware address of the network card.
    pub mac_address: Option<String>,
    /// Whether the network has IPv6.
    pub enable_ipv6: bool,
    /// The largest packet; 0 is the network's own.
    pub network_mtu: u32,
    /// `bridge` or `none`.
    pub network_mode: Option<String>,
    /// Directories that last, and directories of the host.
    pub volumes: Vec<String>,
    /// Options of volumes.
    pub volume_driver_ops: BTreeMap<String, String>,
    /// Whether no directory lasts between jobs.
    pub disable_cache: bool,
    /// Where lasting directories are kept.
    pub cache_dir: Option<String>,
    /// Devices of the job.
    pub devices: Vec<String>,
    /// Devices of services by image pattern.
    pub services_devices: BTreeMap<String, Vec<String>>,
    /// Whether jobs may not replace entrypoints.
    pub disable_entrypoint_overwrite: bool,
    /// The most services of a job; -1 is any number.
    pub services_limit: i32,
    /// Seconds to wait for services; -1 is not to wait.
    pub wait_for_services_timeout: i32,
    /// Memory of each service.
    pub service_memory: Option<ByteSize>,
    /// Memory and swap of each service.
    pub service_memory_swap: Option<ByteSize>,
    /// Memory each service gives back down to.
    pub service_memory_reservation: Option<ByteSize>,
    /// Processors of each service, a decimal number.
    pub service_cpus: Option<String>,
    /// Weight of each service; 0 is normal.
    pub service_cpu_shares: u32,
    /// Virtual processors of services.
    pub service_cpuset_cpus: Option<String>,
    /// Services that every job gets.
    pub services: Vec<DockerService>,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            image: None,
            pull_policy: vec![PullPolicy::Always],
            allowed_pull_policies: Vec::new(),
            allowed_images: Vec::new(),
            allowed_services: Vec::new(),
            privileged: false,
            services_privileged: None,
            allowed_privileged_images: Vec::new(),
            allowed_privileged_services: Vec::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            user: None,
            allowed_users: Vec::new(),
            group_add: Vec::new(),
            memory: None,
            memory_reservation: None,
            memory_swap: None,
            cpus: None,
            cpu_shares: 0,
            cpuset_cpus: None,
            cpuset_mems: None,
            cgroup_parent: None,
            oom_score_adjust: 0,
            shm_size: None,
            tmpfs: BTreeMap::new(),
            services_tmpfs: BTreeMap::new(),
            ulimit: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            extra_hosts: Vec::new(),
            hostname: None,
            mac_address: None,
            enable_ipv6: false,
            network_mtu: 0,
            network_mode: None,
            volumes: Vec::new(),
            volume_driver_ops: BTreeMap::new(),
            disable_cache: false,
            cache_dir: None,
            devices: Vec::new(),
            services_devices: BTreeMap::new(),
            disable_entrypoint_overwrite: false,
            services_limit: -1,
            wait_for_services_timeout: 30,
            service_memory: None,
            service_memory_swap: None,
            service_memory_reservation: None,
            service_cpus: None,
            service_cpu_shares: 0,
            service_cpuset_cpus: None,
            services: Vec::new(),
        }
    }
}

/// How an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Ask the registry each time.
    Always,
    /// Only if it is not here.
    IfNotPresent,
    /// Only use what is here.
    Never,
}

/// `[[runners.docker.services]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerService {
    /// The image.
    pub name: String,
    /// Names, divided by blanks or commas.
    pub alias: Option<String>,
    /// Replaces the entrypoint.
    pub entrypoint: Vec<String>,
    /// Replaces the command.
    pub command: Vec<String>,
    /// `KEY=value` variables.
    pub environment: Vec<String>,
}
