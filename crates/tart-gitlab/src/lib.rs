//! Client of the GitLab runner API: registration, job requests, updates, traces.
//!
//! A runner has one [`Client`] per entry of config.toml. It polls with [`Client::request_job`], guided by [`Health`]
//! and [`RequestConcurrency`]. The calls about a job go through a [`JobHandle`], and its log through a [`JobTrace`].
//! Retries, redirections, time limits and bounds of answers are the same for all calls.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use std::time::Instant;
//! # use tart_gitlab::*;
//! # async fn poll_once(mut health: Health, token: Token, system_id: SystemId, info: Arc<tart_spec::VersionInfo>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(ClientOptions::new("https://gitlab.example.com"))?;
//! let request = JobRequest { token: &token, system_id: &system_id, info: &info, session: None, may_hold: true };
//! let answer = client.request_job(&request).await;
//! health.record(answer.is_healthy(), Instant::now());
//! let RequestOutcome::Job(job) = answer.outcome else { return Ok(()) };
//!
//! let handle = JobHandle::new(client.clone(), job.payload.id, job.payload.token.clone().into(), info.clone());
//! let options = TraceOptions {
//!     failure_reasons: job.payload.features.failure_reasons.clone(),
//!     ..TraceOptions::default()
//! };
//! if handle.acknowledge().await == Acknowledgement::Abandon {
//!     return Ok(());
//! }
//! let trace = JobTrace::start(Arc::new(handle), options)?;
//! let mut signals = trace.signals();
//! trace.writer().write(b"masked bytes\n");
//! tokio::select! {
//!     () = async { /* the job */ } => {}
//!     _ = signals.wait_for(|signal| *signal >= RemoteSignal::Cancel) => {}
//! }
//! let outcome = trace.finish(FinalState::failed(tart_spec::FailureReason::ScriptFailure, Some(1))).await;
//! # let _ = outcome;
//! # Ok(())
//! # }
//! ```

mod address;
mod artifacts;
mod call;
mod client;
mod clock;
mod error;
mod headers;
mod health;
mod job_api;
mod job_request;
mod registration;
mod retry;
mod system_id;
mod token;
mod trace;
mod transport;

pub use artifacts::{ArtifactDownload, ArtifactUpload, DownloadError, DownloadFrom, UploadError};
pub use client::{Client, ClientOptions, Product, architecture, platform};
pub use clock::{Clock, SystemClock};
pub use error::ApiError;
pub use health::{Health, Poll, RequestConcurrency};
pub use job_api::{
    Acknowledgement, JobApi, JobHandle, JobUpdate, LogDigest, MAX_CHUNK_BYTES, PatchAnswer, PatchResult,
    UpdateAnswer, UpdateResult,
};
pub use job_request::{AssignedJob, JobRequest, RequestAnswer, RequestOutcome, SessionOffer};
pub use registration::{
    RegisterError, Registration, ResetError, RunnerCredentials, UnregisterOutcome, VerifyOutcome, renew_at,
};
pub use system_id::{LoadedSystemId, SystemId};
pub use token::Token;
pub use trace::{
    DEFAULT_OUTPUT_LIMIT, FinalState, FinishOutcome, JobTrace, LogWriter, RemoteSignal, TraceOptions,
};
pub use transport::TlsFiles;
