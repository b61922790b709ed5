//! What the server knows, behind one lock, and the notice of every change.

use std::collections::{BTreeMap, HashSet};
use std::panic::Location;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;

use crate::faults::Faults;
use crate::git::Project;
use crate::history::Request;
use crate::job::Job;
use crate::runner::Runner;
use crate::settings::Settings;

/// Everything the server knows at one moment, as seen by [`crate::TestGitlab::wait_for`].
#[derive(Debug)]
pub struct State {
    pub(crate) runners: BTreeMap<u64, Runner>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) projects: BTreeMap<u64, Project>,
    pub(crate) requests: Vec<Request>,
    pub(crate) violations: Vec<String>,
    /// The `X-GitLab-Last-Update` value of now; replaced whenever a runner may find something new.
    pub(crate) queue: String,
    /// Every value ever given out, to notice a client that makes one up.
    pub(crate) issued: HashSet<String>,
    pub(crate) registration_enabled: bool,
    /// Seconds of `X-GitLab-Trace-Update-Interval`.
    pub(crate) update_interval: u64,
    /// Artifacts by the name in their storage URL: file name and bytes.
    pub(crate) storage: BTreeMap<String, (String, bytes::Bytes)>,
    last_id: u64,
}

impl State {
    fn new(settings: &Settings) -> Self {
        let queue = random_hex();
        Self {
            runners: BTreeMap::new(),
            jobs: BTreeMap::new(),
            projects: BTreeMap::new(),
            requests: Vec::new(),
            violations: Vec::new(),
            issued: HashSet::from([queue.clone()]),
            queue,
            registration_enabled: true,
            update_interval: settings.update_interval,
            storage: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// All jobs in the order of their creation.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// The job with this id.
    pub fn job(&self, id: u64) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// All runners in the order of their creation.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Every breach of the protocol so far.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// A number no other object of this server has.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Makes held polls answer and remembered `last_update` values stale.
    pub(crate) fn tick_queue(&mut self) {
        self.queue = random_hex();
        self.issued.insert(self.queue.clone());
    }

    pub(crate) fn runner_by_token(&self, token: &str) -> Option<&Runner> {
        self.runners.values().find(|runner| runner.token == token)
    }

    /// The job this token belongs to, if it runs now.
    pub(crate) fn running_job_by_token(&self, token: &str) -> Option<&Job> {
        self.jobs.values().find(|job| job.token == token && job.state.is_active())
    }
}

/// The state with its lock, and the parts that never change.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    pub(crate) settings: Settings,
    pub(crate) faults: Faults,
    /// Bare repositories and LFS objects; removed with the server.
    pub(crate) root: TempDir,
}

impl Shared {
    pub(crate) fn new(settings: Settings, root: TempDir) -> Self {
        Self {
            state: Mutex::new(State::new(&settings)),
            changes: watch::Sender::new(0),
            settings,
            faults: Faults::default(),
            root,
        }
    }

    /// A panicking test must not hide its message behind a poisoned lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state and wakes everyone who waits.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        result
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns what `look` found as soon as it finds something; never polls.
    pub(crate) async fn wait_until<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if let Some(found) = self.read(&mut look) {
                return found;
            }
            changes.changed().await.expect("self owns the sender");
        }
    }

    /// [`Self::wait_until`] with a deadline, at which it panics with what `describe` says.
    pub(crate) async fn wait_or_panic<T>(
        &self,
        timeout: Duration,
        caller: &Location<'_>,
        look: impl FnMut(&State) -> Option<T>,
        describe: impl FnOnce(&State) -> String,
    ) -> T {
        let timeout = on_this_host(timeout);
        match tokio::time::timeout(timeout, self.wait_until(look)).await {
            Ok(found) => found,
            Err(_) => {
                let story = self.read(describe);
                panic!("{caller}: nothing after {timeout:?}: {story}");
            }
        }
    }
}

/// 32 random hexadecimal digits.
pub(crate) fn random_hex() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A time limit of a test, longer on a slow host by the factor of `TART_TIME_FACTOR`.
pub(crate) fn on_this_host(limit: Duration) -> Duration {
    let factor = std::env::var("TART_TIME_FACTOR").ok().and_then(|text| text.parse::<f64>().ok());
    limit.mul_f64(factor.filter(|factor| factor.is_finite()).unwrap_or(1.0).clamp(1.0, 1000.0))
}
