//! One stream of a connection.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::sync::Notify;

use super::reason_bytes;
use crate::{
    frame::{Frame, FrameKind},
    limits::INITIAL_CREDIT,
};

/// Consumed credit from which on it is worth a frame. The rest must allow the largest data frame.
const WORTH_GIVING: u32 = INITIAL_CREDIT / 4;

/// How the owners of a stream learn that trying again may help.
#[derive(Debug, Clone, Default)]
pub(in crate::mux) struct Signals {
    pub(in crate::mux) readable: Arc<Notify>,
    pub(in crate::mux) writable: Arc<Notify>,
}

impl Signals {
    pub(super) fn both(&self) {
        self.readable.notify_waiters();
        self.writable.notify_waiters();
    }
}

/// What waits to be read.
#[derive(Debug)]
pub(super) enum Arrival {
    Data { channel: u8, bytes: Bytes },
    Eof { channel: u8 },
    Message(Bytes),
}

impl Arrival {
    /// What it counts among the bytes of messages.
    pub(super) fn message_len(&self) -> usize {
        match self {
            Self::Message(bytes) => bytes.len(),
            Self::Data { .. } | Self::Eof { .. } => 0,
        }
    }
}

/// A set of channels.
#[derive(Debug, Default)]
pub(super) struct Channels([u128; 2]);

impl Channels {
    pub(super) fn contains(&self, channel: u8) -> bool {
        self.0.get(usize::from(channel >> 7)).is_some_and(|bits| bits >> (channel & 127) & 1 == 1)
    }

    /// True if it was not in yet.
    pub(super) fn insert(&mut self, channel: u8) -> bool {
        let new = !self.contains(channel);
        if let Some(bits) = self.0.get_mut(usize::from(channel >> 7)) {
            *bits |= 1 << (channel & 127);
        }
        new
    }
}

/// A stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) signals: Signals,
    pub(super) inbox: VecDeque<Arrival>,
    /// Messages in the inbox.
    pub(super) messages: usize,
    /// What the peer may still send.
    pub(super) window: u32,
    /// What was consumed but not given back yet.
    pub(super) owed: u32,
    pub(super) peer_ended: Channels,
    pub(super) peer_closed: bool,
    /// What may still be sent.
    pub(super) credit: u32,
    pub(super) ended: Channels,
    pub(super) closed: bool,
    /// Frames to write.
    pub(super) out: VecDeque<Frame>,
    /// Whether the stream is in the list of that name.
    pub(super) in_urgent: bool,
    pub(super) in_bulk: bool,
    /// Why either end ended it before its time.
    pub(super) reset: Option<String>,
    /// Whether there is a reader. A stream that waits to be taken has its handles already.
    pub(super) reader: bool,
    pub(super) writers: usize,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            signals: Signals::default(),
            inbox: VecDeque::new(),
            messages: 0,
            window: INITIAL_CREDIT,
            owed: 0,
            peer_ended: Channels::default(),
            peer_closed: false,
            credit: INITIAL_CREDIT,
            ended: Channels::default(),
            closed: false,
            out: VecDeque::new(),
            in_urgent: false,
            in_bulk: false,
            reset: None,
            reader: true,
            writers: 1,
        }
    }
}

impl Entry {
    /// Whether both ends know that it is over. It may still have items to read.
    pub(super) fn is_over(&self) -> bool {
        self.out.is_empty() && (self.reset.is_some() || (self.closed && self.peer_closed))
    }

    pub(super) fn deliver(&mut self, arrival: Arrival) {
        if self.reader {
            self.inbox.push_back(arrival);
            self.signals.readable.notify_waiters();
        }
    }

    pub(super) fn push_reset(&mut self, id: u32, reason: &str) {
        self.out.push_back(Frame::new(FrameKind::Reset, id, reason_bytes(reason)));
    }

    /// Whether credit is to be given back.
    pub(super) fn owes(&self) -> bool {
        self.owed >= WORTH_GIVING && self.reset.is_none() && !self.peer_closed
    }

    /// The next frame to write; in an urgent turn no data.
    pub(super) fn next_frame(&mut self, id: u32, urgent: bool) -> Option<Frame> {
        if urgent {
            // The peer must hear of the stream first.
            let opening = self.out.front().is_some_and(|frame| frame.kind == FrameKind::Open);
            if self.owes() && !opening {
                let given = std::mem::take(&mut self.owed);
                self.window += given;
                return Some(Frame::new(FrameKind::Credit, id, given.to_le_bytes().to_vec()));
            }
            if self.out.front().is_some_and(|frame| frame.kind == FrameKind::Data) {
                return None;
            }
        }
        self.out.pop_front()
    }
}
