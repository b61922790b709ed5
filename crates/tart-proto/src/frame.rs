//! The frame codec: bytes to frames and back, with no I/O.
//!
//! A frame is `u32 length | u8 kind | u32 stream | payload`, integers little-endian; `length` counts everything
//! after itself. A session starts with a [`Preamble`] whose first four bytes, read as a length, exceed every legal
//! frame, so a preamble is recognised at any frame border: that is how a guest restored from a snapshot learns that
//! a new host session begins, and how both ends skip stale bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::{MAX_DATA, MAX_MESSAGE, MAX_REASON, MAX_RESYNC, VERSION};

/// First bytes of a preamble: `"TART"`, as a length 1.4 GB.
const MAGIC: [u8; 4] = *b"TART";
/// Magic, version, token.
const PREAMBLE_LEN: usize = 4 + 2 + 16;
/// Kind and stream id, the part of a frame that `length` counts besides the payload.
const HEADER_LEN: usize = 1 + 4;

/// What a frame is for. The discriminant is the byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Opens a stream; the payload is a typed request.
    Open = 1,
    /// One channel byte, then up to [`MAX_DATA`] bytes.
    Data = 2,
    /// End of one channel; the payload is the channel byte.
    Eof = 3,
    /// A typed event or control within a stream.
    Message = 4,
    /// A little-endian `u32`: credit given back to the sender.
    Credit = 5,
    /// The sender needs the stream no more; it ended well.
    Close = 6,
    /// The stream failed or was dropped; the payload is a reason in UTF-8.
    Reset = 7,
    /// Asks for a pong with the same eight bytes.
    Ping = 8,
    /// Answers a ping.
    Pong = 9,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Open,
            2 => Self::Data,
            3 => Self::Eof,
            4 => Self::Message,
            5 => Self::Credit,
            6 => Self::Close,
            7 => Self::Reset,
            8 => Self::Ping,
            9 => Self::Pong,
            _ => return None,
        })
    }

    /// Smallest and largest legal payload, in bytes.
    fn payload_limits(self) -> (usize, usize) {
        match self {
            Self::Open | Self::Message => (0, MAX_MESSAGE),
            Self::Data => (1, MAX_DATA + 1),
            Self::Eof => (1, 1),
            Self::Credit => (4, 4),
            Self::Close => (0, 0),
            Self::Reset => (0, MAX_REASON),
            Self::Ping | Self::Pong => (8, 8),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: FrameKind,
    /// Stream it belongs to; 0 for ping and pong. The host opens odd streams, the guest even ones.
    pub stream: u32,
    /// The rest.
    pub payload: Bytes,
}

impl Frame {
    /// A frame of any kind; the caller keeps the payload within the kind's limits (the encoder checks).
    #[must_use]
    pub fn new(kind: FrameKind, stream: u32, payload: impl Into<Bytes>) -> Self {
        Self { kind, stream, payload: payload.into() }
    }

    /// Appends the encoded frame to `out`.
    ///
    /// # Errors
    /// [`FrameError::BadLength`] if the payload is outside the limits of its kind; nothing is written then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let (min, max) = self.kind.payload_limits();
        let len = self.payload.len();
        if len < min || len > max {
            return Err(FrameError::BadLength { kind: self.kind, len });
        }
        out.reserve(4 + HEADER_LEN + len);
        out.put_u32_le(u32::try_from(HEADER_LEN + len).unwrap_or(u32::MAX));
        out.put_u8(self.kind as u8);
        out.put_u32_le(self.stream);
        out.put_slice(&self.payload);
        Ok(())
    }
}

/// Start of a session. The host sends one with a fresh random token; the agent answers with the same token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// Protocol version of the sender.
    pub version: u16,
    /// Chosen by the host for this session.
    pub token: [u8; 16],
}

impl Preamble {
    /// A preamble of this build's version.
    #[must_use]
    pub fn new(token: [u8; 16]) -> Self {
        Self { version: VERSION, token }
    }

    /// Appends the encoded preamble to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u16_le(self.version);
        out.put_slice(&self.token);
    }
}

/// What a decoder finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A session starts; all earlier streams are gone.
    Preamble(Preamble),
    /// A frame of the current session.
    Frame(Frame),
}

/// A breach of the frame rules. The connection cannot go on after one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The kind byte is unknown.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The payload is too short or too long for its kind.
    #[error("{kind:?} frame with {len} payload bytes is outside its limits")]
    BadLength {
        /// Kind of the frame.
        kind: FrameKind,
        /// Payload bytes announced.
        len: usize,
    },
    /// The length field cannot belong to any frame.
    #[error("frame length {0} is outside the limits")]
    ImpossibleLength(u32),
    /// No preamble came within [`MAX_RESYNC`] bytes.
    #[error("no session preamble within {MAX_RESYNC} bytes")]
    NoPreamble,
}

/// Turns bytes into frames. Feed it with [`Decoder::extend`], then call [`Decoder::next_item`] until it gives `None`.
///
/// It buffers at most one frame beyond what was fed.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Looking for a preamble: bytes skipped so far.
    searching: Option<usize>,
    /// Token of the session. A host says its preamble again until it is answered, so the same one may come late.
    token: Option<[u8; 16]>,
}

impl Decoder {
    /// A decoder that skips everything before the first preamble.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), searching: Some(0), token: None }
    }

    /// A decoder in the middle of a session: frames may follow at once.
    #[must_use]
    pub fn in_session() -> Self {
        Self { buffer: BytesMut::new(), searching: None, token: None }
    }

    /// A decoder right after the preamble of a session.
    pub(crate) fn of_session(preamble: &Preamble) -> Self {
        Self { buffer: BytesMut::new(), searching: None, token: Some(preamble.token) }
    }

    /// Adds received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into directly.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next complete item, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// A [`FrameError`] if the bytes break the rules; the decoder is then of no more use.
    pub fn next_item(&mut self) -> Result<Option<Item>, FrameError> {
        if let Some(skipped) = self.searching {
            return self.find_preamble(skipped);
        }
        while self.buffer.starts_with(&MAGIC) {
            let current = self.token;
            match self.take_preamble() {
                Some(preamble) if current == Some(preamble.token) => {}
                preamble => return Ok(preamble.map(Item::Preamble)),
            }
        }
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head);
        let body = length as usize;
        if !(HEADER_LEN..=HEADER_LEN + MAX_MESSAGE).contains(&body) {
            return Err(FrameError::ImpossibleLength(length));
        }
        let Some(&kind_byte) = self.buffer.get(4) else { return Ok(None) };
        let kind = FrameKind::from_byte(kind_byte).ok_or(FrameError::UnknownKind(kind_byte))?;
        let len = body - HEADER_LEN;
        let (min, max) = kind.payload_limits();
        if len < min || len > max {
            return Err(FrameError::BadLength { kind, len });
        }
        if self.buffer.len() < 4 + body {
            return Ok(None);
        }
        self.buffer.advance(5);
        let stream = self.buffer.get_u32_le();
        // A copy: a slice would keep all of the buffer in memory for as long as the payload waits.
        let payload = Bytes::copy_from_slice(self.buffer.get(..len).unwrap_or_default());
        self.buffer.advance(len);
        Ok(Some(Item::Frame(Frame { kind, stream, payload })))
    }

    fn find_preamble(&mut self, skipped: usize) -> Result<Option<Item>, FrameError> {
        let found = self.buffer.windows(MAGIC.len()).position(|window| window == MAGIC);
        // Without a match keep the last bytes: they may be the start of the magic.
        let skip = found.unwrap_or_else(|| self.buffer.len().saturating_sub(MAGIC.len() - 1));
        self.buffer.advance(skip);
        let skipped = skipped + skip;
        if skipped > MAX_RESYNC {
            return Err(FrameError::NoPreamble);
        }
        self.searching = Some(skipped);
        if found.is_none() {
            return Ok(None);
        }
        Ok(self.take_preamble().map(Item::Preamble))
    }

    /// Skips everything up to the preamble with a token, also what merely looks like a preamble; the session starts
    /// after it. `None` when more bytes are needed.
    pub(crate) fn find_answer(&mut self, token: &[u8; 16]) -> Result<Option<Preamble>, FrameError> {
        let mut skipped = self.searching.unwrap_or(0);
        loop {
            let found = self.buffer.windows(MAGIC.len()).position(|window| window == MAGIC);
            let skip = found.unwrap_or_else(|| self.buffer.len().saturating_sub(MAGIC.len() - 1));
            self.buffer.advance(skip);
            skipped += skip;
            self.searching = Some(skipped);
            if skipped > MAX_RESYNC {
                return Err(FrameError::NoPreamble);
            }
            let Some(candidate) = self.buffer.get(..PREAMBLE_LEN) else { return Ok(None) };
            if candidate.ends_with(token) {
                return Ok(self.take_preamble());
            }
            self.buffer.advance(1);
            skipped += 1;
        }
    }

    /// The preamble at the front of the buffer, once all of it is there.
    fn take_preamble(&mut self) -> Option<Preamble> {
        if self.buffer.len() < PREAMBLE_LEN {
            return None;
        }
        self.buffer.advance(MAGIC.len());
        let version = self.buffer.get_u16_le();
        let mut token = [0; 16];
        self.buffer.copy_to_slice(&mut token);
        self.searching = None;
        self.token = Some(token);
        Some(Preamble { version, token })
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
