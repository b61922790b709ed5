//! Runs jobs: the stages in a fresh guest, the polling loop, the fleet of one host.
//!
//! [`HostSetup`] is what all jobs of a runner share on this host; [`run_job`] runs one job in a machine of its own and
//! gives a [`JobReport`]. Whoever starts jobs (the daemon, `tart exec`) brings the job's payload, a [`JobLogSink`] for
//! its log, and a channel of [`JobSignal`]s to end it early.

mod artifacts;
mod cache;
pub mod daemon;
mod engine;
mod guest;
mod host;
pub mod local;
pub mod root_helper;

pub use artifacts::{ArtifactPlace, LocalArtifacts};
pub use cache::{CachePlace, CacheScope, CacheStore, ObjectCaches};
pub use engine::{
    JobLogSink, JobObserver, JobReport, JobRun, JobSession, JobSignal, JobUsage, NoObserver, Timings, run_job,
};
pub use host::{
    HostError, HostSetup, PrepareOptions, firecracker_program, named_jailer, open_images,
    root_helper as root_helper_socket, run_root,
};
