//! The commands, one file each.

pub(crate) mod assets;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod lint;
pub(crate) mod list;
pub(crate) mod register;
pub(crate) mod reset_token;
pub(crate) mod root_helper;
pub(crate) mod run;
pub(crate) mod run_single;
pub(crate) mod unregister;
pub(crate) mod verify;
pub(crate) mod version;
