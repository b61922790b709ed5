//! Starting a machine until its agent has answered.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tart_guest::{Guest, Relay};
use tart_net::RelayTargets;
use tart_proto::message::Hello;
use tart_vmm::{Driver, Machine, MachineSpec, Origin, Snapshot, VmmError, await_boot};
use tokio::time::Instant;

use super::{layout, rehearsal};
use crate::HostSetup;

/// How a guest came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Its kernel booted.
    Booted,
    /// It went on from a snapshot.
    Restored,
    /// It did so before the job came.
    Pooled,
}

impl Start {
    /// For `The microVM was ... in 1 s`.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::Restored => "restored",
            Self::Pooled => "taken from the pool",
        }
    }
}

/// A machine whose agent has answered. The session ends before the machine.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) guest: Guest,
    pub(super) machine: Box<dyn Machine>,
    pub(super) hello: Hello,
    /// From the start of the monitor until the agent was ready.
    pub(super) took: Duration,
}

/// Starts a machine. Nothing of it is left after an error.
pub(super) async fn start(
    driver: &dyn Driver,
    spec: &MachineSpec,
    relay: Arc<dyn Relay>,
) -> Result<Started, VmmError> {
    let begin = Instant::now();
    let machine = driver.start(spec).await?;
    let restored = matches!(spec.origin, Origin::Snapshot(_));
    let connect = async {
        let mut attempts = if restored { RECONNECTS } else { 0 };
        loop {
            match connect(&*machine, relay.clone(), spec.boot_limit, restored).await {
                Err(error) if attempts > 0 => tracing::debug!(error, "the agent is connected to again"),
                connected => return connected,
            }
            attempts -= 1;
        }
    };
    let (guest, hello) = await_boot(&*machine, spec.boot_limit, connect).await?;
    Ok(Started { guest, machine, hello, took: begin.elapsed() })
}

/// How often a connection to a guest that goes on from a snapshot is made anew. The guest is told that all its connections
/// are gone, and may hear of the first new one before it hears of that.
const RECONNECTS: u32 = 3;

async fn connect(
    machine: &dyn Machine,
    relay: Arc<dyn Relay>,
    limit: Duration,
    restored: bool,
) -> Result<(Guest, Hello), String> {
    let stream = machine.connect_agent().await.map_err(|error| error.to_string())?;
    // The limit is the boot's; its error also shows the console.
    let (guest, hello) =
        Guest::connect(stream, relay, limit.saturating_mul(2)).await.map_err(|error| error.to_string())?;
    if restored {
        // By its answer the guest has handled all that waited for it when it went on.
        guest.ping().await.map_err(|error| error.to_string())?;
    }
    Ok((guest, hello))
}

/// Boots a guest that is for no job, mounts and runs what every job needs, and saves it.
pub(crate) async fn save_template(setup: &HostSetup, spec: &MachineSpec) -> Result<Snapshot, String> {
    let started = start(&*setup.driver, spec, Arc::new(tart_guest::NoRelay)).await;
    let Started { guest, machine, .. } = started.map_err(|error| error.to_string())?;
    let mut steps = layout::template_mounts(&setup.boot.helper);
    steps.push(layout::rehearsal_mount());
    guest.mount(&steps).await.map_err(|error| error.to_string())?;
    rehearsal::of_helper(&guest, rehearsal::TOOLS).await?;
    drop(guest);
    machine.save().await.map_err(|error| error.to_string())
}

/// Hands forwarded connections on to the network.
pub(super) struct HostRelay(pub(super) Arc<dyn RelayTargets>);

#[async_trait]
impl Relay for HostRelay {
    async fn serve(&self, forward: u32, stream: tart_proto::Stream) {
        self.0.serve(forward, stream).await;
    }
}
