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
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tart_test_gitlab::{Endpoint, Fault, JobSpec, JobState, RunnerOptions, TestGitlab};
//! # async fn example() {
//! let server = TestGitlab::start().await;
//! let runner = server.add_runner(RunnerOptions::default());
//! let project = server.create_project("group/app").await;
//! project.commit_file("hello.txt", "hello\n").await;
//! server.faults().next(Endpoint::Trace, Fault::Status(503));
//! let job = server.enqueue(JobSpec::of(&project, ["cat hello.txt"]).image("alpine")).await;
//! // Start a runner with `server.url()` and `runner.token()`, then:
//! job.wait_log_contains("hello", Duration::from_secs(60)).await;
//! assert_eq!(job.wait_finished(Duration::from_secs(60)).await, JobState::Success);
//! server.assert_no_violations();
//! # }
//! ```

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
