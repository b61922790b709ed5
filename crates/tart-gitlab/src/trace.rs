//! The log of a running job on its way to the server (protocol reference 4.2, 4.5, 4.6).

mod buffer;
mod sender;
mod utf8;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tart_spec::{FailureReason, JobState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::buffer::LogBuffer;
use self::sender::Sender;
use crate::error::ApiError;
use crate::job_api::{JobApi, LogDigest};

/// The default of `output_limit`, in bytes.
pub const DEFAULT_OUTPUT_LIMIT: u64 = 4096 * 1024;
/// The interval until the server asks for another one.
const FIRST_INTERVAL: Duration = Duration::from_secs(3);

/// How a log is kept and sent.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The directory of the log's temporary file, which never has a name there.
    pub directory: PathBuf,
    /// The size at which the log is cut, in bytes; `output_limit` times 1024.
    pub output_limit: u64,
    /// Whether the server shall hide the log from guests of the project: `CI_DEBUG_TRACE` or `CI_DEBUG_SERVICES`.
    pub debug_trace: bool,
    /// `job_status_final_update_retry_limit`: how often the end of the job is told before giving up.
    pub final_update_attempts: u32,
    /// `FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL`: a silent job is reported less often if the server wants so.
    pub dynamic_force_send: bool,
    /// `features.failure_reasons` of the job: what the server understands besides the reasons all servers know.
    pub failure_reasons: Vec<String>,
    /// The time until the first part of the log is sent.
    pub first_interval: Duration,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            directory: std::env::temp_dir(),
            output_limit: DEFAULT_OUTPUT_LIMIT,
            debug_trace: false,
            final_update_attempts: 10,
            dynamic_force_send: false,
            failure_reasons: Vec::new(),
            first_interval: FIRST_INTERVAL,
        }
    }
}

/// What the server asks of a running job. It only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum RemoteSignal {
    /// Nothing.
    #[default]
    None,
    /// Somebody cancelled the job; it may end in order, with `after_script`.
    Cancel,
    /// The server has done with the job: nothing of it is to run any more.
    Abort,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalState {
    /// [`JobState::Success`] or [`JobState::Failed`].
    pub state: JobState,
    /// Why it failed; translated to what the server knows when it is sent.
    pub failure_reason: Option<FailureReason>,
    /// The exit code of a failed script.
    pub exit_code: Option<i32>,
}

impl FinalState {
    /// A job that ended well.
    pub fn success() -> Self {
        Self { state: JobState::Success, failure_reason: None, exit_code: None }
    }

    /// A job that failed.
    pub fn failed(reason: FailureReason, exit_code: Option<i32>) -> Self {
        Self { state: JobState::Failed, failure_reason: Some(reason), exit_code }
    }
}

/// What became of the last update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishOutcome {
    /// The server has the whole log and the state.
    Completed,
    /// The server had ended the job before, so neither matters.
    Refused,
    /// The server could not be told; it will fail the job by itself some day.
    GaveUp {
        /// How often it was tried.
        attempts: u32,
        /// What was wrong the last time.
        error: ApiError,
    },
}

/// What the owner of a log and its sender share.
#[derive(Debug)]
struct Shared {
    buffer: LogBuffer,
    debug_trace: AtomicBool,
    signals: watch::Sender<RemoteSignal>,
}

impl Shared {
    fn signal(&self, signal: RemoteSignal) {
        self.signals.send_if_modified(|current| {
            let rises = signal > *current;
            *current = signal.max(*current);
            rises
        });
    }
}

/// The log of a running job: a buffer in an unnamed file, and a task that sends it until [`Self::finish`]. Dropping it
/// ends the task.
///
/// What is written must have been masked before.
#[derive(Debug)]
pub struct JobTrace {
    shared: Arc<Shared>,
    api: Arc<dyn JobApi>,
    options: TraceOptions,
    stop: CancellationToken,
    task: AbortOnDropHandle<Sender>,
}

impl JobTrace {
    /// Makes the buffer and starts to send, and to listen to the server. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the temporary file cannot be made.
    pub fn start(api: Arc<dyn JobApi>, options: TraceOptions) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            buffer: LogBuffer::new(&options.directory, options.output_limit)?,
            debug_trace: AtomicBool::new(options.debug_trace),
            signals: watch::Sender::new(RemoteSignal::None),
        });
        let stop = CancellationToken::new();
        let sender = Sender::new(Arc::clone(&api), Arc::clone(&shared), &options);
        let task = AbortOnDropHandle::new(tokio::spawn(sender.run(stop.clone())));
        Ok(Self { shared, api, options, stop, task })
    }

    /// Where the log is written.
    pub fn writer(&self) -> LogWriter {
        LogWriter { shared: Arc::clone(&self.shared) }
    }

    /// What the server asks of the job, from now on.
    pub fn signals(&self) -> watch::Receiver<RemoteSignal> {
        self.shared.signals.subscribe()
    }

    /// Says that debugging output is in effect, from the next chunk on; the server looks at the first one only.
    pub fn set_debug_trace(&self, on: bool) {
        self.shared.debug_trace.store(on, Ordering::Relaxed);
    }

    /// The size and checksum of the log so far.
    pub fn digest(&self) -> LogDigest {
        self.shared.buffer.digest()
    }

    /// Why the log is incomplete, if its file could not be written.
    pub fn write_failure(&self) -> Option<String> {
        self.shared.buffer.failure()
    }

    /// Closes the log, sends what is left of it and then the state, as often as the retry limit allows. What is
    /// written later is lost.
    pub async fn finish(self, end: FinalState) -> FinishOutcome {
        self.shared.buffer.close();
        self.stop.cancel();
        let sender = match self.task.await {
            Ok(sender) => sender,
            // The server will say how much it has.
            Err(_) => Sender::new(self.api, Arc::clone(&self.shared), &self.options),
        };
        sender.finish(end, &self.options).await
    }
}

/// Writes to a job's log. Cheap to clone; every call is one piece that is not torn apart by others.
#[derive(Debug, Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

impl LogWriter {
    /// Appends bytes, which must be masked already. After the end or the limit of the log they are ignored.
    ///
    /// The bytes go to the page cache, so this blocks for a short time only.
    pub fn write(&self, bytes: &[u8]) {
        self.shared.buffer.write(bytes);
    }
}

#[cfg(test)]
mod tests;
