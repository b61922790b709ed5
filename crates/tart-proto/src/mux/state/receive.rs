//! Taking frames in: every rule of the protocol and every limit on what the peer may make this end keep.

use bytes::{Buf, Bytes};

use super::{Arrival, Entry, MuxError, State};
use crate::{
    frame::{Frame, FrameKind},
    limits::{INITIAL_CREDIT, MAX_PEER_STREAMS, MAX_PENDING_BYTES, MAX_PENDING_MESSAGES, data_cost},
};

/// Pings that wait to be answered; a peer that sends more without reading answers gets none for the rest.
const MAX_PONGS: usize = 16;

/// Peer's streams that are kept because this end still holds them, dead ones included. A new one is refused then.
const MAX_HELD: usize = 2 * MAX_PEER_STREAMS;

const UNKNOWN_STREAM: MuxError = MuxError::Protocol("a frame of a stream that was never opened");

/// Who is to be told after a frame was received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::mux) struct Consequences {
    pub(in crate::mux) write: bool,
    pub(in crate::mux) event: bool,
}

impl State {
    /// Takes a frame in; an error ends the connection.
    pub(in crate::mux) fn receive(&mut self, mut frame: Frame) -> Result<Consequences, MuxError> {
        let mut consequences = Consequences::default();
        match frame.kind {
            FrameKind::Ping => {
                if self.pongs.len() < MAX_PONGS {
                    self.pongs.push_back(frame.payload);
                }
                consequences.write = true;
            }
            FrameKind::Pong => {
                let number = frame.payload.try_get_u64_le().unwrap_or(0);
                if number > self.last_ping {
                    return Err(MuxError::Protocol("an answer to a ping that was never sent"));
                }
                self.last_pong = self.last_pong.max(number);
                consequences.event = true;
            }
            FrameKind::Open => {
                self.receive_open(frame.stream, frame.payload)?;
                consequences = Consequences { write: true, event: true };
            }
            _ => consequences.write = self.receive_in_stream(frame)?,
        }
        Ok(consequences)
    }

    fn receive_open(&mut self, id: u32, payload: Bytes) -> Result<(), MuxError> {
        if id == 0 || self.is_local(id) || id <= self.last_peer_id {
            return Err(MuxError::Protocol("a stream opened with an id that is not the peer's next"));
        }
        self.last_peer_id = id;
        let theirs = self.streams.iter().filter(|(id, _)| !self.is_local(**id));
        let (held, live) =
            theirs.fold((0, 0), |(held, live), (_, entry)| (held + 1, live + usize::from(!entry.is_over())));
        if live >= MAX_PEER_STREAMS {
            return Err(MuxError::Protocol("more streams are open than the limit"));
        }
        self.streams.insert(id, Entry::default());
        if !self.accepting || held >= MAX_HELD {
            self.drop_writer(id);
            self.drop_reader(id);
            return Ok(());
        }
        self.pend(payload.len())?;
        self.incoming.push_back((id, payload));
        Ok(())
    }

    fn pend(&mut self, len: usize) -> Result<(), MuxError> {
        self.pending_bytes += len;
        if self.pending_bytes > MAX_PENDING_BYTES {
            return Err(MuxError::Protocol("more bytes of messages wait than the limit"));
        }
        Ok(())
    }

    /// True if there may be something to write now.
    fn receive_in_stream(&mut self, mut frame: Frame) -> Result<bool, MuxError> {
        let id = frame.stream;
        let Some(entry) = self.streams.get_mut(&id) else {
            let known = if self.is_local(id) { id < self.next_id } else { id <= self.last_peer_id };
            // It has ended here, and the peer did not know yet.
            return if known && id != 0 { Ok(false) } else { Err(UNKNOWN_STREAM) };
        };
        if entry.reset.is_some() {
            if frame.kind == FrameKind::Reset {
                entry.out.clear();
                self.settle(id);
            }
            return Ok(false);
        }
        if entry.peer_closed && !matches!(frame.kind, FrameKind::Credit | FrameKind::Reset) {
            return Err(MuxError::Protocol("a frame of a stream after its close"));
        }
        match frame.kind {
            FrameKind::Data => {
                let mut bytes = frame.payload;
                let channel = bytes.try_get_u8().map_err(|_| MuxError::Protocol("data without a channel"))?;
                if entry.peer_ended.contains(channel) {
                    return Err(MuxError::Protocol("data of a channel after its end"));
                }
                entry.window = entry
                    .window
                    .checked_sub(data_cost(bytes.len()))
                    .ok_or(MuxError::Protocol("more data than the credit allows"))?;
                entry.deliver(Arrival::Data { channel, bytes });
            }
            FrameKind::Eof => {
                let channel = frame.payload.try_get_u8().unwrap_or_default();
                if !entry.peer_ended.insert(channel) {
                    return Err(MuxError::Protocol("a channel that ended twice"));
                }
                entry.deliver(Arrival::Eof { channel });
            }
            FrameKind::Message if entry.reader => {
                let len = frame.payload.len();
                if entry.messages >= MAX_PENDING_MESSAGES {
                    return Err(MuxError::Protocol("more messages of a stream wait than the limit"));
                }
                entry.messages += 1;
                entry.deliver(Arrival::Message(frame.payload));
                self.pend(len)?;
            }
            FrameKind::Credit => {
                let given = frame.payload.try_get_u32_le().unwrap_or_default();
                let credit = entry.credit.checked_add(given).filter(|credit| *credit <= INITIAL_CREDIT);
                entry.credit = credit.ok_or(MuxError::Protocol("more credit than was spent"))?;
                entry.signals.writable.notify_waiters();
            }
            FrameKind::Close => {
                entry.peer_closed = true;
                entry.signals.readable.notify_waiters();
                self.settle(id);
            }
            FrameKind::Reset => {
                entry.reset = Some(String::from_utf8_lossy(&frame.payload).into_owned());
                entry.out.clear();
                entry.signals.both();
                // One that ended well before may still be taken and read.
                let failed = !entry.peer_closed;
                if let Some(place) = self.incoming.iter().position(|(waiting, _)| *waiting == id && failed) {
                    let payload = self.incoming.remove(place).map(|(_, payload)| payload).unwrap_or_default();
                    self.pending_bytes = self.pending_bytes.saturating_sub(payload.len());
                    self.drop_reader(id);
                    self.drop_writer(id);
                } else {
                    self.settle(id);
                }
            }
            FrameKind::Message | FrameKind::Open | FrameKind::Ping | FrameKind::Pong => {}
        }
        Ok(true)
    }
}
