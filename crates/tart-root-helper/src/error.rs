//! What goes wrong between the two.

use std::{io, path::PathBuf};

use crate::{MAX_DESCRIPTORS, MAX_MESSAGE};

/// Why the helper does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// Nobody listens there.
    #[error("the root helper cannot be reached at {}: {source}; is `tart root-helper` running, and may this user use it?", path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It refused or failed.
    #[error("the root helper: {0}")]
    Refused(String),
    /// It is gone.
    #[error("the root helper ended the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection between runner and root helper: {0}")]
    Broken(#[from] io::Error),
    /// What came is no message that is expected.
    #[error("a message between runner and root helper is malformed: {0}")]
    Malformed(String),
    /// What is to be sent is too much.
    #[error(
        "a message between runner and root helper has more than {MAX_MESSAGE} bytes or {MAX_DESCRIPTORS} descriptors"
    )]
    TooLarge,
}
