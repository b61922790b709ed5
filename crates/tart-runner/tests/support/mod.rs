//! A host that boots real guests, and jobs for it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tart_assets::{AgentSource, Silent};
use tart_config::{ByteSize, MicroVm, NetworkMode, Runner};
use tart_job::context::{Product, RunnerContext};
use tart_runner::{
    CachePlace, CacheScope, HostSetup, JobLogSink, JobReport, JobRun, JobSignal, NoObserver, PrepareOptions,
    run_job,
};
use tokio::sync::{Notify, watch};

/// A host for tests; what its jobs leave behind is in a directory of its own.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) setup: HostSetup,
    pub(crate) state: tempfile::TempDir,
}

/// Boots emulated guests from the machine's assets and the agent of `TART_AGENT`.
pub(crate) async fn host(change: impl FnOnce(&mut MicroVm)) -> Host {
    let state = tempfile::tempdir().unwrap();
    let mut config = MicroVm {
        accel: tart_config::Accel::Tcg,
        memory: ByteSize::mebibytes(512),
        disk: ByteSize::gibibytes(2),
        state_dir: Some(state.path().to_owned()),
        ..MicroVm::default()
    };
    config.network.mode = NetworkMode::Relay;
    change(&mut config);
    let options = PrepareOptions { progress: Arc::new(Silent), agent: AgentSource::Installed, pool: true };
    let setup = HostSetup::prepare(&config, options).await.unwrap();
    Host { setup, state }
}

impl Host {
    /// Names of what is in the directory of running machines, below this runner's own.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let run = self.state.path().join("run");
        let runners = std::fs::read_dir(run).unwrap().flatten().filter(|entry| entry.path().is_dir());
        let inside = runners.flat_map(|runner| std::fs::read_dir(runner.path()).unwrap().flatten());
        let names = inside.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "lock").collect()
    }
}

/// Floods of output are not shown, in bytes of one write.
const SHOWN: usize = 16 * 1024;

/// The log of a job, readable while it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    grown: Arc<Notify>,
}

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Waits until the log has the text.
    pub(crate) async fn shows(&self, text: &str) {
        loop {
            let grown = self.grown.notified();
            if self.text().contains(text) {
                return;
            }
            grown.await;
        }
    }
}

#[async_trait]
impl JobLogSink for Log {
    #[expect(clippy::print_stdout, reason = "a test that fails or hangs shows its job's log")]
    fn write(&mut self, bytes: &[u8]) {
        if bytes.len() < SHOWN {
            print!("{}", String::from_utf8_lossy(bytes));
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        self.grown.notify_waiters();
        self.grown.notify_one();
    }
}

/// A job without sources, with these steps and variables.
pub(crate) fn job(script: &[&str], change: impl FnOnce(&mut Value)) -> JobRun {
    let mut payload = json!({
        "id": 42,
        "token": "job-token-42",
        "job_info": {"name": "job", "stage": "test", "project_id": 7},
        "git_info": {"repo_url": "http://gitlab.test/group/project.git", "sha": "0".repeat(40), "ref": "main"},
        "runner_info": {"timeout": 600},
        "variables": [{"key": "GIT_STRATEGY", "value": "none", "public": true}],
        "steps": [{"name": "script", "script": script}],
        "features": {"trace_sections": true}
    });
    change(&mut payload);
    JobRun {
        payload: serde_json::from_value(payload).unwrap(),
        context: context(),
        runner: Arc::new(Runner { name: "test".to_owned(), ..Runner::default() }),
        system_id: "s_0123456789ab".to_owned(),
        allowed: Vec::new(),
        image: None,
        artifacts: None,
        cache: Some(CachePlace::Host(CacheScope::directory(std::path::Path::new("/test")))),
        session: None,
        plain_log: true,
    }
}

fn context() -> RunnerContext {
    let product = Product {
        name: "tart".to_owned(),
        version: "0.0.0".to_owned(),
        revision: "test".to_owned(),
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
    };
    RunnerContext { short_token: "abcdefghi".to_owned(), ..RunnerContext::plain(product) }
}

/// Runs a job to its end.
pub(crate) async fn run(host: &Host, job: JobRun) -> (JobReport, String) {
    let log = Log::default();
    let (_signal, signals) = watch::channel(JobSignal::None);
    let report = run_job(&host.setup, job, log.clone(), signals, &NoObserver).await;
    assert_eq!(host.left_behind(), [] as [&str; 0]);
    (report, log.text())
}

/// Runs a job and sends it a signal as soon as its log has a text.
pub(crate) async fn run_until(
    host: &Host,
    job: JobRun,
    text: &str,
    signal: JobSignal,
) -> (JobReport, String) {
    let log = Log::default();
    let (sender, signals) = watch::channel(JobSignal::None);
    let running = run_job(&host.setup, job, log.clone(), signals, &NoObserver);
    let signalled = async {
        log.shows(text).await;
        sender.send_replace(signal);
    };
    let (report, ()) = tokio::join!(running, signalled);
    assert_eq!(host.left_behind(), [] as [&str; 0]);
    (report, log.text())
}
