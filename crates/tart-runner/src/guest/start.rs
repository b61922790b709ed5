//! Starting a machine until its agent has answered.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tart_guest::{Guest, GuestError, Relay};
use tart_net::RelayTargets;
use tart_proto::message::Hello;
use tart_vmm::{Driver, Machine, MachineSpec, Origin, Snapshot, VmmError, await_boot};
use tokio::time::Instant;

use super::{layout, rehearsal};
use crate::HostSetup;

/// How often a guest that goes on from a snapshot is connected to. Before Firecracker 1.16, it may hear of the new
/// connection first, and then that all its connections are gone.
const RESTORED_ATTEMPTS: u32 = 5;

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
    let attempts = if restored { RESTORED_ATTEMPTS } else { 1 };
    let attempt = || async {
        let stream = machine.connect_agent().await.map_err(|error| error.to_string())?;
        // The limit is the boot's; its error also shows the console.
        let connected = Guest::connect(stream, relay.clone(), spec.boot_limit.saturating_mul(2)).await;
        Ok(match connected {
            // By its answer the guest has handled all that waited for it when it went on.
            Ok((guest, hello)) if restored => guest.ping().await.map(|()| (guest, hello)),
            connected => connected,
        })
    };
    let connect = unless_lost(attempts, attempt);
    let (guest, hello) = await_boot(&*machine, spec.boot_limit, connect).await?;
    Ok(Started { guest, machine, hello, took: begin.elapsed() })
}

/// Connects again for as long as the connection is lost before the agent has greeted, but not more often than that.
async fn unless_lost<T, F>(attempts: u32, connect: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<Result<T, GuestError>, String>>,
{
    let mut attempt = 1;
    loop {
        match connect().await? {
            Err(error) if error.is_lost() && attempt < attempts => attempt += 1,
            connected => return connected.map_err(|error| error.to_string()),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn connected(attempts: u32, lost: u32, then: Result<u8, GuestError>) -> (Result<u8, String>, u32) {
        let made = Cell::new(0);
        let connect = || {
            made.set(made.get() + 1);
            let cut = Err(GuestError::Lost { reason: "reset".to_owned() });
            std::future::ready(Ok(if made.get() > lost { then.clone() } else { cut }))
        };
        let connected = unless_lost(attempts, connect).await;
        (connected, made.get())
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_is_made_again_but_not_for_ever() {
        assert_eq!(connected(5, 4, Ok(7)).await, (Ok(7), 5));
        let (lost, made) = connected(5, 9, Ok(7)).await;
        assert!(lost.unwrap_err().contains("lost: reset") && made == 5);
        assert_eq!(connected(1, 1, Ok(7)).await.1, 1, "a guest that boots has one");
        let late = GuestError::Timeout { what: "come up", limit: Duration::ZERO };
        assert_eq!(connected(5, 0, Err(late)).await.1, 1, "one that does not answer is not asked again");
    }
}
