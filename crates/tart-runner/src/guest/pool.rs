//! Machines that have started before their jobs came.
//!
//! One task keeps as many ready as the policies say; a job takes one for itself, and its place is filled at once. No
//! machine comes back.

mod images;
mod make;
mod policy;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tart_assets::{ImageDisk, Lease, Scratch, Store};
use tart_guest::Relay;
use tart_net::{Network, RelayTargets, Reservation};
use tart_proto::message::MountStep;
use tart_proto::time::scaled;
use tart_vmm::{Driver, MachineDir, MachineSpec};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::start::Started;
use crate::host::Places;
use images::{Choice, LastImages};
use policy::Policies;

/// How long a machine may take to answer before it is taken for dead.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Policies are looked at again after this long: their periods are made of minutes.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// After a failed start, and the most after many.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What machines are made with.
#[derive(Debug)]
pub(crate) struct Factory {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) places: Places,
    /// A machine that goes on from a snapshot, without a name, a directory and a network.
    pub(crate) spec: MachineSpec,
    /// Bytes of a job's scratch disk.
    pub(crate) disk: u64,
    /// The disk of the helper tree.
    pub(crate) helper: PathBuf,
    /// Has the images that machines may have before their jobs come.
    pub(crate) store: Store,
}

/// A machine that is for no job yet. Fields are dropped in their order: the machine ends before what it uses.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) started: Started,
    pub(super) reservation: Box<dyn Reservation>,
    /// Its disk for the job: monitors open what was theirs from the beginning.
    pub(super) scratch: Scratch,
    pub(super) dir: MachineDir,
    pub(super) relay: Arc<LateRelay>,
    /// Serials of the disks that have their images.
    pub(super) inserted: Vec<String>,
    /// What is mounted.
    pub(super) mounted: Vec<MountStep>,
    /// The image that the job tree is made of already: only a job with that image may have the machine.
    pub(super) image: Option<AttachedImage>,
    /// The first shell of the image, if that is known.
    pub(super) shell: Option<&'static str>,
    since: Instant,
}

/// An image that a machine has before its job comes.
#[derive(Debug)]
pub(super) struct AttachedImage {
    pub(super) disk: ImageDisk,
    /// Keeps it in the store.
    pub(super) lease: Lease,
}

/// The machines that are ready. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    factory: Factory,
    policies: Policies,
    state: Mutex<State>,
    /// Something of the state has changed.
    changed: Notify,
    /// How many are ready.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Ready>,
    last_images: LastImages,
    running: usize,
    made: u64,
    closed: bool,
}

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.changed.notify_one();
    }
}

impl Pool {
    /// Keeps machines ready from now on, if the configuration says so.
    pub(crate) fn start(config: &tart_config::Pool, factory: Factory) -> Option<Self> {
        let policies = Policies::new(config, factory.spec.memory_bytes)?;
        let shared = Shared {
            factory,
            policies,
            state: Mutex::default(),
            changed: Notify::new(),
            count: watch::Sender::new(0),
        };
        let shared = Arc::new(shared);
        let keeper = tokio::spawn(keep(shared.clone()));
        Some(Self { shared, keeper })
    }

    /// Counts a job until the result is dropped.
    pub(crate) fn running(&self) -> Running {
        self.shared.state().running += 1;
        self.shared.changed.notify_one();
        Running(self.shared.clone())
    }

    /// Ends all machines and waits for that.
    pub(crate) async fn close(mut self) {
        self.keeper.abort();
        let _aborted = (&mut self.keeper).await;
    }

    /// How many are ready, now and later.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.shared.count.subscribe()
    }

    /// A machine that answers and has this image or none, if there is one. It belongs to the caller alone. Machines to
    /// come will have the image rather than one that no job asks for.
    pub(super) async fn take(&self, image: &ImageDisk) -> Option<Ready> {
        self.shared.note(image);
        loop {
            let Some(ready) = self.shared.pop_for(image) else {
                self.shared.changed.notify_one();
                return None;
            };
            self.shared.changed.notify_one();
            match timeout(scaled(PING_LIMIT), ready.started.guest.ping()).await {
                Ok(Ok(())) => return Some(ready),
                answer => {
                    let id = ready.started.machine.id();
                    tracing::warn!(id, ?answer, "A machine of the pool does not answer and is ended");
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.keeper.abort();
        let mut state = self.shared.state();
        state.closed = true;
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        drop(ready);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that a job with this image takes. If all have other images, the oldest may give way to another.
    fn pop_for(&self, image: &ImageDisk) -> Option<Ready> {
        let mut state = self.state();
        let waiting = state.ready.iter().map(|ready| ready.image.as_ref().map(|image| &image.disk));
        let choice = state.last_images.choose(image, &waiting.collect::<Vec<_>>());
        let (ready, given_up) = match choice {
            Choice::Take(position) => (state.ready.remove(position), None),
            Choice::GiveWay(position) => (None, state.ready.remove(position)),
            Choice::Nothing => (None, None),
        };
        self.count.send_replace(state.ready.len());
        drop(state);
        drop(given_up);
        ready
    }

    /// Remembers the image of a job. Machines wait with images of the store only: what is elsewhere may change.
    fn note(&self, image: &ImageDisk) {
        if self.factory.store.roots().any(|root| image.path.starts_with(root)) {
            self.state().last_images.note(image);
        }
    }

    /// The one that has waited longest.
    fn pop(&self) -> Option<Ready> {
        let mut state = self.state();
        let ready = state.ready.pop_front();
        self.count.send_replace(state.ready.len());
        ready
    }
}

/// Makes machines and ends those that are too many.
async fn keep(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let (running, have) = {
            let state = shared.state();
            (state.running, state.ready.len())
        };
        let target = shared.policies.target(Timestamp::now(), running);
        if have < target.idle {
            match make::machine(&shared).await {
                Ok(ready) => {
                    pause = FIRST_PAUSE;
                    let mut state = shared.state();
                    if state.closed {
                        return;
                    }
                    let machine = ready.started.machine.id().to_owned();
                    let image = ready.image.as_ref().map(|image| image.disk.digest.clone());
                    state.ready.push_back(ready);
                    shared.count.send_replace(state.ready.len());
                    tracing::debug!(
                        %machine,
                        image,
                        ready = state.ready.len(),
                        wanted = target.idle,
                        "A machine is ready for a job"
                    );
                }
                Err(error) => {
                    tracing::warn!(error, pause_s = pause.as_secs(), "A machine cannot be made ready");
                    sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
            continue;
        }
        let mut wait = LOOK_AGAIN;
        if have > target.idle {
            let oldest = shared.state().ready.front().map_or(Duration::ZERO, |ready| ready.since.elapsed());
            match target.surplus_time.checked_sub(oldest) {
                Some(left) if !left.is_zero() => wait = wait.min(left),
                _ => {
                    drop(shared.pop());
                    continue;
                }
            }
        }
        tokio::select! {
            () = shared.changed.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// The relay of a machine that has no network yet: what its guest opens before that is refused.
#[derive(Debug, Default)]
pub(super) struct LateRelay(OnceLock<Arc<dyn RelayTargets>>);

impl LateRelay {
    /// From now on connections go there.
    pub(super) fn serve_with(&self, targets: Arc<dyn RelayTargets>) {
        // A machine gets one network in its life.
        let _second = self.0.set(targets);
    }
}

#[async_trait]
impl Relay for LateRelay {
    async fn serve(&self, forward: u32, stream: tart_proto::Stream) {
        if let Some(targets) = self.0.get() {
            targets.serve(forward, stream).await;
        }
    }
}
