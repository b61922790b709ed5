//! What the tests share.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tart_gitlab::{
    AssignedJob, Client, ClientOptions, Clock, JobHandle, JobRequest, RequestAnswer, RequestOutcome,
    SystemId, Token, architecture, platform,
};
use tart_spec::{Features, VersionInfo};

/// How long anything may take on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Does not wait, but remembers how long it should have.
#[derive(Debug, Default)]
pub(crate) struct NoWait {
    waits: Mutex<Vec<Duration>>,
}

impl NoWait {
    pub(crate) fn waits(&self) -> Vec<Duration> {
        self.waits.lock().expect("no test panics with it").clone()
    }
}

#[async_trait]
impl Clock for NoWait {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn sleep(&self, duration: Duration) {
        self.waits.lock().expect("no test panics with it").push(duration);
    }

    fn jitter(&self) -> f64 {
        1.0
    }
}

pub(crate) fn client_with(url: &str, change: impl FnOnce(&mut ClientOptions)) -> (Client, Arc<NoWait>) {
    let clock = Arc::new(NoWait::default());
    let mut options = ClientOptions::new(url);
    options.clock = clock.clone();
    change(&mut options);
    (Client::new(options).expect("a good URL"), clock)
}

pub(crate) fn client(url: &str) -> (Client, Arc<NoWait>) {
    client_with(url, |_| {})
}

pub(crate) fn info() -> VersionInfo {
    VersionInfo {
        name: "tart".into(),
        version: "1.0".into(),
        revision: "abc".into(),
        platform: platform().into(),
        architecture: architecture().into(),
        executor: "microvm".into(),
        shell: "bash".into(),
        features: Features {
            variables: true,
            image: true,
            artifacts: true,
            refspecs: true,
            masking: true,
            trace_reset: true,
            trace_checksum: true,
            trace_size: true,
            cancelable: true,
            return_exit_code: true,
            cancel_gracefully: true,
            two_phase_job_commit: true,
            ..Features::default()
        },
        ..VersionInfo::default()
    }
}

pub(crate) fn system_id() -> SystemId {
    SystemId::parse("s_0123456789ab").expect("a good id")
}

pub(crate) async fn poll(client: &Client, token: &str) -> RequestAnswer {
    let request = JobRequest {
        token: &Token::new(token),
        system_id: &system_id(),
        info: &info(),
        session: None,
        may_hold: true,
    };
    tokio::time::timeout(LIMIT, client.request_job(&request)).await.expect("an answer in time")
}

pub(crate) async fn take_job(client: &Client, token: &str) -> AssignedJob {
    match poll(client, token).await.outcome {
        RequestOutcome::Job(job) => *job,
        other => panic!("no job but {other:?}"),
    }
}

pub(crate) fn handle(client: &Client, job: &AssignedJob) -> JobHandle {
    JobHandle::new(client.clone(), job.payload.id, Token::new(job.payload.token.clone()), Arc::new(info()))
}
