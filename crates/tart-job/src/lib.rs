//! What a job means, without doing it: variables, expansion, masking, stage scripts.

pub mod flags;
pub mod literal;
pub mod log;
pub mod mask;
pub mod sections;
pub mod timestamps;
