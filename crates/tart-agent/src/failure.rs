//! Failures as the host sees them: a class to act on and a text for people.

use std::{fmt::Display, io};

use tart_proto::message::{Failure, FailureKind};

/// Longest text that is sent, in bytes: it may quote paths and names of any length.
const MAX_TEXT: usize = 2000;

/// A failure of a system call; `what` says what was tried, for example ``cannot read `/etc/passwd` ``.
pub(crate) fn system(what: impl Display, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    failure(kind_of(&error), format!("{what}: {}", reason(&error)))
}

/// The thing asked for is not there.
pub(crate) fn not_found(text: impl Display) -> Failure {
    failure(FailureKind::NotFound, text.to_string())
}

/// The thing is there but may not be used so.
pub(crate) fn denied(text: impl Display) -> Failure {
    failure(FailureKind::Denied, text.to_string())
}

/// The request makes no sense or is over a limit.
pub(crate) fn invalid(text: impl Display) -> Failure {
    failure(FailureKind::Invalid, text.to_string())
}

/// Anything else.
pub(crate) fn other(text: impl Display) -> Failure {
    failure(FailureKind::Other, text.to_string())
}

fn failure(kind: FailureKind, mut message: String) -> Failure {
    if message.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
        message.truncate(end);
        message.push_str("...");
    }
    Failure { kind, message }
}

fn kind_of(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FailureKind::NotFound,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::ExecutableFileBusy => FailureKind::Denied,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename | io::ErrorKind::ArgumentListTooLong => {
            FailureKind::Invalid
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => {
            FailureKind::NoSpace
        }
        _ => match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOEXEC) => FailureKind::Denied,
            _ => FailureKind::Other,
        },
    }
}

/// The kernel's words for an error, without the number that `io::Error` adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_is_classed_and_said_in_plain_words() {
        let failure = system("cannot open `/x`", io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert_eq!(failure.message, "cannot open `/x`: no such file or directory");
        let full = system("cannot write", io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(full.kind, FailureKind::NoSpace);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let failure = invalid("ü".repeat(MAX_TEXT));
        assert!(failure.message.len() <= MAX_TEXT + 3);
        assert!(failure.message.ends_with("ü..."));
    }
}
