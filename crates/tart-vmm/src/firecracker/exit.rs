//! What the exit codes of Firecracker mean (microvm.md 1.1). Pure.

use crate::{ExitKind, ProcessStatus};

/// What a machine's end means.
pub(super) fn kind(status: ProcessStatus, killed: bool) -> ExitKind {
    match status {
        _ if killed => ExitKind::Killed,
        ProcessStatus::Code(0) => ExitKind::Guest,
        // Its handlers of fatal signals: it crashed, or was stopped by a limit or its own filter.
        ProcessStatus::Code(148..=151 | 154..=157) | ProcessStatus::Signal(_) | ProcessStatus::Unknown => {
            ExitKind::Crashed
        }
        ProcessStatus::Code(_) => ExitKind::Failed,
    }
}

/// What an administrator can make of a code, for the console's end.
pub(super) fn meaning(status: ProcessStatus) -> Option<&'static str> {
    let ProcessStatus::Code(code) = status else { return None };
    Some(match code {
        148 => "Firecracker made a system call that its own filter forbids",
        149 => "the host has no huge pages left, or a memory file was cut (SIGBUS)",
        150 => "Firecracker crashed (SIGSEGV)",
        151 => "Firecracker would have written more than its limit of file size allows",
        152 => "Firecracker refuses its configuration file",
        153 => "Firecracker refuses an argument of its command line",
        154 => "Firecracker used more processor time than its limit allows",
        157 => "Firecracker met an instruction that this processor does not have",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        assert_eq!(kind(ProcessStatus::Code(0), false), ExitKind::Guest);
        assert_eq!(kind(ProcessStatus::Code(0), true), ExitKind::Killed);
        assert_eq!(kind(ProcessStatus::Code(1), false), ExitKind::Failed);
        assert_eq!(kind(ProcessStatus::Code(153), false), ExitKind::Failed);
        for crash in [148, 149, 150, 151, 157] {
            assert_eq!(kind(ProcessStatus::Code(crash), false), ExitKind::Crashed);
            assert!(meaning(ProcessStatus::Code(crash)).is_some());
        }
        assert_eq!(kind(ProcessStatus::Signal(9), false), ExitKind::Crashed);
        assert_eq!(meaning(ProcessStatus::Code(1)), None);
    }
}
