//! The runner's own lines.

use crate::flags::FeatureFlags;

/// Bold red.
pub const BOLD_RED: &str = "\x1b[31;1m";
/// Bold green.
pub const BOLD_GREEN: &str = "\x1b[32;1m";
/// Bold yellow.
pub const BOLD_YELLOW: &str = "\x1b[33;1m";
/// Bold cyan.
pub const BOLD_CYAN: &str = "\x1b[36;1m";
/// Yellow.
pub const YELLOW: &str = "\x1b[0;33m";
/// Grey.
pub const GREY: &str = "\x1b[0;37m";
/// Back to the terminal's defaults.
pub const RESET: &str = "\x1b[0;m";
/// Clears the rest of the line.
pub const CLEAR_LINE: &str = "\x1b[0K";

/// The weight of a line of the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Plain.
    Print,
    /// Bold green.
    Info,
    /// Yellow, with `WARNING: `.
    Warning,
    /// Bold red, with `ERROR: `.
    Error,
}

/// A line of the runner with its colours and its line feed.
pub fn runner_line(level: Level, text: &str) -> String {
    let (colour, label) = match level {
        Level::Print => (CLEAR_LINE, ""),
        Level::Info => (BOLD_GREEN, ""),
        Level::Warning => (YELLOW, "WARNING: "),
        Level::Error => (BOLD_RED, "ERROR: "),
    };
    format!("{colour}{label}{text}{RESET}\n")
}

/// The text of a log's first line.
pub fn running_with_line(name: &str, version: &str, revision: &str) -> String {
    format!("Running with {name} {version} ({revision})")
}

/// The text of the second line.
pub fn running_on_line(runner_name: &str, short_token: &str, system_id: &str) -> String {
    format!("  on {runner_name} {short_token}, system ID: {system_id}")
}

/// The text of the third line, when some feature flag differs from its default.
pub fn feature_flags_line(flags: &FeatureFlags) -> Option<String> {
    let changed: Vec<String> = flags.changed().map(|(flag, on)| format!("{}:{on}", flag.name())).collect();
    if changed.is_empty() { None } else { Some(format!("  feature flags: {}", changed.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_colours_of_their_level() {
        assert_eq!(runner_line(Level::Print, "a b"), "\u{1b}[0Ka b\u{1b}[0;m\n");
        assert_eq!(runner_line(Level::Info, "Job succeeded"), "\u{1b}[32;1mJob succeeded\u{1b}[0;m\n");
        assert_eq!(runner_line(Level::Warning, "careful"), "\u{1b}[0;33mWARNING: careful\u{1b}[0;m\n");
        assert_eq!(
            runner_line(Level::Error, "Job failed: exit code 1"),
            "\u{1b}[31;1mERROR: Job failed: exit code 1\u{1b}[0;m\n"
        );
    }

    #[test]
    fn the_first_lines_say_who_runs_the_job() {
        assert_eq!(running_with_line("tart", "0.1.0", "abcdef"), "Running with tart 0.1.0 (abcdef)");
        assert_eq!(
            running_on_line("host-1", "t1_abcdef", "s_0123456789ab"),
            "  on host-1 t1_abcdef, system ID: s_0123456789ab"
        );
    }
}
