//! A daemon, its orders, and an executor whose jobs do what the test says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tart_config::{Config, Runner, Secret};
use tart_gitlab::{LogWriter, SystemId};
use tart_job::context::Product;
use tart_job::outcome::{Failure, Verdict};
use tart_test_gitlab::{RunnerHandle, TestGitlab};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::daemon::{Daemon, DaemonEnd, DaemonError, DaemonOptions, JobExecutor, Order};
use crate::{HostError, JobObserver, JobReport, JobRun, JobSignal, JobUsage, Timings};

/// Far more than anything takes.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// The name of a runner whose jobs this host cannot run.
pub(super) const IMPOSSIBLE: &str = "impossible";

/// A job that waits for the test to say how it ends.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) run: JobRun,
    end: oneshot::Sender<Verdict>,
}

impl Running {
    pub(super) fn succeed(self) {
        self.end.send(Verdict::Success).expect("the job waits");
    }

    pub(super) fn fail(self, failure: Failure) {
        self.end.send(Verdict::Failed(failure)).expect("the job waits");
    }

    /// Lets the executor panic.
    pub(super) fn panic(self) {
        drop(self.end);
    }
}

/// Runs no machines.
#[derive(Debug)]
pub(super) struct Scripted {
    started: mpsc::UnboundedSender<Running>,
    refused: Arc<Notify>,
}

impl Scripted {
    /// With the jobs that begin, and word of runners that are refused.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Running>, Arc<Notify>) {
        let (started, receiver) = mpsc::unbounded_channel();
        let refused = Arc::new(Notify::new());
        (Self { started, refused: Arc::clone(&refused) }, receiver, refused)
    }
}

#[async_trait]
impl JobExecutor for Scripted {
    async fn prepare(&self, runner: &Runner) -> Result<(), HostError> {
        if runner.name == IMPOSSIBLE {
            self.refused.notify_one();
            return Err(HostError::Interrupted);
        }
        Ok(())
    }

    async fn keep_only(&self, _runners: &[Arc<Runner>]) {}

    async fn run(
        &self,
        run: JobRun,
        log: LogWriter,
        mut signal: watch::Receiver<JobSignal>,
        _observer: &dyn JobObserver,
    ) -> JobReport {
        log.write(format!("job {} begins\n", run.payload.id).as_bytes());
        let (end, ended) = oneshot::channel();
        // A test that has ended hears of no more jobs.
        let _test_is_over = self.started.send(Running { run, end });
        let verdict = tokio::select! {
            verdict = ended => verdict.expect("the test decides"),
            signal = signal.wait_for(|signal| *signal != JobSignal::None) => {
                let signal = signal.expect("the daemon outlives its jobs").clone();
                Verdict::Failed(match signal {
                    JobSignal::Interrupt(name) => Failure::Interrupted(name),
                    JobSignal::Abort => Failure::Aborted,
                    _ => Failure::Canceled,
                })
            }
        };
        JobReport { verdict, timings: Timings::default(), usage: JobUsage::default() }
    }
}

/// A daemon at work.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) orders: mpsc::Sender<Order>,
    started: mpsc::UnboundedReceiver<Running>,
    refused: Arc<Notify>,
    daemon: JoinHandle<DaemonEnd>,
}

impl Scene {
    pub(super) async fn start(config: Config) -> Self {
        Self::start_with(config, |_| {}).await
    }

    pub(super) async fn start_with(config: Config, change: impl FnOnce(&mut DaemonOptions)) -> Self {
        Self::try_start(config, change).await.expect("it starts")
    }

    pub(super) async fn try_start(
        config: Config,
        change: impl FnOnce(&mut DaemonOptions),
    ) -> Result<Self, DaemonError> {
        let (executor, started, refused) = Scripted::new();
        let mut options = options();
        change(&mut options);
        let daemon = Daemon::start(config, options, Arc::new(executor)).await?;
        let (orders, inbox) = mpsc::channel(8);
        Ok(Self { orders, started, refused, daemon: tokio::spawn(daemon.run(inbox)) })
    }

    /// Waits until this host was found unable to run the jobs of a runner.
    pub(super) async fn refused(&self) {
        tokio::time::timeout(LIMIT, self.refused.notified()).await.expect("it is refused in time");
    }

    /// The next job that begins.
    pub(super) async fn next_job(&mut self) -> Running {
        let next = tokio::time::timeout(LIMIT, self.started.recv()).await;
        next.expect("a job begins in time").expect("the daemon lives")
    }

    /// Whether a job has begun that nobody asked for with [`Self::next_job`].
    pub(super) fn has_more_jobs(&mut self) -> bool {
        !self.started.is_empty()
    }

    pub(super) async fn order(&self, order: Order) {
        self.orders.send(order).await.expect("the daemon lives");
    }

    /// Waits for the daemon's end.
    pub(super) async fn end(self) -> DaemonEnd {
        tokio::time::timeout(LIMIT, self.daemon).await.expect("it ends in time").expect("it does not panic")
    }
}

pub(super) fn options() -> DaemonOptions {
    DaemonOptions {
        system_id: SystemId::parse("s_0123456789ab").expect("well-formed"),
        product: Product {
            name: "tart".into(),
            version: "0.0.0".into(),
            revision: "test".into(),
            os: "linux".into(),
            architecture: "amd64".into(),
        },
        log_directory: std::env::temp_dir(),
        max_builds: None,
        wait_timeout: None,
    }
}

/// A quick configuration with these runners.
pub(super) fn config(concurrent: u32, runners: Vec<Runner>) -> Config {
    Config {
        concurrent,
        check_interval: Duration::from_millis(20),
        shutdown_timeout: LIMIT,
        runners,
        ..Config::default()
    }
}

pub(super) fn runner(server: &TestGitlab, handle: &RunnerHandle) -> Runner {
    Runner {
        name: format!("runner {}", handle.id()),
        url: server.url().to_owned(),
        token: Secret::new(handle.token()),
        ..Runner::default()
    }
}
