//! A strict GitLab server for tests: the runner API and git over smart HTTP.
//!
//! [`TestGitlab`] listens on a loopback port and behaves as a GitLab server does towards its runners:
//! registration, long polling for jobs, the state machine of a job, its log, its artifacts, and the
//! repositories it builds, LFS included. It is an independent peer: it shares no type with the runner, so a
//! mistake on the wire cannot cancel itself out.
//!
//! It is strict where a real server is lenient. Every breach of the protocol is answered 400 and recorded
//! in [`TestGitlab::violations`]; a test ends with [`TestGitlab::assert_no_violations`]. What goes wrong
//! in real life is requested with [`TestGitlab::faults`]. Tests wait for events with
//! [`JobHandle::wait_finished`] and its kin, which never poll and always have a deadline.

mod api;
mod connection;
mod faults;
mod git;
mod history;
mod job;
mod payload;
mod runner;
mod server;
mod settings;
mod spec;
mod state;
mod strict;
mod tls;
mod variables;

pub use self::faults::{Endpoint, Fault, Faults, Gate};
pub use self::git::{CommitBuilder, GitError, ProjectHandle};
pub use self::history::Request;
pub use self::job::{Artifact, Job, JobHandle, JobState, Session, Update};
pub use self::runner::{Runner, RunnerHandle, RunnerOptions};
pub use self::server::TestGitlab;
pub use self::settings::Options;
pub use self::spec::{Artifacts, Cache, Image, JobSpec, Variable};
pub use self::state::State;
pub use self::strict::FEATURES;
pub use self::tls::Identity;
