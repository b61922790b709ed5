//! Running commands: the engine below the exec requests of a session.
//!
//! [`spawn`] starts a process in its tree, cgroup and terminal; [`reaper`] alone waits for processes; [`cgroup`]
//! limits, counts and kills; [`output`] and [`input`] move bytes; [`command`] drives one request over its stream.

pub mod cgroup;
pub(crate) mod command;
mod input;
mod isolation;
mod output;
mod program;
pub mod reaper;
mod spawn;
