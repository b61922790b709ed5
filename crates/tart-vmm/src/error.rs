//! Why a machine does not run.

use std::{io, path::PathBuf, time::Duration};

use crate::MachineExit;

/// A machine could not be started or talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmmError {
    /// The specification breaks a rule.
    #[error("machine `{id}` cannot be started: {reason}")]
    Spec {
        /// The machine.
        id: String,
        /// The broken rule.
        reason: String,
    },
    /// A word of the administrator's kernel command line is not allowed.
    #[error("kernel argument `{word}` cannot be set: {reason}")]
    KernelArgument {
        /// The word.
        word: String,
        /// Why not.
        reason: &'static str,
    },
    /// The monitor program is missing or unusable.
    #[error("cannot use `{program}`: {reason}")]
    Program {
        /// The program.
        program: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Acceleration was demanded that this host does not have.
    #[error("KVM cannot be used: {reason}")]
    NoKvm {
        /// Why not.
        reason: String,
    },
    /// A machine's monitor cannot be put into a jail.
    #[error("virtual machine `{id}` cannot be jailed: {reason}")]
    Jail {
        /// The machine.
        id: String,
        /// What is in the way, and what to do.
        reason: String,
    },
    /// The root helper did not start a machine's monitor.
    #[error("virtual machine `{id}` cannot be started")]
    Helper {
        /// The machine.
        id: String,
        /// Why not.
        source: tart_root_helper::HelperError,
    },
    /// There is no root helper that could start monitors.
    #[error("the root helper cannot be used for Firecracker")]
    NoHelper {
        /// Why not.
        source: tart_root_helper::HelperError,
    },
    /// The operating system refused something.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// The monitor's control connection broke, or it said something unexpected.
    #[error("the virtual machine monitor of `{id}` {problem}")]
    Control {
        /// The machine.
        id: String,
        /// What it did.
        problem: String,
    },
    /// The machine ended before its agent was ready.
    #[error("the virtual machine ended before its agent was ready: {exit}{}", shown(.console))]
    EndedInBoot {
        /// How it ended.
        exit: MachineExit,
        /// The last of its console and of what the monitor said.
        console: String,
    },
    /// The agent did not answer in time.
    #[error("the virtual machine's agent was not ready within {} seconds{}", .limit.as_secs(), shown(.console))]
    BootTimeout {
        /// The limit.
        limit: Duration,
        /// The last of its console.
        console: String,
    },
    /// The agent answered, but not as it should.
    #[error("the virtual machine's agent cannot be used: {reason}{}", shown(.console))]
    BootFailed {
        /// What it did.
        reason: String,
        /// The last of its console.
        console: String,
    },
}

impl VmmError {
    pub(crate) fn control(id: &str, problem: impl ToString) -> Self {
        Self::Control { id: id.to_owned(), problem: problem.to_string() }
    }

    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
}

/// Lines of a console that an error shows; the whole tail is in its field.
const SHOWN_LINES: usize = 15;

/// How a kernel says that it gives up, and why. What follows would fill all that is shown.
const PANIC: &str = "Kernel panic - not syncing: ";

fn shown(console: &str) -> String {
    let lines: Vec<_> = console.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines.len().saturating_sub(SHOWN_LINES);
    let panic = lines.iter().rposition(|line| line.contains(PANIC));
    let last: Vec<_> =
        lines.into_iter().skip(panic.map_or(end, |panic| panic.min(end))).take(SHOWN_LINES).collect();
    if last.is_empty() {
        "; its console is empty".to_owned()
    } else {
        format!("; the last lines of its console:\n  {}", last.join("\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_panic_is_shown_and_not_only_its_trace() {
        let trace: String = (0..30).map(|n| format!("frame {n}\n")).collect();
        let text = shown(&format!("booting\nKernel panic - not syncing: no root\n{trace}"));
        assert!(text.contains("no root\n  frame 0") && !text.contains("booting"), "{text}");
        assert!(!text.contains("frame 14"), "{text}");
        assert!(shown(&trace).ends_with("frame 29"));
        assert_eq!(shown("\n"), "; its console is empty");
    }
}
