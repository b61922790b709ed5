//! The commands, one file each.

pub(crate) mod assets;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod run;
pub(crate) mod run_single;
pub(crate) mod version;
