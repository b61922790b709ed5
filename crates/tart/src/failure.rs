//! How failures are shown, and which exit code they get.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::output;

/// The program's exit codes, which scripts may rely on. 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command line or a file is wrong, or anything without a code of its own.
    Usage = 1,
    /// This host lacks something.
    Host = 2,
    /// The GitLab server refused, or was not reached.
    Server = 3,
    /// A signal ended the work early.
    Interrupted = 4,
    /// The job failed.
    Job = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with an exit code of its own or with advice. It shows as the error itself.
#[derive(Debug)]
struct Annotated {
    inner: anyhow::Error,
    exit: Option<Exit>,
    hint: Option<String>,
}

impl fmt::Display for Annotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

impl Error for Annotated {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The error itself, not anyhow's box of it, so that its type can be found.
        Some(self.inner.as_ref())
    }
}

/// Adds what a person or a script needs to know besides the error.
pub(crate) trait Annotate<T> {
    /// Which exit code the program gets by this error.
    fn exit(self, exit: Exit) -> anyhow::Result<T>;

    /// What to do about it.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Annotate<T> for Result<T, E> {
    fn exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| annotated(error, Some(exit), None))
    }

    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| annotated(error, None, Some(hint.into())))
    }
}

fn annotated(error: impl Into<anyhow::Error>, exit: Option<Exit>, hint: Option<String>) -> anyhow::Error {
    anyhow::Error::new(Annotated { inner: error.into(), exit, hint })
}

/// Shows an error on the standard error and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    output::to_stderr(&render(error));
    exit_of(error).into()
}

/// `error:` with the causes, then `hint:` lines.
fn render(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut hints: Vec<&str> = Vec::new();
    for cause in error.chain() {
        if let Some(annotated) = cause.downcast_ref::<Annotated>() {
            hints.extend(annotated.hint.as_deref());
            continue;
        }
        let text = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !causes.last().is_some_and(|last| last.contains(&text)) {
            causes.push(text);
        }
    }
    let mut text = format!("error: {}\n", causes.join(": "));
    for hint in hints {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(exit) = cause.downcast_ref::<Annotated>().and_then(|annotated| annotated.exit) {
            return exit;
        }
        let of_host = cause.is::<tart_runner::HostError>()
            || cause.is::<tart_assets::AssetError>()
            || cause.is::<tart_vmm::VmmError>()
            || cause.is::<tart_net::NetError>();
        if of_host {
            return Exit::Host;
        }
    }
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn causes_are_in_one_line_and_hints_below() {
        let refused: anyhow::Result<()> = Err(anyhow!("no such file"));
        let error = refused.hint("try another").context("cannot read x").unwrap_err();
        insta::assert_snapshot!(render(&error), @r"
        error: cannot read x: no such file
        hint: try another
        ");
    }

    #[test]
    fn hints_and_codes_add_up() {
        let host: Result<(), _> = Err(tart_assets::AssetError::NoAgent { looked_at: "here".into() });
        let error = host.hint("first").hint("second").unwrap_err();
        assert!(render(&error).ends_with("\nhint: second\nhint: first\n"), "{}", render(&error));
        assert_eq!(exit_of(&error), Exit::Host);
        let plain: anyhow::Result<()> = Err(anyhow!("x"));
        let error = plain.hint("try y").exit(Exit::Job).unwrap_err();
        assert_eq!((render(&error).as_str(), exit_of(&error)), ("error: x\nhint: try y\n", Exit::Job));
    }

    #[test]
    fn a_cause_that_the_text_above_names_is_not_said_twice() {
        let error = anyhow!("no such file").context("cannot read x: no such file");
        insta::assert_snapshot!(render(&error), @"error: cannot read x: no such file");
    }

    #[test]
    fn the_outermost_code_counts_and_hosts_have_their_own() {
        let plain: anyhow::Result<()> = Err(anyhow!("x"));
        assert_eq!(exit_of(&plain.exit(Exit::Server).context("y").unwrap_err()), Exit::Server);
        let host = tart_assets::AssetError::NoAgent { looked_at: "here".into() };
        assert_eq!(exit_of(&anyhow::Error::new(host).context("y")), Exit::Host);
        assert_eq!(exit_of(&anyhow!("x")), Exit::Usage);
    }
}
