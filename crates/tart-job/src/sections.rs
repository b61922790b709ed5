//! The markers that let GitLab fold a job log into timed sections, and the header line of a section.

use crate::log::{BOLD_CYAN, CLEAR_LINE, RESET};

/// How a section is displayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SectionOptions {
    /// Folded until the reader opens it.
    pub collapsed: bool,
    /// Without the time it took.
    pub hide_duration: bool,
}

/// The marker that begins a section; its header line follows it directly.
pub fn section_start(name: &str, unix_seconds: i64, options: SectionOptions) -> String {
    format!("section_start:{unix_seconds}:{name}{}\r{CLEAR_LINE}", options.suffix())
}

/// The marker that ends a section.
pub fn section_end(name: &str, unix_seconds: i64) -> String {
    format!("section_end:{unix_seconds}:{name}\r{CLEAR_LINE}")
}

/// The line that names a stage in the log, with its line feed.
pub fn section_header(text: &str) -> String {
    format!("{CLEAR_LINE}{BOLD_CYAN}{text}{RESET}{RESET}\n")
}

impl SectionOptions {
    /// `[hide_duration=true,collapsed=true]`, or nothing when no option is set.
    pub(crate) fn suffix(self) -> String {
        let options = [("hide_duration", self.hide_duration), ("collapsed", self.collapsed)];
        let set: Vec<String> =
            options.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}=true")).collect();
        if set.is_empty() { String::new() } else { format!("[{}]", set.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_have_the_bytes_that_gitlab_parses() {
        assert_eq!(
            section_start("get_sources", 1_700_000_000, SectionOptions::default()),
            "section_start:1700000000:get_sources\r\u{1b}[0K"
        );
        let folded = SectionOptions { collapsed: true, hide_duration: true };
        assert_eq!(
            section_start("s", 1, folded),
            "section_start:1:s[hide_duration=true,collapsed=true]\r\u{1b}[0K"
        );
        assert_eq!(
            section_end("get_sources", 1_700_000_009),
            "section_end:1700000009:get_sources\r\u{1b}[0K"
        );
        assert_eq!(
            section_header("Restoring cache"),
            "\u{1b}[0K\u{1b}[36;1mRestoring cache\u{1b}[0;m\u{1b}[0;m\n"
        );
    }
}
