//! What a connection knows: its streams, and what waits to be read and written. Pure: no I/O and no waiting, only
//! notices to those who wait.

mod entry;
mod receive;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{MuxError, Role, StreamItem};
use crate::{
    frame::{Frame, FrameKind},
    limits::{INITIAL_CREDIT, MAX_PEER_STREAMS, MAX_REASON, data_cost},
};
use entry::{Arrival, Entry};

pub(super) use entry::Signals;

/// Frames of one stream that may wait to be written, apart from its end.
const MAX_QUEUED: usize = 4;

/// A connection.
#[derive(Debug)]
pub(super) struct State {
    role: Role,
    streams: HashMap<u32, Entry>,
    /// The peer's streams that nobody has taken yet.
    incoming: VecDeque<(u32, Bytes)>,
    accepting: bool,
    next_id: u32,
    last_peer_id: u32,
    /// Streams that have something small to write, and those that have data. A stream is in each at most once.
    urgent: VecDeque<u32>,
    bulk: VecDeque<u32>,
    pongs: VecDeque<Bytes>,
    ping: Option<u64>,
    last_ping: u64,
    last_pong: u64,
    /// Bytes of requests and messages that wait to be read.
    pending_bytes: usize,
    /// What the end will be if this end brings it about.
    abort: Option<MuxError>,
    end: Option<MuxError>,
}

impl State {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            streams: HashMap::new(),
            incoming: VecDeque::new(),
            accepting: true,
            next_id: if role == Role::Host { 1 } else { 2 },
            last_peer_id: 0,
            urgent: VecDeque::new(),
            bulk: VecDeque::new(),
            pongs: VecDeque::new(),
            ping: None,
            last_ping: 0,
            last_pong: 0,
            pending_bytes: 0,
            abort: None,
            end: None,
        }
    }

    pub(super) fn end(&self) -> Option<MuxError> {
        self.end.clone()
    }

    pub(super) fn abort(&mut self, reason: MuxError) {
        self.abort.get_or_insert(reason);
    }

    /// The connection is over: everybody who waits is told.
    pub(super) fn finish(&mut self, end: MuxError) {
        let end = self.abort.take().unwrap_or(end);
        self.end.get_or_insert(end);
        for (id, _) in std::mem::take(&mut self.incoming) {
            self.streams.remove(&id);
        }
        for entry in self.streams.values_mut() {
            entry.out.clear();
            entry.signals.both();
        }
    }

    pub(super) fn ping(&mut self) -> u64 {
        self.last_ping += 1;
        self.ping = Some(self.last_ping);
        self.last_ping
    }

    pub(super) fn last_pong(&self) -> u64 {
        self.last_pong
    }

    pub(super) fn open(&mut self, payload: Bytes) -> Result<(u32, Signals), MuxError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let id = self.next_id;
        let live = self.streams.iter().filter(|(id, entry)| self.is_local(**id) && !entry.is_over()).count();
        let Some(next) = id.checked_add(2).filter(|_| live < MAX_PEER_STREAMS) else {
            return Err(MuxError::TooManyStreams);
        };
        self.next_id = next;
        let mut entry = Entry::default();
        entry.out.push_back(Frame::new(FrameKind::Open, id, payload));
        let signals = entry.signals.clone();
        self.streams.insert(id, entry);
        self.schedule(id);
        Ok((id, signals))
    }

    pub(super) fn accept(&mut self) -> Option<(Bytes, u32, Signals)> {
        let (id, payload) = self.incoming.pop_front()?;
        self.pending_bytes = self.pending_bytes.saturating_sub(payload.len());
        let signals = self.streams.get(&id).map(|entry| entry.signals.clone()).unwrap_or_default();
        Some((payload, id, signals))
    }

    /// Refuses the streams that wait, and all later ones.
    pub(super) fn refuse_all(&mut self) {
        self.accepting = false;
        for (id, payload) in std::mem::take(&mut self.incoming) {
            self.pending_bytes = self.pending_bytes.saturating_sub(payload.len());
            self.drop_writer(id);
            self.drop_reader(id);
        }
    }

    /// Streams that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    fn is_local(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Host)
    }

    // Reading.

    /// The next item of a stream, once there is one.
    pub(super) fn take(&mut self, id: u32, give_credit: bool) -> Option<StreamItem> {
        let end = self.end.as_ref();
        let ended =
            || StreamItem::Reset(end.map_or_else(|| MuxError::Closed.to_string(), ToString::to_string));
        let Some(entry) = self.streams.get_mut(&id) else { return Some(ended()) };
        match entry.inbox.pop_front() {
            Some(Arrival::Data { channel, bytes }) => {
                if give_credit {
                    self.give_credit(id, bytes.len());
                }
                Some(StreamItem::Data { channel, bytes })
            }
            Some(Arrival::Eof { channel }) => Some(StreamItem::Eof { channel }),
            Some(Arrival::Message(bytes)) => {
                entry.messages -= 1;
                self.pending_bytes = self.pending_bytes.saturating_sub(bytes.len());
                Some(StreamItem::Message(bytes))
            }
            None if entry.peer_closed => Some(StreamItem::Closed),
            None => match &entry.reset {
                Some(reason) => Some(StreamItem::Reset(reason.clone())),
                None => end.is_some().then(ended),
            },
        }
    }

    /// Gives the credit of a data item back.
    pub(super) fn give_credit(&mut self, id: u32, len: usize) {
        if let Some(entry) = self.streams.get_mut(&id) {
            let cost = data_cost(len);
            // Never more than the peer has spent, whatever this end's owner says.
            entry.owed = entry.owed.saturating_add(cost).min(INITIAL_CREDIT - entry.window);
            self.schedule(id);
        }
    }

    pub(super) fn drop_reader(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.reader = false;
            entry.messages = 0;
            let unread = entry.inbox.drain(..).map(|arrival| arrival.message_len()).sum();
            self.pending_bytes = self.pending_bytes.saturating_sub(unread);
            self.settle(id);
        }
    }

    // Writing.

    /// Queues a data or message frame, or the end of a channel; `None` when there is no room or credit yet.
    pub(super) fn send(&mut self, id: u32, frame: &Frame) -> Option<Result<(), MuxError>> {
        let entry = match self.writable(id) {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        let channel = frame.payload.first().copied().unwrap_or_default();
        match frame.kind {
            FrameKind::Data if entry.ended.contains(channel) => return Some(Err(MuxError::StreamClosed)),
            FrameKind::Eof if entry.ended.contains(channel) => return Some(Ok(())),
            _ => {}
        }
        if entry.out.len() >= MAX_QUEUED {
            return None;
        }
        match frame.kind {
            FrameKind::Data => entry.credit = entry.credit.checked_sub(data_cost(frame.payload.len() - 1))?,
            FrameKind::Eof => drop(entry.ended.insert(channel)),
            _ => {}
        }
        entry.out.push_back(frame.clone());
        self.schedule(id);
        Some(Ok(()))
    }

    /// Queues the end of this direction, after everything that waits.
    pub(super) fn close(&mut self, id: u32) -> Result<(), MuxError> {
        let entry = self.writable(id)?;
        entry.closed = true;
        entry.out.push_back(Frame::new(FrameKind::Close, id, Bytes::new()));
        self.schedule(id);
        Ok(())
    }

    fn writable(&mut self, id: u32) -> Result<&mut Entry, MuxError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let entry = self.streams.get_mut(&id).ok_or(MuxError::StreamClosed)?;
        match &entry.reset {
            Some(reason) => Err(MuxError::Reset(reason.clone())),
            None if entry.closed => Err(MuxError::StreamClosed),
            None => Ok(entry),
        }
    }

    /// Ends both directions at once, unless this one has been closed.
    pub(super) fn reset(&mut self, id: u32, reason: &str) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        if entry.reset.is_some() || entry.closed {
            return;
        }
        entry.reset = Some(reason.to_owned());
        // What waits is of no use any more, but the peer must hear of the stream before it hears of its end.
        entry.out.retain(|frame| frame.kind == FrameKind::Open);
        entry.push_reset(id, reason);
        entry.signals.both();
        self.schedule(id);
    }

    pub(super) fn clone_writer(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.writers += 1;
        }
    }

    pub(super) fn drop_writer(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.writers = entry.writers.saturating_sub(1);
        if entry.writers == 0 {
            self.reset(id, "its owner dropped it");
            self.settle(id);
        }
    }

    /// Ends a stream that nobody holds any more, as soon as the peer can be told.
    fn settle(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        if entry.reader || entry.writers > 0 {
            return;
        }
        if self.end.is_some() {
            self.streams.remove(&id);
            return;
        }
        if entry.reset.is_none() && !entry.peer_closed {
            let reason = "nobody reads it any more";
            entry.reset = Some(reason.to_owned());
            entry.push_reset(id, reason);
        }
        if entry.out.is_empty() {
            let listed = (entry.in_urgent, entry.in_bulk);
            self.streams.remove(&id);
            if listed.0 {
                self.urgent.retain(|listed| *listed != id);
            }
            if listed.1 {
                self.bulk.retain(|listed| *listed != id);
            }
        } else {
            self.schedule(id);
        }
    }

    fn schedule(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        let front = entry.out.front().map(|frame| frame.kind);
        if (entry.owes() || front.is_some_and(|kind| kind != FrameKind::Data)) && !entry.in_urgent {
            entry.in_urgent = true;
            self.urgent.push_back(id);
        }
        if front == Some(FrameKind::Data) && !entry.in_bulk {
            entry.in_bulk = true;
            self.bulk.push_back(id);
        }
    }

    /// The next frame to write.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        if let Some(payload) = self.pongs.pop_front() {
            return Some(Frame::new(FrameKind::Pong, 0, payload));
        }
        if let Some(number) = self.ping.take() {
            return Some(Frame::new(FrameKind::Ping, 0, number.to_le_bytes().to_vec()));
        }
        while let Some((id, urgent)) = self.next_stream() {
            let Some(entry) = self.streams.get_mut(&id) else { continue };
            let frame = entry.next_frame(id, urgent);
            entry.signals.writable.notify_waiters();
            self.schedule(id);
            self.settle(id);
            if frame.is_some() {
                return frame;
            }
        }
        None
    }

    fn next_stream(&mut self) -> Option<(u32, bool)> {
        if let Some(id) = self.urgent.pop_front() {
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.in_urgent = false;
            }
            return Some((id, true));
        }
        let id = self.bulk.pop_front()?;
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.in_bulk = false;
        }
        Some((id, false))
    }
}

/// A reason that fits a reset frame.
fn reason_bytes(reason: &str) -> Bytes {
    let end = reason.floor_char_boundary(MAX_REASON);
    Bytes::copy_from_slice(reason.get(..end).unwrap_or_default().as_bytes())
}
