//! `tart run`

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use tart_config::{Config, LoadError, Loaded};
use tart_runner::PrepareOptions;
use tart_runner::daemon::{Daemon, DaemonEnd, DaemonOptions, JobExecutor, MicroVmExecutor, Order};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::{Annotate as _, Exit};
use crate::globals::Globals;
use crate::progress::Steps;
use crate::server::{config_path, system_id};
use crate::signals::end_programs;
use crate::{logging, product, rotation};

/// How often the configuration file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(3);

/// How often it is seen to tokens that expire. One that was not renewed is tried again as soon.
const ROTATION_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Ask for jobs and run them, until a signal ends it
///
/// SIGQUIT lets running jobs finish. SIGTERM and SIGINT interrupt them; a second one ends the program at once. SIGHUP
/// reads the configuration again, as a change of the file does.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Change to this directory first
    #[arg(long, short = 'd', value_name = "DIR")]
    pub(crate) working_directory: Option<PathBuf>,
}

pub(crate) async fn run(args: RunArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.working_directory {
        std::env::set_current_dir(directory)
            .with_context(|| format!("cannot change to the directory {}", directory.display()))?;
    }
    let path = config_path(args.config);
    // Before it is read: what changes while the host is prepared, which may take minutes, is read again.
    let seen = modified(&path);
    let config = read(&path, globals)?;
    let mut signals = RunSignals::listen()?;
    let options = daemon_options(Some(&path), None, None);
    let starting = start(config, options);
    let daemon = tokio::select! {
        daemon = starting => daemon?,
        signal = signals.before_start() => {
            end_programs().await;
            return Err(anyhow::anyhow!("ended by a signal ({signal}) before the first job")).exit(Exit::Interrupted);
        }
    };
    tracing::warn!(config = %path.display(), "Tart is ready for jobs");
    let (orders, inbox) = mpsc::channel(8);
    let rotating = rotate_tokens(path.clone());
    let watching = watch(path, seen, globals.clone(), signals, orders);
    tokio::select! {
        end = daemon.run(inbox) => Ok(exit_code(end)),
        never = rotating => match never {},
        second = watching => Err(anyhow::anyhow!("ended by a second signal ({second})")).exit(Exit::Interrupted),
    }
}

/// Reads the configuration, and logs as it says from now on.
pub(crate) fn read(path: &Path, globals: &Globals) -> anyhow::Result<Config> {
    load(path, globals).hint("`tart register` makes a configuration, `tart lint` checks one")
}

fn load(path: &Path, globals: &Globals) -> Result<Config, LoadError> {
    let Loaded { config, warnings } = tart_config::load(path)?;
    logging::configure(globals, &config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// `file` is where the system id is kept beside.
pub(crate) fn daemon_options(
    file: Option<&Path>,
    max_builds: Option<u64>,
    wait_timeout: Option<Duration>,
) -> DaemonOptions {
    let beside = file.map_or_else(|| config_path(None), Path::to_path_buf);
    DaemonOptions {
        system_id: system_id(&beside),
        product: product::of_jobs(),
        log_directory: std::env::temp_dir(),
        max_builds,
        wait_timeout,
    }
}

/// Prepares the host; the steps that take long are shown.
pub(crate) async fn start(config: Config, options: DaemonOptions) -> anyhow::Result<Daemon> {
    let steps = Steps::show();
    let prepare = PrepareOptions { progress: steps.clone(), agent: product::agent(), pool: true };
    let executor: Arc<dyn JobExecutor> = Arc::new(MicroVmExecutor::new(prepare));
    let started = Daemon::start(config, options, executor).await;
    steps.finish();
    match started {
        Err(error @ tart_runner::daemon::DaemonError::Host { .. }) => {
            Err(error).hint("`tart doctor` checks what a host needs").exit(Exit::Host)
        }
        started => started.hint("`tart lint` checks a configuration"),
    }
}

pub(crate) fn exit_code(end: DaemonEnd) -> ExitCode {
    tracing::warn!(builds = end.jobs, failed = end.failed, "All jobs have ended");
    if end.abandoned > 0 { Exit::Interrupted.into() } else { ExitCode::SUCCESS }
}

/// The signals that a daemon knows.
#[derive(Debug)]
pub(crate) struct RunSignals {
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Drain,
    /// By the name of the signal.
    Stop(&'static str),
    Reload,
}

impl RunSignals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal. May be dropped and called again; no signal is lost.
    pub(crate) async fn next(&mut self) -> Meaning {
        tokio::select! {
            _ = self.quit.recv() => Meaning::Drain,
            _ = self.terminate.recv() => Meaning::Stop("terminated"),
            _ = self.interrupt.recv() => Meaning::Stop("interrupt"),
            _ = self.hangup.recv() => Meaning::Reload,
        }
    }

    /// The next signal that ends the program, while there is nothing to finish and nothing to reload.
    pub(crate) async fn before_start(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Meaning::Drain => return "quit",
                Meaning::Stop(name) => return name,
                Meaning::Reload => {}
            }
        }
    }
}

/// Passes signals and changes of the file on. Ends when the program is to end at once, with the signal's name.
async fn watch(
    path: PathBuf,
    mut seen: Option<SystemTime>,
    globals: Globals,
    mut signals: RunSignals,
    orders: mpsc::Sender<Order>,
) -> &'static str {
    let mut stopping = false;
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    loop {
        let meaning = tokio::select! {
            meaning = signals.next() => meaning,
            _ = ticks.tick() => {
                let now = modified(&path);
                if now.is_none() || now == seen {
                    continue;
                }
                Meaning::Reload
            }
        };
        let order = match meaning {
            Meaning::Stop(name) if stopping => return name,
            Meaning::Stop(name) => {
                stopping = true;
                Order::Stop(name.to_owned())
            }
            Meaning::Drain => Order::Drain,
            Meaning::Reload => {
                seen = modified(&path);
                match load(&path, &globals).map_err(anyhow::Error::new) {
                    Ok(config) => Order::Reload(Box::new(config)),
                    Err(error) => {
                        tracing::error!("Configuration not loaded; the old one stays in force: {error:#}");
                        continue;
                    }
                }
            }
        };
        // If the daemon has ended, so does this, with it.
        let _ended = orders.send(order).await;
    }
}

/// Renews tokens in the file for ever. The daemon hears of new ones as of every change of the file.
async fn rotate_tokens(path: PathBuf) -> Infallible {
    let mut ticks = tokio::time::interval(ROTATION_INTERVAL);
    loop {
        ticks.tick().await;
        // What is wrong with the file is said by whoever watches it.
        let Ok(loaded) = tart_config::load(&path) else { continue };
        let now = jiff::Timestamp::now();
        if rotation::is_due(&loaded.config, now) {
            rotation::renew(&path, now).await;
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
