//! Sends a log: by and by while the job runs, then all that is left.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tart_spec::JobState;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{FIRST_INTERVAL, FinalState, FinishOutcome, RemoteSignal, Shared, TraceOptions};
use crate::error::ApiError;
use crate::job_api::{JobApi, JobUpdate, MAX_CHUNK_BYTES, PatchResult, UpdateResult};

/// A job that writes nothing is reported this often.
const FORCE_SEND: Duration = Duration::from_secs(30);
const MAX_FORCE_SEND: Duration = Duration::from_secs(30 * 60);
/// A call under way at the end of the job gets this much time before its chunk is sent anew.
const LAST_CALL: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// How often one attempt puts up with an answer that asks for the same again: a good server needs far fewer.
const MAX_ROUNDS: u32 = 100;
const MAX_RESENDS: u32 = 10;

/// The sending half of a [`super::JobTrace`].
#[derive(Debug)]
pub(super) struct Sender {
    api: Arc<dyn JobApi>,
    shared: Arc<Shared>,
    /// Where the next chunk starts.
    offset: u64,
    interval: Duration,
    dynamic_force_send: bool,
    /// When the server last heard of the job; `None` at first, so that a silent job is reported at the first tick.
    last_sent: Option<Instant>,
}

/// What became of one chunk.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Stored,
    /// There was nothing to send.
    Nothing,
    Abort,
    NotFound,
    Mismatch,
    Failed(ApiError),
}

impl Sender {
    pub(super) fn new(api: Arc<dyn JobApi>, shared: Arc<Shared>, options: &TraceOptions) -> Self {
        Self {
            api,
            shared,
            offset: 0,
            interval: options.first_interval,
            dynamic_force_send: options.dynamic_force_send,
            last_sent: None,
        }
    }

    /// Ticks until `stop` or until the server has done with the job.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Self {
        let last_call = async {
            stop.cancelled().await;
            sleep(LAST_CALL).await;
        };
        tokio::pin!(last_call);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self,
                () = sleep(self.interval) => {}
            }
            tokio::select! {
                flow = self.tick() => match flow {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => return self,
                },
                () = &mut last_call => return self,
            }
        }
    }

    async fn tick(&mut self) -> ControlFlow<()> {
        match self.send_chunk().await {
            Step::Stored | Step::Nothing => self.touch().await,
            Step::Abort => {
                self.shared.signal(RemoteSignal::Abort);
                ControlFlow::Break(())
            }
            Step::NotFound | Step::Mismatch => ControlFlow::Continue(()),
            Step::Failed(error) => {
                tracing::debug!("a part of the log was not sent: {error}");
                ControlFlow::Continue(())
            }
        }
    }

    /// Sends at most one chunk.
    async fn send_chunk(&mut self) -> Step {
        let chunk = match self.shared.buffer.read(self.offset, MAX_CHUNK_BYTES) {
            Ok(chunk) if chunk.is_empty() => return Step::Nothing,
            Ok(chunk) => chunk,
            Err(error) => return Step::Failed(ApiError::Log(error.to_string())),
        };
        let length = u64::try_from(chunk.len()).unwrap_or(0);
        let debug_trace = self.shared.debug_trace.load(Ordering::Relaxed);
        let answer = self.api.append(self.offset, chunk, debug_trace).await;
        self.hear(answer.canceling, answer.interval);
        match answer.result {
            PatchResult::Stored => {
                self.offset += length;
                self.last_sent = Some(Instant::now());
                Step::Stored
            }
            PatchResult::Mismatch { stored } => {
                self.offset = stored;
                self.last_sent = Some(Instant::now());
                Step::Mismatch
            }
            PatchResult::Abort => Step::Abort,
            PatchResult::NotFound => Step::NotFound,
            PatchResult::Failed(error) => Step::Failed(error),
        }
    }

    /// Tells the server that a silent job still runs, if it is time.
    async fn touch(&mut self) -> ControlFlow<()> {
        let due = self.last_sent.is_none_or(|at| at.elapsed() > self.force_send_interval());
        if !due {
            return ControlFlow::Continue(());
        }
        let update = JobUpdate {
            state: JobState::Running,
            failure_reason: None,
            exit_code: None,
            output: Some(self.shared.buffer.digest()),
        };
        let answer = self.api.update(&update).await;
        self.hear(answer.canceling, answer.interval);
        match answer.result {
            UpdateResult::Abort { .. } => {
                self.shared.signal(RemoteSignal::Abort);
                return ControlFlow::Break(());
            }
            UpdateResult::Succeeded => self.last_sent = Some(Instant::now()),
            UpdateResult::Accepted | UpdateResult::LogMismatch => {}
            UpdateResult::Failed(error) => tracing::debug!("the job was not reported as running: {error}"),
        }
        ControlFlow::Continue(())
    }

    fn force_send_interval(&self) -> Duration {
        if self.dynamic_force_send {
            self.interval.saturating_mul(4).clamp(FORCE_SEND, MAX_FORCE_SEND)
        } else {
            FORCE_SEND
        }
    }

    fn hear(&mut self, canceling: bool, interval: Option<Duration>) {
        if canceling {
            self.shared.signal(RemoteSignal::Cancel);
        }
        if let Some(interval) = interval {
            self.interval = interval;
        }
    }

    /// Sends the rest of the log and the end of the job.
    pub(super) async fn finish(mut self, end: FinalState, options: &TraceOptions) -> FinishOutcome {
        self.interval = options.first_interval.min(FIRST_INTERVAL);
        let update = JobUpdate {
            state: end.state,
            failure_reason: end.failure_reason.map(|reason| reason.for_server(&options.failure_reasons)),
            exit_code: end.exit_code,
            output: Some(self.shared.buffer.digest()),
        };
        let mut backoff = FIRST_BACKOFF;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.deliver(&update).await {
                Ok(outcome) => return outcome,
                Err(error) if attempts >= options.final_update_attempts => {
                    return FinishOutcome::GaveUp { attempts, error };
                }
                Err(error) => tracing::debug!(attempts, "the end of the job was not delivered: {error}"),
            }
            sleep(backoff).await;
            backoff = backoff.saturating_mul(2).min(MAX_BACKOFF);
        }
    }

    /// One attempt at the log and the update.
    async fn deliver(&mut self, update: &JobUpdate) -> Result<FinishOutcome, ApiError> {
        let mut resends = 0;
        let mut rounds = 0;
        loop {
            self.flush().await?;
            let answer = self.api.update(update).await;
            self.hear(answer.canceling, answer.interval);
            match answer.result {
                UpdateResult::Succeeded | UpdateResult::Abort { taken: true } => {
                    return Ok(FinishOutcome::Completed);
                }
                UpdateResult::Abort { taken: false } => return Ok(FinishOutcome::Refused),
                UpdateResult::Accepted => {
                    rounds += 1;
                    if rounds >= MAX_ROUNDS {
                        return Err(endless("says that it is busy with the log"));
                    }
                    sleep(self.interval).await;
                }
                UpdateResult::LogMismatch => {
                    resends += 1;
                    if resends >= MAX_RESENDS {
                        return Err(endless("asks for the whole log again"));
                    }
                    self.offset = 0;
                    sleep(self.interval).await;
                }
                UpdateResult::Failed(error) => {
                    sleep(self.interval).await;
                    return Err(error);
                }
            }
        }
    }

    /// Sends all that is left, unless the server does not want it.
    async fn flush(&mut self) -> Result<(), ApiError> {
        let mut mismatches = 0;
        loop {
            match self.send_chunk().await {
                Step::Stored => mismatches = 0,
                Step::Nothing | Step::Abort | Step::NotFound => return Ok(()),
                Step::Mismatch => {
                    mismatches += 1;
                    if mismatches >= MAX_RESENDS {
                        return Err(endless("refuses the part of the log it asked for"));
                    }
                    sleep(self.interval).await;
                }
                Step::Failed(error) => {
                    sleep(self.interval).await;
                    return Err(error);
                }
            }
        }
    }
}

fn endless(what: &str) -> ApiError {
    ApiError::Transport(format!("the server {what} over and over"))
}
