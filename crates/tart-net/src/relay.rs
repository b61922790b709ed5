//! The network without a device: connections of the guest come over its agent's stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AttachRequest, Attachment, Carried, GuestNetwork, NetError, Network, Nic, RelayTargets, Reservation,
    Target, Usage,
    copy::{self, Traffic},
    dial,
    plan::{self, Plan},
};

/// Buffer of each way of a connection to a service of this process, in bytes.
const SERVICE_BUFFER: usize = 64 * 1024;

/// Limits of the relayed connections of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayOptions {
    /// How long an endpoint may take to accept a connection, over all addresses of its name.
    pub connect_limit: Duration,
    /// Most connections at once; more are reset. Each holds up to about 1 MiB of unsent data.
    pub max_connections: usize,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self { connect_limit: Duration::from_secs(30), max_connections: 128 }
    }
}

/// Connections and bytes of one machine: what was relayed, and what its network device carried where that is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were served.
    pub connections: u64,
    /// Connections that were refused: to nowhere, over a limit, or against the policy.
    pub refused: u64,
    /// Bytes from the guest.
    pub bytes_up: u64,
    /// Bytes to the guest.
    pub bytes_down: u64,
}

/// No network device: the guest listens on its own loopback for every allowed endpoint, and every connection is
/// relayed to exactly that endpoint.
#[derive(Debug, Clone, Default)]
pub struct RelayNetwork {
    options: RelayOptions,
}

impl RelayNetwork {
    /// A relay with these limits for every machine.
    #[must_use]
    pub fn new(options: RelayOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Network for RelayNetwork {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn describe(&self) -> String {
        "relay: jobs reach the GitLab server through Tart, and nothing else".to_owned()
    }

    async fn reserve(&self, _id: &str) -> Result<Box<dyn Reservation>, NetError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Reservation for RelayNetwork {
    fn nic(&self) -> Option<&Nic> {
        None
    }

    async fn attach(self: Box<Self>, request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError> {
        let plan = plan::plan(&request.allowed, &request.extra_hosts)?;
        Ok(Box::new(RelayAttachment::new(&request.id, plan, self.options)))
    }
}

/// A machine's relay.
#[derive(Debug)]
pub(crate) struct RelayAttachment {
    guest: GuestNetwork,
    relay: Arc<Relay>,
}

impl RelayAttachment {
    pub(crate) fn new(id: &str, plan: Plan, options: RelayOptions) -> Self {
        let Plan { hosts, listens, targets } = plan;
        let targets = targets.into_iter().map(|target| (target, Traffic::default())).collect();
        let guest = GuestNetwork { hosts, listens, ..GuestNetwork::default() };
        let relay = Relay {
            id: id.to_owned(),
            targets,
            permits: Semaphore::new(options.max_connections),
            options,
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            ended: CancellationToken::new(),
            running: TaskTracker::new(),
        };
        Self { guest, relay: Arc::new(relay) }
    }

    pub(crate) fn guest_mut(&mut self) -> &mut GuestNetwork {
        &mut self.guest
    }
}

#[async_trait]
impl Attachment for RelayAttachment {
    fn guest(&self) -> &GuestNetwork {
        &self.guest
    }

    fn relay(&self) -> Arc<dyn RelayTargets> {
        self.relay.clone()
    }

    async fn usage(&self) -> Usage {
        let carried: Vec<_> = self.relay.targets.iter().map(carried).filter(|to| to.bytes() > 0).collect();
        let counters = Counters {
            connections: self.relay.connections.load(Ordering::Relaxed),
            refused: self.relay.refused.load(Ordering::Relaxed),
            bytes_up: carried.iter().map(|to| to.bytes_up).sum(),
            bytes_down: carried.iter().map(|to| to.bytes_down).sum(),
        };
        Usage { counters, carried, ..Usage::default() }
    }

    async fn detach(self: Box<Self>) {
        self.relay.ended.cancel();
        self.relay.running.close();
        self.relay.running.wait().await;
    }
}

impl Drop for RelayAttachment {
    fn drop(&mut self) {
        self.relay.ended.cancel();
    }
}

fn carried((target, traffic): &(Target, Traffic)) -> Carried {
    Carried {
        destination: match target {
            Target::Tcp(endpoint) => endpoint.to_string(),
            Target::Service(_) => "this runner".to_owned(),
        },
        name: None,
        bytes_up: traffic.up.load(Ordering::Relaxed),
        bytes_down: traffic.down.load(Ordering::Relaxed),
    }
}

#[derive(Debug)]
struct Relay {
    id: String,
    /// What is dialled, and what passed.
    targets: Vec<(Target, Traffic)>,
    permits: Semaphore,
    options: RelayOptions,
    connections: AtomicU64,
    refused: AtomicU64,
    ended: CancellationToken,
    running: TaskTracker,
}

#[async_trait]
impl RelayTargets for Relay {
    async fn serve(&self, forward: u32, stream: tart_proto::Stream) {
        let _running = self.running.token();
        let target = usize::try_from(forward).ok().and_then(|index| self.targets.get(index));
        let Some(target) = target else { return self.refuse(stream, "nothing is forwarded here") };
        let Ok(_permit) = self.permits.try_acquire() else {
            return self.refuse(stream, "too many connections");
        };
        self.connections.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            // Dropping the stream resets it.
            () = self.ended.cancelled() => {}
            () = self.connect(&target.0, &target.1, stream) => {}
        }
    }
}

impl Relay {
    fn refuse(&self, stream: tart_proto::Stream, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        stream.split().1.reset(reason);
    }

    async fn connect(&self, target: &Target, traffic: &Traffic, stream: tart_proto::Stream) {
        match target {
            Target::Tcp(endpoint) => match dial::connect(endpoint, self.options.connect_limit).await {
                Ok(connection) => {
                    let (from, to) = connection.into_split();
                    copy::both_ways(stream, from, to, traffic).await;
                }
                Err(error) => {
                    tracing::warn!(machine = self.id, %endpoint, %error, "cannot connect for a job");
                    stream.split().1.reset(&format!("cannot connect to {endpoint}: {error}"));
                }
            },
            Target::Service(service) => {
                let (near, far) = tokio::io::duplex(SERVICE_BUFFER);
                let (from, to) = tokio::io::split(near);
                tokio::join!(service.serve(far), copy::both_ways(stream, from, to, traffic));
            }
        }
    }
}

#[cfg(test)]
mod tests;
