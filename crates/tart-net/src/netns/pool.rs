//! Namespaces that are made before guests need them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{host::Host, space::Space, system};
use crate::NetError;

/// Namespaces for guests to come.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Dropped before the host, which they are links of.
    ready: Mutex<Ready>,
    host: Arc<Host>,
    /// Monitors open the devices by name.
    named_taps: bool,
}

#[derive(Debug)]
struct Ready {
    spaces: Vec<Space>,
    wanted: usize,
    /// A thread makes more.
    filling: bool,
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes as many namespaces as are wanted.
    fn fill(&self) {
        loop {
            let mut ready = self.ready();
            if ready.spaces.len() >= ready.wanted {
                ready.filling = false;
                return;
            }
            drop(ready);
            match Space::create_here(self.host.clone(), self.named_taps) {
                Ok(space) => self.ready().spaces.push(space),
                Err(error) => {
                    tracing::warn!(%error, "cannot prepare a network for the next guest");
                    self.ready().filling = false;
                    return;
                }
            }
        }
    }
}

impl Pool {
    /// One that keeps so many ready as soon as the first was taken.
    pub(super) fn new(host: Arc<Host>, named_taps: bool, wanted: usize) -> Self {
        let ready = Mutex::new(Ready { spaces: Vec::new(), wanted, filling: false });
        Self { shared: Arc::new(Shared { ready, host, named_taps }) }
    }

    /// Makes a first one, which proves that it can be done.
    pub(super) async fn prove(&self) -> Result<(), NetError> {
        let first = self.create().await?;
        self.shared.ready().spaces.push(first);
        Ok(())
    }

    /// The host that they are of.
    pub(super) fn host(&self) -> &Host {
        &self.shared.host
    }

    /// A namespace that no guest has used.
    pub(super) async fn take(&self) -> Result<Space, NetError> {
        let ready = self.shared.ready().spaces.pop();
        let space = match ready {
            Some(space) => space,
            None => self.create().await?,
        };
        self.refill()?;
        Ok(space)
    }

    async fn create(&self) -> Result<Space, NetError> {
        Space::create(self.shared.host.clone(), self.shared.named_taps).await
    }

    /// Makes namespaces for the next guests, on a thread.
    fn refill(&self) -> Result<(), NetError> {
        let mut ready = self.shared.ready();
        if ready.filling {
            return Ok(());
        }
        let (shared, at_work) = (self.shared.clone(), self.shared.host.busy.begin());
        system::spawn(move || {
            shared.fill();
            drop(shared);
            drop(at_work);
        })?;
        ready.filling = true;
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A thread that the process's end cut short could not undo what was done to the host.
        self.shared.ready().wanted = 0;
        self.shared.host.busy.wait();
    }
}
