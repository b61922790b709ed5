//! Jobs of a local repository, without a GitLab server: `tart exec`.
//!
//! A [`Snapshot`] is the working tree as a commit that a guest fetches over the relay, from no socket of the host.
//! [`TerminalSink`] shows the log.

mod git;
mod serve;
mod snapshot;
mod terminal;

pub use git::LocalError;
pub use snapshot::{Commit, Snapshot};
pub use terminal::TerminalSink;
