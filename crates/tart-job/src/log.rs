//! The job log: the runner's own lines, and the pipeline every byte of output takes to get there.

mod lines;
mod pipeline;

pub use lines::{
    BOLD_CYAN, BOLD_GREEN, BOLD_RED, BOLD_YELLOW, CLEAR_LINE, GREY, Level, RESET, YELLOW, feature_flags_line,
    runner_line, running_on_line, running_with_line,
};
pub use pipeline::{LogOptions, LogPipeline, Source};
