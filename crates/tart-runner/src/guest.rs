//! A guest that is ready for a job: machine, disks, network and file trees, and their end.

mod death;
mod layout;
mod place;
mod pool;
mod rehearsal;
mod services;
mod start;

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tart_assets::{AssetError, ImageDisk, Lease, Scratch};
use tart_guest::{Guest, GuestError, Listener};
use tart_job::dirs::JobDirs;
use tart_net::{Allowed, AttachRequest, Attachment, Egress, NetError, Rule, Usage};
use tart_proto::message::{Configure, Hello, MountStep, Root};
use tart_vmm::{Machine, MachineCounters, MachineDir, VmmError};
use tokio::time::Instant;

use crate::HostSetup;
use death::explain;
pub(crate) use death::killed_for_memory;
use layout::{PlannedDisk, not_done};
pub(crate) use layout::{template_disks, template_facts};
use place::{Placed, from_pool, layout, place};
pub(crate) use pool::{Factory, Pool, Running};
pub(crate) use services::{ServiceGuest, address_of};
use start::Started;
pub(crate) use start::{Start, save_template};

/// Bytes of the host's randomness that a guest starts with.
const ENTROPY: usize = 64;

/// How long the guest may take to set its file trees up.
const SET_UP_LIMIT: Duration = Duration::from_secs(60);

/// Why a guest could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestFailure {
    #[error(transparent)]
    Machine(#[from] VmmError),
    #[error(transparent)]
    Network(#[from] NetError),
    #[error(transparent)]
    Assets(#[from] AssetError),
    #[error("the guest could not be set up: {0}")]
    SetUp(String),
    /// The guest's agent says what the image does not allow.
    #[error("the guest could not be set up: {0} (what is below {job} is the image's)", job = Root::Job.mount_point())]
    Refused(String),
    #[error("the guest could not be set up within {} seconds", .0.as_secs())]
    SetUpTimeout(Duration),
    #[error("the host gives no random numbers: {0}")]
    Entropy(getrandom::Error),
    #[error("the preparation was interrupted")]
    Interrupted,
}

/// What a guest is made for.
#[derive(Debug, Clone)]
pub(crate) struct GuestRequest {
    /// Name of the machine on this host.
    pub(crate) id: String,
    /// Host name in the guest.
    pub(crate) hostname: String,
    /// The job's image.
    pub(crate) image: ImageDisk,
    /// Its services.
    pub(crate) services: Vec<ServiceGuest>,
    /// Its directories in the guest.
    pub(crate) dirs: JobDirs,
    /// `cache_dir` of the configuration.
    pub(crate) cache_root: String,
    /// What else the job and its services share.
    pub(crate) volumes: Vec<String>,
    /// What it may reach where it has no network of its own.
    pub(crate) allowed: Vec<Allowed>,
    /// To what the job narrows its network.
    pub(crate) egress: Option<Vec<Rule>>,
}

/// A running guest. Fields are dropped in their order: the machine ends before what it uses.
pub(crate) struct JobGuest {
    guest: Guest,
    _listeners: Vec<Listener>,
    machine: Box<dyn Machine>,
    attachment: Box<dyn Attachment>,
    scratch: Scratch,
    dir: MachineDir,
    /// What its agent said of it.
    pub(crate) hello: Hello,
    /// How it came to be.
    pub(crate) start: Start,
    /// From the start of the monitor until the agent was ready.
    pub(crate) spawn_to_ready: Duration,
    /// When the agent was ready.
    pub(crate) ready: Instant,
    /// The first shell of its image, if that is known.
    pub(crate) shell: Option<&'static str>,
    /// Counts it among the jobs that the pool goes by.
    _running: Option<Running>,
    /// Keeps the image that it had before the job came.
    _lease: Option<Lease>,
}

impl JobGuest {
    /// Boots a guest and sets it up. If the future is dropped, nothing is left of it.
    pub(crate) async fn boot(setup: &HostSetup, request: &GuestRequest) -> Result<Self, GuestFailure> {
        let running = setup.pool.as_ref().map(Pool::running);
        let attach = attach_request(setup, request);
        let services: Vec<_> = request.services.iter().map(|service| service.image.clone()).collect();
        let placed = match from_pool(setup, request, &services, &attach).await {
            Some(placed) => placed,
            None => place(setup, request, &services, &attach).await?,
        };
        let Placed { started, start, attachment, scratch, dir, mounted, lease, shell } = placed;
        let Started { guest, machine, hello, took } = started;
        let layout = layout(setup, request, &services, scratch.path());
        let ready = Instant::now();
        let configure = configuration(&request.hostname)?;
        let mut steps = layout.mounts(&request.dirs, &request.cache_root, &request.volumes);
        if start != Start::Booted {
            steps = not_done(steps, &mounted, bytes_of(&layout.disks()));
        }
        let set_up = set_up(&guest, configure, &steps, request, &*attachment);
        let limit = tart_proto::time::scaled(SET_UP_LIMIT);
        let listeners = match tokio::time::timeout(limit, set_up).await {
            Ok(Ok(listeners)) => listeners,
            Ok(Err(SetUpError::Guest(error))) if error.failure_kind().is_some() => {
                return Err(GuestFailure::Refused(error.to_string()));
            }
            Ok(Err(SetUpError::Guest(error))) => {
                return Err(GuestFailure::SetUp(explain(&*machine, &error).await));
            }
            Ok(Err(SetUpError::Translation(text))) => return Err(GuestFailure::SetUp(text)),
            Err(_) => return Err(GuestFailure::SetUpTimeout(limit)),
        };
        Ok(Self {
            guest,
            _listeners: listeners,
            machine,
            attachment,
            scratch,
            dir,
            hello,
            start,
            spawn_to_ready: took,
            ready,
            shell,
            _running: running,
            _lease: lease,
        })
    }

    /// The session with the agent.
    pub(crate) fn agent(&self) -> &Guest {
        &self.guest
    }

    /// Variables that tell the job's programs of a proxy.
    pub(crate) fn proxy_env(&self) -> &[(String, String)] {
        &self.attachment.guest().proxy_env
    }

    /// The last of the console, which tells of processes killed for lack of memory.
    pub(crate) fn console_tail(&self) -> String {
        self.machine.console_tail()
    }

    /// Why the guest does not answer any more, for people.
    pub(crate) async fn cause_of_death(&self, error: &GuestError) -> String {
        explain(&*self.machine, error).await
    }

    /// Ends the machine at once and removes everything of it. Says what it used: bytes of disk, and the network.
    pub(crate) async fn end(self) -> (u64, Usage) {
        let Self { guest, _listeners, machine, attachment, scratch, dir, .. } = self;
        drop((guest, _listeners));
        let counters = machine.counters().await;
        machine.kill().await;
        if let Some(counters) = counters {
            counted(machine.id(), &counters);
        }
        drop(machine);
        let usage = attachment.usage().await;
        attachment.detach().await;
        let used = scratch.used().unwrap_or(0);
        // Giving back the blocks of a full disk takes a moment.
        let _gone = tokio::task::spawn_blocking(move || drop((scratch, dir))).await;
        (used, usage)
    }
}

/// Notes what a monitor counted of its machine.
fn counted(id: &str, counters: &MachineCounters) {
    let MachineCounters { disks, network, agent, forbidden_calls, lost_reports } = counters;
    tracing::debug!(id, ?disks, ?network, ?agent, lost_reports, "what the machine's devices did");
    if *forbidden_calls > 0 {
        tracing::warn!(
            id,
            forbidden_calls,
            "a monitor made system calls that its filter forbids: its guest may have broken out into it"
        );
    }
}

/// Why a guest could not be set up.
#[derive(Debug, thiserror::Error)]
enum SetUpError {
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error("the addresses of services cannot be translated: {0}")]
    Translation(String),
}

/// Names, clock and network, then the file trees, then what is forwarded.
async fn set_up(
    guest: &Guest,
    mut configure: Configure,
    steps: &[MountStep],
    request: &GuestRequest,
    attachment: &dyn Attachment,
) -> Result<Vec<Listener>, SetUpError> {
    let network = attachment.guest();
    network.add_to(&mut configure);
    guest.configure(&configure).await?;
    guest.mount(steps).await?;
    if !request.services.is_empty() {
        services::connect(guest, &request.services, &configure.interfaces).await?;
    }
    let mut listeners = Vec::new();
    for listen in &network.listens {
        listeners.push(guest.listen(listen).await?);
    }
    Ok(listeners)
}

/// How large the images of disks are, by serial; 0 if that cannot be told.
fn bytes_of(disks: &[PlannedDisk]) -> impl Fn(&str) -> u64 {
    |serial| disks.iter().find(|disk| disk.serial == serial).map_or(0, PlannedDisk::bytes)
}

fn configuration(hostname: &str) -> Result<Configure, GuestFailure> {
    let mut entropy = vec![0; ENTROPY];
    getrandom::fill(&mut entropy).map_err(GuestFailure::Entropy)?;
    let mut machine_id = [0; 16];
    getrandom::fill(&mut machine_id).map_err(GuestFailure::Entropy)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Configure {
        unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        entropy,
        hostname: hostname.to_owned(),
        machine_id: format!("{:032x}", u128::from_be_bytes(machine_id)),
        ..Configure::default()
    })
}

fn attach_request(setup: &HostSetup, request: &GuestRequest) -> AttachRequest {
    let network = &setup.config.network;
    AttachRequest {
        id: request.id.clone(),
        allowed: request.allowed.clone(),
        extra_hosts: network.extra_hosts.iter().filter_map(|entry| extra_host(entry)).collect(),
        nameservers: network.dns.clone(),
        search_domains: network.dns_search.clone(),
        egress: Egress { job: request.egress.clone(), ..setup.egress.clone() },
        bandwidth: network.bandwidth.map(tart_config::ByteSize::bytes),
    }
}

/// `name:address`, whose address may hold colons.
fn extra_host(entry: &str) -> Option<(String, IpAddr)> {
    let (name, address) = entry.split_once(':')?;
    let address = address.trim().trim_start_matches('[').trim_end_matches(']');
    Some((name.trim().to_owned(), address.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_may_have_addresses_of_both_families() {
        let four = extra_host("gitlab:10.0.0.1").unwrap();
        assert_eq!(four, ("gitlab".to_owned(), "10.0.0.1".parse().unwrap()));
        assert_eq!(extra_host("gitlab:[fd00::1]").unwrap().1, extra_host("gitlab:fd00::1").unwrap().1);
        assert_eq!(extra_host("gitlab"), None);
    }

    #[test]
    fn a_guest_starts_with_an_identity_of_its_own() {
        let (one, other) = (configuration("a").unwrap(), configuration("a").unwrap());
        assert_eq!(one.machine_id.len(), 32);
        assert_ne!((one.machine_id, one.entropy), (other.machine_id, other.entropy));
    }
}
