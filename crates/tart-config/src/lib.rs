//! Tart's config.toml: the official runner's keys plus `[runners.microvm]`.
//!
//! The file is checked strictly: unknown keys, wrong types and impossible values are all reported together, each with
//! its line and what to do ([`load`]). `tart register` and its relatives change the file in place and keep comments
//! ([`Editor`]). [`schema`] lists every key and [`support`] what this version does with it; docs/configuration.md is
//! rendered from them ([`mod@reference`]).

mod address;
mod check;
mod duration;
mod edit;
mod load;
mod model;
mod problem;
pub mod reference;
mod rules;
pub mod schema;
mod secret;
mod size;
mod suggest;
pub mod support;
mod value;

pub use address::{Instance, instance};
pub use duration::parse_duration;
pub use edit::{EditError, Editor, NewRunner};
pub use load::{Loaded, default_path, default_state_dir, load, parse};
pub use model::*;
pub use problem::{LoadError, Problem, Severity};
pub use secret::Secret;
pub use size::ByteSize;

#[cfg(test)]
mod tests;
