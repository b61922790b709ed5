//! What a job means, without doing it: variables, expansion, masking, stage scripts.

pub mod dirs;
pub mod flags;
pub mod git;
pub mod literal;
pub mod log;
pub mod mask;
pub mod scripts;
pub mod sections;
pub mod settings;
pub mod timestamps;

pub use log::{Level, LogPipeline};
