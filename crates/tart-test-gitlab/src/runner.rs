//! Runners: what the server knows of them, and their handles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::state::{Shared, State, random_hex};

/// How a runner is created, as on the page "New instance runner".
#[derive(Clone, Debug)]
pub struct RunnerOptions {
    description: String,
    tags: BTreeSet<String>,
    run_untagged: bool,
    paused: bool,
    expires_in: Option<Duration>,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            description: "test runner".into(),
            tags: BTreeSet::new(),
            run_untagged: true,
            paused: false,
            expires_in: None,
        }
    }
}

impl RunnerOptions {
    /// The name shown for the runner.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Adds tags; the runner takes jobs whose tags it all has.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Whether jobs without tags are taken; the default is yes.
    pub fn run_untagged(mut self, yes: bool) -> Self {
        self.run_untagged = yes;
        self
    }

    /// Creates the runner paused: it is answered 204 for ever.
    pub fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// Gives the token an expiry, so that a runner rotates it.
    pub fn token_expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(time);
        self
    }
}

/// A runner as the server knows it.
#[derive(Clone, Debug)]
pub struct Runner {
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) token_prefix: &'static str,
    pub(crate) description: String,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) run_untagged: bool,
    pub(crate) paused: bool,
    pub(crate) orphaned: bool,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) expires_at: Option<SystemTime>,
    /// `info` of the last contact by system id.
    pub(crate) managers: BTreeMap<String, Value>,
}

impl Runner {
    /// The number of the runner.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The authentication token of now.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The name shown for the runner.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The system ids that used the token, each with the `info` it sent last.
    pub fn managers(&self) -> &BTreeMap<String, Value> {
        &self.managers
    }

    /// The answer to registration, verification and reset.
    pub(crate) fn credentials(&self) -> Value {
        let expires_at = self
            .expires_at
            .map(|at| jiff::Timestamp::try_from(at).expect("an expiry is near the present").to_string());
        json!({ "id": self.id, "token": self.token, "token_expires_at": expires_at })
    }

    /// Replaces the token; the old one is worthless at once.
    pub(crate) fn rotate(&mut self) {
        self.token = new_token(self.token_prefix);
        self.expires_at = self.expires_in.map(|time| SystemTime::now() + time);
    }
}

fn new_token(prefix: &str) -> String {
    format!("{prefix}{}", &random_hex()[..20])
}

/// Creates a runner whose token starts with `token_prefix`.
pub(crate) fn create(state: &mut State, options: RunnerOptions, token_prefix: &'static str) -> u64 {
    let id = state.next_id();
    let mut runner = Runner {
        id,
        token: String::new(),
        token_prefix,
        description: options.description,
        tags: options.tags,
        run_untagged: options.run_untagged,
        paused: options.paused,
        orphaned: false,
        expires_in: options.expires_in,
        expires_at: None,
        managers: BTreeMap::new(),
    };
    runner.rotate();
    state.runners.insert(id, runner);
    id
}

/// Control over one runner.
#[derive(Clone, Debug)]
pub struct RunnerHandle {
    shared: Arc<Shared>,
    id: u64,
}

impl RunnerHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id }
    }

    /// The number of the runner.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The authentication token of now.
    ///
    /// # Panics
    /// When the runner was deleted.
    pub fn token(&self) -> String {
        self.get().expect("the runner was deleted").token
    }

    /// The runner as the server knows it now; `None` once it was deleted.
    pub fn get(&self) -> Option<Runner> {
        self.shared.read(|state| state.runners.get(&self.id).cloned())
    }

    /// Answers the runner 204 whatever waits for it.
    pub fn pause(&self) {
        self.change(|runner| runner.paused = true);
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) {
        self.change(|runner| runner.paused = false);
    }

    /// Takes the runner's last project away: it is answered 422.
    pub fn orphan(&self) {
        self.change(|runner| runner.orphaned = true);
    }

    /// Deletes the runner: its token is answered 403.
    pub fn delete(&self) {
        self.shared.update(|state| {
            state.runners.remove(&self.id);
            state.tick_queue();
        });
    }

    fn change(&self, change: impl FnOnce(&mut Runner)) {
        self.shared.update(|state| {
            if let Some(runner) = state.runners.get_mut(&self.id) {
                change(runner);
            }
            state.tick_queue();
        });
    }
}
