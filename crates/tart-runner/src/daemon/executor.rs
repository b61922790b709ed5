//! What runs the jobs that the daemon gets.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tart_config::{MicroVm, Runner};
use tart_gitlab::LogWriter;
use tart_job::outcome::{Failure, Verdict};
use tokio::sync::{Mutex, watch};

use crate::{
    HostError, HostSetup, JobLogSink, JobObserver, JobReport, JobRun, JobSignal, JobUsage, PrepareOptions,
    Timings, run_job, run_root,
};

/// Runs jobs. The daemon's tests have one without machines.
#[async_trait]
pub trait JobExecutor: fmt::Debug + Send + Sync {
    /// Prepares this host for the jobs of a runner. Called before its first job, and again with every configuration.
    ///
    /// # Errors
    /// What is missing on this host.
    async fn prepare(&self, runner: &Runner) -> Result<(), HostError>;

    /// Lets go of what only other runners need. Jobs that run keep what they use.
    async fn keep_only(&self, runners: &[Arc<Runner>]);

    /// Runs a job of a prepared runner to its end, with its log in `log`.
    async fn run(
        &self,
        run: JobRun,
        log: LogWriter,
        signal: watch::Receiver<JobSignal>,
        observer: &dyn JobObserver,
    ) -> JobReport;
}

/// Runs every job in a machine of its own.
pub struct MicroVmExecutor {
    options: PrepareOptions,
    setups: Mutex<Vec<Arc<HostSetup>>>,
    /// Where leftovers of dead runners have been removed already.
    reaped: Mutex<BTreeSet<PathBuf>>,
}

impl fmt::Debug for MicroVmExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MicroVmExecutor").finish_non_exhaustive()
    }
}

impl MicroVmExecutor {
    /// Nothing is prepared yet.
    #[must_use]
    pub fn new(options: PrepareOptions) -> Self {
        Self { options, setups: Mutex::default(), reaped: Mutex::default() }
    }

    async fn setup(&self, config: &MicroVm) -> Option<Arc<HostSetup>> {
        self.setups.lock().await.iter().find(|setup| setup.config == *config).cloned()
    }

    /// Ends what a killed runner left, once for each place.
    async fn reap(&self, config: &MicroVm) -> Result<(), HostError> {
        let root = run_root(config);
        if !self.reaped.lock().await.insert(root.clone()) {
            return Ok(());
        }
        let reaped = tokio::task::spawn_blocking(move || tart_vmm::reap(&root));
        let reaped = reaped.await.map_err(|_| HostError::Interrupted)??;
        if !reaped.dirs.is_empty() {
            let (processes, directories) = (reaped.processes.len(), reaped.dirs.len());
            tracing::warn!(processes, directories, "Removed what a runner left that was killed");
        }
        for problem in reaped.problems {
            tracing::error!("{problem}");
        }
        Ok(())
    }
}

#[async_trait]
impl JobExecutor for MicroVmExecutor {
    async fn prepare(&self, runner: &Runner) -> Result<(), HostError> {
        let config = &runner.microvm;
        if self.setup(config).await.is_some() {
            return Ok(());
        }
        self.reap(config).await?;
        let setup = HostSetup::prepare(config, self.options.clone()).await?;
        for line in setup.describe() {
            tracing::info!(runner_name = runner.display_name(), "{line}");
        }
        self.setups.lock().await.push(Arc::new(setup));
        Ok(())
    }

    async fn keep_only(&self, runners: &[Arc<Runner>]) {
        let needed = |setup: &Arc<HostSetup>| runners.iter().any(|runner| runner.microvm == setup.config);
        self.setups.lock().await.retain(needed);
    }

    async fn run(
        &self,
        run: JobRun,
        log: LogWriter,
        signal: watch::Receiver<JobSignal>,
        observer: &dyn JobObserver,
    ) -> JobReport {
        let setup = match self.setup(&run.runner.microvm).await {
            Some(setup) => Ok(setup),
            // Its configuration was replaced while it was on its way here. Nobody keeps this one.
            None => HostSetup::prepare(&run.runner.microvm, self.options.clone()).await.map(Arc::new),
        };
        match setup {
            Ok(setup) => run_job(&setup, run, TraceSink(log), signal, observer).await,
            Err(error) => JobReport {
                verdict: Verdict::Failed(Failure::system(format!("this host cannot run the job: {error}"))),
                timings: Timings::default(),
                usage: JobUsage::default(),
            },
        }
    }
}

/// The log on its way to the server. It takes everything at once: what is not sent yet is in a file.
struct TraceSink(LogWriter);

#[async_trait]
impl JobLogSink for TraceSink {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}
