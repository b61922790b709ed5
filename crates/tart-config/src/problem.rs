//! What was found in a file, and where.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// Something in the file has no effect or another one than it seems.
    Warning,
    /// Something worth knowing.
    Notice,
}

/// One finding. Displays as `path:line:column: text`, warnings with `warning: ` before the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: Arc<Path>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong and what to do. Never contains a secret.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
            Severity::Notice => "note: ",
        };
        write!(formatter, "{}:{}:{}: {word}{}", self.path.display(), self.line, self.column, self.text)
    }
}

/// Why a configuration was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("there is no configuration at {}: create it with `tart register`, or name another with `--config`", .0.display())]
    NotFound(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} is larger than {} KiB, which no configuration is", .0.display(), crate::load::MAX_FILE_SIZE / 1024)]
    TooLarge(PathBuf),
    /// The file has errors; all of them are listed.
    #[error("{}", listed(.0))]
    Invalid(Vec<Problem>),
}

/// The problems, one in a line, with their number before them if there are several.
fn listed(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    match lines.len() {
        0 | 1 => lines.concat(),
        count => format!("{count} problems in the configuration:\n{}", lines.join("\n")),
    }
}

/// Turns byte offsets into lines and columns.
#[derive(Debug)]
pub(crate) struct Positions<'a> {
    text: &'a str,
}

impl<'a> Positions<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// Line and column, from 1, of a byte offset; past the end counts as the end.
    pub(crate) fn locate(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before.get(line_start..).map_or(0, |line| line.chars().count()) + 1)
    }
}
