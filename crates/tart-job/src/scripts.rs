//! The texts of the stage scripts.
//!
//! A script is a file on the guest's tmpfs that a shell reads; its variables are the process's environment, so no
//! value of a variable is ever part of a script. The text is POSIX shell: the same script runs with bash, dash and
//! busybox. Stages of the helper tree have git and coreutils; the job's tree may have nothing but a shell.

mod housekeeping;
mod sources;
mod submodules;
mod user;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use housekeeping::running_on;
pub use housekeeping::{cleanup, clear_worktree, prepare};
pub(crate) use sources::SKIPPED_SOURCES;
pub use sources::{Sources, SourcesError, get_sources};
pub use user::{Commands, ScriptOptions, SectionPrefix, user_script};
pub(crate) use writer::notice;
pub use writer::quote;

/// Where to look for the job's shell, best first.
pub const SHELL_CANDIDATES: [&str; 7] = [
    "/usr/local/bin/bash",
    "/usr/bin/bash",
    "/bin/bash",
    "/usr/local/bin/sh",
    "/usr/bin/sh",
    "/bin/sh",
    "/busybox/sh",
];

/// Names of variables that are about files of the job's image, and mean nothing in the helper tree.
pub(crate) const JOB_TREE_NAMES: [&str; 6] =
    ["PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "ENV"];
