//! Telling a person how a pull goes on.

/// How a line is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it is.
    Print,
    /// As a step.
    Info,
    /// As something that may be wrong.
    Warning,
}

/// Hears lines for the job's author, or for who runs `tart image pull`.
pub trait ImageLog: Send + Sync {
    /// A line.
    fn line(&self, level: Level, text: &str);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl ImageLog for Quiet {
    fn line(&self, _level: Level, _text: &str) {}
}
