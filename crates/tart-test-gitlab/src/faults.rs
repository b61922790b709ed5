//! Faults on request: what goes wrong, where, and how often.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// The calls a fault can be set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST runners`
    Register,
    /// `POST runners/verify`
    Verify,
    /// `DELETE runners`
    DeleteRunner,
    /// `DELETE runners/managers`
    DeleteManager,
    /// `POST runners/reset_authentication_token` and `POST runners/:id/reset_authentication_token`
    ResetToken,
    /// `POST jobs/request`
    RequestJob,
    /// Every `PUT jobs/:id`, the final one included
    UpdateJob,
    /// `PUT jobs/:id` with the state `success` or `failed`
    FinalUpdate,
    /// `PATCH jobs/:id/trace`
    Trace,
    /// `POST jobs/:id/artifacts`
    UploadArtifacts,
    /// `GET jobs/:id/artifacts`
    DownloadArtifacts,
    /// The origin artifacts are redirected to
    Storage,
    /// Git over HTTP
    Git,
    /// The LFS batch call and its objects
    Lfs,
}

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers this status with a JSON message; the request has no effect. A 412 for a final update also
    /// lets the client send the log again from its start.
    Status(u16),
    /// A status with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// A status with `RateLimit-ResetTime` this far in the future.
    RateLimitReset(u16, Duration),
    /// A status with a `Location`.
    Redirect(u16, String),
    /// Cuts the connection; the request has no effect.
    Drop,
    /// Handles the request, then cuts the connection instead of answering.
    DropAnswer,
    /// Handles the request, sends the head and half of the body of the answer and resets the connection.
    ResetMidBody,
    /// Handles the request once the gate is released.
    Hold(Gate),
    /// Loses the stored log from this byte on, then handles the request.
    TruncateTrace(usize),
    /// Says 200 or 201 with JSON that ends in the middle; the request has no effect.
    BadJson,
    /// Says 200 or 201 with a page of HTML, as a captive portal does; the request has no effect.
    Html,
    /// Says 200 or 201 with a JSON string of this many bytes; the request has no effect.
    HugeBody(usize),
}

/// Holds requests until a test lets them through.
#[derive(Clone, Debug)]
pub struct Gate {
    arrived: Arc<watch::Sender<usize>>,
    released: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { arrived: Arc::new(watch::Sender::new(0)), released: Arc::new(watch::Sender::new(false)) }
    }
}

impl Gate {
    /// Waits until `count` requests have reached the gate.
    ///
    /// # Panics
    /// After `timeout`.
    #[track_caller]
    pub fn arrived(&self, count: usize, timeout: Duration) -> impl Future<Output = ()> + use<> {
        let caller = std::panic::Location::caller();
        let arrived = Arc::clone(&self.arrived);
        async move {
            let mut receiver = arrived.subscribe();
            let timeout = crate::state::on_this_host(timeout);
            let waited = tokio::time::timeout(timeout, receiver.wait_for(|seen| *seen >= count)).await;
            if waited.is_err() {
                panic!("{caller}: {} of {count} requests at the gate after {timeout:?}", *arrived.borrow());
            }
        }
    }

    /// Lets everyone through, now and later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub(crate) async fn pass(&self) {
        self.arrived.send_modify(|seen| *seen += 1);
        let mut released = self.released.subscribe();
        released.wait_for(|released| *released).await.expect("self owns the sender");
    }
}

#[derive(Debug, Default)]
struct Script {
    next: HashMap<Endpoint, VecDeque<Fault>>,
    always: HashMap<Endpoint, Fault>,
}

/// The faults to come, by endpoint.
#[derive(Debug, Default)]
pub struct Faults {
    script: Mutex<Script>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a fault for the next request to an endpoint, after those set before.
    pub fn next(&self, endpoint: Endpoint, fault: Fault) {
        self.times(1, endpoint, fault);
    }

    /// Sets the same fault for the next `count` requests.
    pub fn times(&self, count: usize, endpoint: Endpoint, fault: Fault) {
        let mut script = self.lock();
        script.next.entry(endpoint).or_default().extend(std::iter::repeat_n(fault, count));
    }

    /// Sets a fault for every request, until [`Self::clear`].
    pub fn always(&self, endpoint: Endpoint, fault: Fault) {
        self.lock().always.insert(endpoint, fault);
    }

    /// Holds the next request to an endpoint until the gate is released.
    pub fn hold(&self, endpoint: Endpoint) -> Gate {
        let gate = Gate::default();
        self.next(endpoint, Fault::Hold(gate.clone()));
        gate
    }

    /// Forgets what was set for an endpoint.
    pub fn clear(&self, endpoint: Endpoint) {
        let mut script = self.lock();
        script.next.remove(&endpoint);
        script.always.remove(&endpoint);
    }

    /// How many faults set by [`Self::next`] and [`Self::times`] have not happened yet.
    pub fn pending(&self) -> usize {
        self.lock().next.values().map(VecDeque::len).sum()
    }

    pub(crate) fn take(&self, endpoint: Endpoint) -> Option<Fault> {
        let mut script = self.lock();
        let scripted = script.next.get_mut(&endpoint).and_then(VecDeque::pop_front);
        scripted.or_else(|| script.always.get(&endpoint).cloned()).or_else(|| match endpoint {
            Endpoint::FinalUpdate => {
                let scripted = script.next.get_mut(&Endpoint::UpdateJob).and_then(VecDeque::pop_front);
                scripted.or_else(|| script.always.get(&Endpoint::UpdateJob).cloned())
            }
            _ => None,
        })
    }
}
