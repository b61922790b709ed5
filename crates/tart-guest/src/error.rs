//! What can go wrong with a guest.

use std::{io, time::Duration};

use tart_proto::{
    MuxError,
    message::{Failure, FailureKind, MessageError},
};

use crate::text;

/// What can go wrong with a guest. Text of the guest in it is harmless to print.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The guest took too long. The session may still live.
    #[error("the guest did not {what} within {} s", limit.as_secs_f32())]
    Timeout {
        /// What it should have done: "answer a request", for example.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The session with the guest is gone: the machine stopped, or a side broke the protocol.
    #[error("the connection to the guest is lost: {reason}")]
    Lost {
        /// Why.
        reason: String,
    },
    /// The guest said something that makes no sense at this place; the session is ended.
    #[error("the guest broke the protocol: {what}")]
    Violation {
        /// What it said.
        what: String,
    },
    /// The guest could not do what was asked.
    #[error("{message}")]
    Failed {
        /// Class to act on.
        kind: FailureKind,
        /// The agent's words.
        message: String,
    },
    /// The command, or its standard input, has already ended.
    #[error("the command has already ended")]
    Ended,
    /// The request is too large to be sent.
    #[error("the request to the guest is too large: {reason}")]
    TooLarge {
        /// Why.
        reason: String,
    },
    /// The other side of a file transfer, on the host, failed.
    #[error("cannot {what}: {reason}")]
    Local {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        reason: String,
        /// Class of the failure.
        kind: io::ErrorKind,
    },
}

impl GuestError {
    /// Whether the session is of no more use.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Violation { .. })
    }

    /// The class of a failure that the guest reported, if it is one.
    #[must_use]
    pub fn failure_kind(&self) -> Option<FailureKind> {
        match self {
            Self::Failed { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    pub(crate) fn violation(what: impl Into<String>) -> Self {
        Self::Violation { what: what.into() }
    }

    pub(crate) fn local(what: &'static str, error: &io::Error) -> Self {
        Self::Local { what, reason: error.to_string(), kind: error.kind() }
    }
}

impl From<MuxError> for GuestError {
    fn from(error: MuxError) -> Self {
        match error {
            MuxError::Protocol(what) => Self::violation(what),
            MuxError::Frame(error) => Self::violation(error.to_string()),
            // The session lives on.
            MuxError::TooManyStreams => Self::Failed {
                kind: FailureKind::Other,
                message: "too many requests are under way".to_owned(),
            },
            MuxError::TooLarge(_) => Self::TooLarge { reason: error.to_string() },
            error => Self::Lost { reason: text::plain(&error.to_string()) },
        }
    }
}

impl From<Failure> for GuestError {
    fn from(failure: Failure) -> Self {
        Self::Failed { kind: failure.kind, message: text::plain(&failure.message) }
    }
}

impl From<MessageError> for GuestError {
    fn from(error: MessageError) -> Self {
        Self::TooLarge { reason: error.to_string() }
    }
}
