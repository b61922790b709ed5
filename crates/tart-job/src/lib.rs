//! What a job means, without doing it: variables, expansion, masking, stage scripts.

pub mod context;
pub mod dirs;
pub mod flags;
pub mod git;
pub mod inputs;
pub mod literal;
pub mod log;
pub mod mask;
pub mod outcome;
pub mod plan;
pub mod scripts;
pub mod sections;
pub mod services;
pub mod settings;
pub mod stages;
pub mod timestamps;
pub mod variables;

pub use log::{Level, LogPipeline};
