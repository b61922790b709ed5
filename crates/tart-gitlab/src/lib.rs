//! Client of the GitLab runner API: registration, job requests, updates, traces.
//!
//! A runner has one [`Client`] per entry of config.toml. It polls with [`Client::request_job`], guided by [`Health`]
//! and [`RequestConcurrency`]. The calls about a job go through a [`JobHandle`], and its log through a [`JobTrace`].
//! Retries, redirections, time limits and bounds of answers are the same for all calls.

mod address;
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
