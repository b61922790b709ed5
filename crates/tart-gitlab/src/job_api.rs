//! Updates of a job and of its log: the calls, and what their answers mean (protocol reference 4.1 and 4.4).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Serialize;
use tart_spec::{FailureReason, JobState, VersionInfo};

use crate::call::{Call, JOB_TOKEN};
use crate::client::Client;
use crate::error::ApiError;
use crate::headers::{JobStatus, job_status, stored_bytes, update_interval};
use crate::token::Token;

/// The longest chunk of a log, in bytes.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;

/// The size and checksum of the whole log, sent or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDigest {
    /// CRC-32 of IEEE.
    pub crc32: u32,
    /// Bytes.
    pub size: u64,
}

impl LogDigest {
    fn checksum(self) -> String {
        format!("crc32:{:08x}", self.crc32)
    }
}

/// One `PUT jobs/:id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobUpdate {
    /// `running`, `success` or `failed`; there is no `canceled`.
    pub state: JobState,
    /// Why it failed: of the reasons the server said it knows.
    pub failure_reason: Option<FailureReason>,
    /// The exit code of the script; 0 is not sent.
    pub exit_code: Option<i32>,
    /// The log, except in the first update.
    pub output: Option<LogDigest>,
}

#[derive(Serialize)]
struct UpdateBody<'a> {
    token: &'a Token,
    info: &'a VersionInfo,
    state: &'a JobState,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a FailureReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    output: Output,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
}

#[derive(Serialize)]
struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytesize: Option<u64>,
}

/// What the server makes of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateResult {
    /// Done.
    Succeeded,
    /// The server wants to hear no more of the job. After a final `failed` update that is the normal end.
    Abort {
        /// Whether the update itself was taken (200).
        taken: bool,
    },
    /// The server is still busy with the log; the same update is to be sent again.
    Accepted,
    /// The log does not have the checksum or size that was sent; it is to be sent again from its start.
    LogMismatch,
    /// It may be tried again.
    Failed(ApiError),
}

/// The answer to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateAnswer {
    /// The verdict.
    pub result: UpdateResult,
    /// Somebody cancelled the job, and it may end in order.
    pub canceling: bool,
    /// How often the server wants to hear of the job.
    pub interval: Option<Duration>,
}

/// What the server makes of a chunk of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchResult {
    /// It has the chunk.
    Stored,
    /// The server wants to hear no more of the job.
    Abort,
    /// The server does not know the log.
    NotFound,
    /// The server has another number of bytes: the next chunk starts there.
    Mismatch {
        /// Where it starts.
        stored: u64,
    },
    /// It may be tried again.
    Failed(ApiError),
}

/// The answer to a chunk of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchAnswer {
    /// The verdict.
    pub result: PatchResult,
    /// Somebody cancelled the job, and it may end in order.
    pub canceling: bool,
    /// How often the server wants to hear of the job.
    pub interval: Option<Duration>,
}

/// The calls about one job, behind which tests put scripted servers.
#[async_trait]
pub trait JobApi: Send + Sync + fmt::Debug {
    /// `PUT jobs/:id`
    async fn update(&self, update: &JobUpdate) -> UpdateAnswer;
    /// `PATCH jobs/:id/trace`; the chunk is not empty and has at most [`MAX_CHUNK_BYTES`].
    async fn append(&self, start: u64, chunk: Bytes, debug_trace: bool) -> PatchAnswer;
}

/// The calls about one job. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobHandle {
    client: Client,
    id: i64,
    token: Token,
    info: Arc<VersionInfo>,
}

/// How the server took the news that a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The job is to be run.
    Run,
    /// Somebody cancelled the job meanwhile: it is to fail at once as cancelled.
    Canceling,
    /// The server does not want the job to be run (any more); there is nothing to send.
    Abandon,
    /// The server did not take the news. The official runner runs the job all the same.
    Unknown(ApiError),
}

impl JobHandle {
    /// The calls about the job with this number and token.
    pub fn new(client: Client, id: i64, token: Token, info: Arc<VersionInfo>) -> Self {
        Self { client, id, token, info }
    }

    /// The number of the job.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The client of the job's server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What calls of other modules need.
    pub(crate) fn parts(&self) -> (&Client, i64, &Token) {
        (&self.client, self.id, &self.token)
    }

    /// Says that the job runs, which must happen within two minutes of its assignment (protocol reference 2.6).
    pub async fn acknowledge(&self) -> Acknowledgement {
        let update =
            JobUpdate { state: JobState::Running, failure_reason: None, exit_code: None, output: None };
        let answer = self.update(&update).await;
        match answer.result {
            UpdateResult::Abort { .. } => Acknowledgement::Abandon,
            _ if answer.canceling => Acknowledgement::Canceling,
            UpdateResult::Failed(error) => Acknowledgement::Unknown(error),
            UpdateResult::Succeeded | UpdateResult::Accepted | UpdateResult::LogMismatch => {
                Acknowledgement::Run
            }
        }
    }
}

#[async_trait]
impl JobApi for JobHandle {
    async fn update(&self, update: &JobUpdate) -> UpdateAnswer {
        let checksum = update.output.map(LogDigest::checksum);
        let body = UpdateBody {
            token: &self.token,
            info: &self.info,
            state: &update.state,
            failure_reason: update.failure_reason.as_ref(),
            checksum: checksum.clone(),
            output: Output { checksum, bytesize: update.output.map(|output| output.size) },
            exit_code: update.exit_code.filter(|code| *code != 0),
        };
        let call = Call::json(Method::PUT, format!("jobs/{}", self.id), &body)
            .and_then(|call| call.token(JOB_TOKEN, &self.token));
        match self.client.send(call).await.result {
            Ok(answer) => update_answer(answer.status, &answer.headers, || answer.as_error()),
            Err(error) => {
                let result = match error {
                    ApiError::Client(_) => UpdateResult::Abort { taken: false },
                    error => UpdateResult::Failed(error),
                };
                UpdateAnswer { result, canceling: false, interval: None }
            }
        }
    }

    async fn append(&self, start: u64, chunk: Bytes, debug_trace: bool) -> PatchAnswer {
        let path = format!("jobs/{}/trace?debug_trace={debug_trace}", self.id);
        let call = Call::chunk(path, start, chunk).and_then(|call| call.token(JOB_TOKEN, &self.token));
        match self.client.send(call).await.result {
            Ok(answer) => patch_answer(answer.status, &answer.headers, || answer.as_error()),
            Err(error) => {
                let result = match error {
                    ApiError::Client(_) => PatchResult::Abort,
                    error => PatchResult::Failed(error),
                };
                PatchAnswer { result, canceling: false, interval: None }
            }
        }
    }
}

/// The table of protocol reference 4.1.
fn update_answer(status: u16, headers: &HeaderMap, error: impl FnOnce() -> ApiError) -> UpdateAnswer {
    let word = job_status(headers);
    let result = match status {
        _ if word == JobStatus::Over => UpdateResult::Abort { taken: status == 200 },
        403 | 404 => UpdateResult::Abort { taken: false },
        200 => UpdateResult::Succeeded,
        202 => UpdateResult::Accepted,
        412 => UpdateResult::LogMismatch,
        _ => UpdateResult::Failed(error()),
    };
    UpdateAnswer { result, canceling: word == JobStatus::Canceling, interval: update_interval(headers) }
}

/// The table of protocol reference 4.4.
fn patch_answer(status: u16, headers: &HeaderMap, error: impl FnOnce() -> ApiError) -> PatchAnswer {
    let word = job_status(headers);
    let result = match status {
        _ if word == JobStatus::Over => PatchResult::Abort,
        403 => PatchResult::Abort,
        202 => PatchResult::Stored,
        404 => PatchResult::NotFound,
        416 => PatchResult::Mismatch { stored: stored_bytes(headers) },
        _ => PatchResult::Failed(error()),
    };
    PatchAnswer { result, canceling: word == JobStatus::Canceling, interval: update_interval(headers) }
}

#[cfg(test)]
mod tests;
