//! The polling loop: asks the servers of all runners for jobs and runs them, within the configured limits.
//!
//! One task owns all state ([`Daemon::run`]); polls and jobs are tasks of their own that it starts and hears of. What
//! makes a machine of a job is behind [`JobExecutor`].

mod context;
mod entry;
mod executor;
mod polling;
mod slots;
mod supervise;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tart_config::Config;
use tart_gitlab::{ApiError, RequestAnswer, SystemId};
use tart_images::chain;
use tart_job::context::Product;
use tart_objects::SettingsError;
use tart_session::{ServerOptions, Session, SessionError, SessionServer};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

pub use context::version_info;
pub use executor::{JobExecutor, MicroVmExecutor};

use crate::HostError;
use entry::{Entry, RunnerKey, RunnerState};
use slots::Slots;
use supervise::JobEnd;

/// What a daemon needs besides the configuration.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// This installation, as the servers know it.
    pub system_id: SystemId,
    /// The program.
    pub product: Product,
    /// The directory of job logs that are not sent yet; they never have a name there.
    pub log_directory: PathBuf,
    /// Ends in order after so many jobs.
    pub max_builds: Option<u64>,
    /// Ends when no job came for so long.
    pub wait_timeout: Option<Duration>,
}

/// What a daemon is told while it runs.
#[derive(Debug)]
pub enum Order {
    /// Take this configuration for all jobs to come.
    Reload(Box<Config>),
    /// Ask for no more jobs, and end when the running ones have.
    Drain,
    /// Ask for no more jobs, interrupt the running ones because of the signal of this name, and end when all servers
    /// have been told, or when `shutdown_timeout` is over.
    Stop(String),
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DaemonEnd {
    /// Jobs that were run.
    pub jobs: u64,
    /// Those of them that did not succeed.
    pub failed: u64,
    /// Jobs that were given up because the time to stop was over.
    pub abandoned: usize,
}

/// Why a daemon cannot run with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// A runner's server cannot be talked to as configured.
    #[error("the runner `{runner}` cannot be used")]
    Client {
        /// The runner's name.
        runner: String,
        /// What is wrong.
        source: ApiError,
    },
    /// A runner's caches have no place as configured.
    #[error("the caches of the runner `{runner}` cannot be used")]
    Cache {
        /// The runner's name.
        runner: String,
        /// What is wrong.
        source: SettingsError,
    },
    /// This host cannot run the jobs of a runner.
    #[error("this host cannot run the jobs of the runner `{runner}`")]
    Host {
        /// The runner's name.
        runner: String,
        /// What is wrong.
        source: HostError,
    },
    /// There is no session server as configured.
    #[error("the session server cannot be started")]
    Session(#[from] SessionError),
}

/// The end of a poll.
struct Polled {
    entry: Arc<Entry>,
    answer: RequestAnswer,
    session: Option<Session>,
}

/// A configuration that is to be adopted, if this host can run the jobs of its runners.
struct Prepared {
    config: Config,
    entries: Vec<Arc<Entry>>,
    result: Result<(), DaemonError>,
}

/// Why the daemon asks for no more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Draining,
    Stopping { until: Instant },
}

/// Asks for jobs and runs them.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    options: DaemonOptions,
    executor: Arc<dyn JobExecutor>,
    /// Serves terminals, if the configuration wants that.
    sessions: Option<SessionServer>,
    entries: Vec<Arc<Entry>>,
    states: HashMap<RunnerKey, RunnerState>,
    slots: Slots,
    /// The name of the signal by which the jobs end.
    interrupt: watch::Sender<Option<String>>,
    polls: JoinSet<Polled>,
    jobs: JoinSet<JobEnd>,
    /// The newest configuration, while this host is prepared for it.
    reloads: JoinSet<Prepared>,
    phase: Phase,
    /// The runner whose turn it is.
    turn: usize,
    next_turn: Instant,
    last_job: Instant,
    end: DaemonEnd,
}

impl Daemon {
    /// Prepares this host for the jobs of all runners. Without any, the daemon waits for a configuration that has some.
    ///
    /// # Errors
    /// The configuration or the host does not allow a runner's jobs to run.
    pub async fn start(
        config: Config,
        options: DaemonOptions,
        executor: Arc<dyn JobExecutor>,
    ) -> Result<Self, DaemonError> {
        let sessions = session_server(&config).await?;
        let entries = entry::all(&config, &options, &[])?;
        entry::prepare(&entries, &*executor).await?;
        if entries.is_empty() {
            tracing::warn!("No runner is configured yet; waiting for a configuration with one");
        }
        let now = Instant::now();
        let mut daemon = Self {
            config,
            options,
            executor,
            sessions,
            entries,
            states: HashMap::new(),
            slots: Slots::default(),
            interrupt: watch::Sender::new(None),
            polls: JoinSet::new(),
            jobs: JoinSet::new(),
            reloads: JoinSet::new(),
            phase: Phase::Running,
            turn: 0,
            next_turn: now,
            last_job: now,
            end: DaemonEnd::default(),
        };
        daemon.reset_states();
        Ok(daemon)
    }

    /// Works until an order, or a limit of the options, ends it. When `orders` closes, the last order stays in force.
    ///
    /// Dropping the future ends all jobs at once; nothing of them stays on this host, but no server is told.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> DaemonEnd {
        let mut listening = true;
        while !self.is_over() {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                order = orders.recv(), if listening => match order {
                    Some(order) => self.obey(order),
                    None => listening = false,
                },
                Some(ended) = self.jobs.join_next() => self.job_ended(ended),
                Some(polled) = self.polls.join_next() => self.polled(polled),
                Some(prepared) = self.reloads.join_next() => self.prepared(prepared).await,
                () = tokio::time::sleep_until(self.next_turn), if self.phase == Phase::Running => self.take_turn(),
                () = wait_until(deadline) => self.time_is_over(),
            }
        }
        self.end.abandoned = self.jobs.len();
        if self.end.abandoned > 0 {
            tracing::error!(builds = self.end.abandoned, "Shutdown timeout exceeded; jobs are abandoned");
        }
        self.polls.shutdown().await;
        self.jobs.shutdown().await;
        self.reloads.shutdown().await;
        self.end
    }

    fn is_over(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            // A poll may have brought a job just before it was ended.
            Phase::Draining => self.jobs.is_empty() && self.polls.is_empty(),
            Phase::Stopping { until } => {
                (self.jobs.is_empty() && self.polls.is_empty()) || until <= Instant::now()
            }
        }
    }

    /// When [`Self::time_is_over`] has something to do.
    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping { until } => Some(until),
            Phase::Draining => None,
            Phase::Running => {
                let idle = self.jobs.is_empty().then_some(self.options.wait_timeout).flatten();
                idle.map(|limit| after(self.last_job, limit))
            }
        }
    }

    fn time_is_over(&mut self) {
        if self.phase == Phase::Running {
            tracing::info!("No job came within the wait timeout");
            self.drain();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Reload(config) => self.reload(*config),
            Order::Drain => {
                tracing::info!(builds = self.jobs.len(), "Graceful shutdown: waiting for running jobs");
                self.drain();
            }
            Order::Stop(signal) => {
                let timeout = self.config.shutdown_timeout;
                tracing::warn!(
                    "StopSignal" = signal.as_str(),
                    builds = self.jobs.len(),
                    "Forceful shutdown: interrupting running jobs"
                );
                self.polls.abort_all();
                self.phase = Phase::Stopping { until: after(Instant::now(), timeout) };
                self.interrupt.send_replace(Some(signal));
            }
        }
    }

    fn drain(&mut self) {
        self.polls.abort_all();
        if self.phase == Phase::Running {
            self.phase = Phase::Draining;
        }
    }

    /// Prepares this host for a new configuration, which may take minutes, while the old one stays in force.
    fn reload(&mut self, config: Config) {
        let entries = match entry::all(&config, &self.options, &self.entries) {
            Ok(entries) => entries,
            Err(error) => return not_loaded(&error),
        };
        self.reloads.abort_all();
        let executor = Arc::clone(&self.executor);
        self.reloads.spawn(async move {
            let result = entry::prepare(&entries, &*executor).await;
            Prepared { config, entries, result }
        });
    }

    async fn prepared(&mut self, prepared: Result<Prepared, JoinError>) {
        let Prepared { config, entries, result } = match prepared {
            Ok(prepared) => prepared,
            // A newer one has come.
            Err(error) if error.is_cancelled() => return,
            Err(error) => return not_loaded(&error),
        };
        if let Err(error) = result {
            return not_loaded(&error);
        }
        let runners: Vec<_> = entries.iter().map(|entry| Arc::clone(&entry.runner)).collect();
        self.executor.keep_only(&runners).await;
        if server_options(&config) != server_options(&self.config) {
            tracing::warn!("Addresses of `[session_server]` are changed by a restart only");
        }
        self.config = config;
        self.entries = entries;
        self.turn = 0;
        self.next_turn = Instant::now();
        self.reset_states();
        tracing::info!(runners = self.entries.len(), "Configuration loaded");
    }

    /// Forgets how healthy the runners were, not what they do.
    fn reset_states(&mut self) {
        for entry in &self.entries {
            let old = self.states.remove(&entry.key);
            self.states.insert(entry.key.clone(), RunnerState::new(&entry.runner, old.as_ref()));
        }
        let known = |key: &RunnerKey| self.entries.iter().any(|entry| entry.key == *key);
        self.states.retain(|key, state| known(key) || state.is_busy());
    }
}

/// What the configuration says of the session server; `None` without one.
fn server_options(config: &Config) -> Option<ServerOptions> {
    let tart_config::SessionServer { listen_address, advertise_address, .. } = &config.session_server;
    Some(ServerOptions {
        listen_address: listen_address.clone().filter(|address| !address.is_empty())?,
        advertise_address: advertise_address.clone().filter(|address| !address.is_empty()),
    })
}

async fn session_server(config: &Config) -> Result<Option<SessionServer>, SessionError> {
    let Some(options) = server_options(config) else { return Ok(None) };
    let server = SessionServer::start(&options).await?;
    tracing::info!(address = %server.address(), "Session server listening");
    Ok(Some(server))
}

fn not_loaded(error: &dyn std::error::Error) {
    tracing::error!(error = chain(error), "Configuration not loaded; the old one stays in force");
}

/// So long after `start`; a time that clocks cannot tell is a century away.
fn after(start: Instant, time: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    start + time.min(CENTURY)
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
