//! The hard limits of the protocol. Both ends enforce all of them.

/// Version of the whole protocol. Host and agent come from one build, so only an equal version is accepted.
pub const VERSION: u16 = 3;

/// Largest payload of a data frame, in bytes (without the channel byte).
pub const MAX_DATA: usize = 64 * 1024;

/// Largest payload of an open or message frame, in bytes.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Longest reason text in a reset frame, in bytes.
pub const MAX_REASON: usize = 4096;

/// Credit that each end of a new stream starts with, in bytes of [`data_cost`].
pub const INITIAL_CREDIT: u32 = 1024 * 1024;

/// Most streams that the peer may have open at once. With [`INITIAL_CREDIT`] it bounds the data that waits unread.
pub const MAX_PEER_STREAMS: usize = 128;

/// Most messages of one stream that may wait unread. A peer that sends more is cut off.
pub const MAX_PENDING_MESSAGES: usize = 1024;

/// Most bytes of open and message frames of a whole connection that may wait unread. A peer that sends more is cut
/// off.
pub const MAX_PENDING_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that a decoder skips at most while it looks for the preamble of a new session.
pub const MAX_RESYNC: usize = 1024 * 1024;

/// What a data frame of `len` payload bytes costs in credit. The fixed part bounds the memory that a flood of tiny
/// frames can take.
#[must_use]
pub fn data_cost(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX).saturating_add(64)
}
