//! Why a connection or a stream cannot go on.

use std::{io, sync::Arc};

use crate::{
    frame::{FrameError, Preamble},
    limits::{MAX_MESSAGE, VERSION},
};

/// Why a connection or a stream cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MuxError {
    /// The peer, or the last holder of this end, ended the connection.
    #[error("the connection was closed")]
    Closed,
    /// The host started another session on the same connection.
    #[error("the host started a new session")]
    NewSession(Preamble),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {theirs} of the protocol, not {VERSION}")]
    Version {
        /// What it speaks.
        theirs: u16,
    },
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The peer sent what is no frame.
    #[error("malformed frame: {0}")]
    Frame(#[from] FrameError),
    /// The peer broke a rule or went over a limit.
    #[error("breach of the protocol: {0}")]
    Protocol(&'static str),
    /// The stream was reset by the peer or by this end; the text may be the peer's.
    #[error("the stream was reset: {0}")]
    Reset(String),
    /// This end has already closed the stream, or ended the channel.
    #[error("the stream is already closed")]
    StreamClosed,
    /// This end has as many streams open as the peer takes.
    #[error("too many streams are open")]
    TooManyStreams,
    /// A request or message does not fit a frame.
    #[error("message of {0} bytes is over the limit of {MAX_MESSAGE} bytes")]
    TooLarge(usize),
}

impl From<io::Error> for MuxError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Self::Closed
            }
            _ => Self::Io(Arc::new(error)),
        }
    }
}
