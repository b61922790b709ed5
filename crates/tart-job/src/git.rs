//! How git reaches the project's repository: a URL without credentials, and configuration in the environment.
//!
//! The job token is never part of a URL, of an argument, or of a file. Git asks a credential helper for it, a shell
//! function that prints a variable of the environment it runs in. The helper, like all configuration that is about
//! this one job, reaches git by `GIT_CONFIG_COUNT`, `GIT_CONFIG_KEY_n` and `GIT_CONFIG_VALUE_n`.

mod config;
mod remote;

pub use config::{GitConfig, GitConfigRequest};
pub use remote::{Remote, RemoteError, RemoteRequest, SshAddress};
