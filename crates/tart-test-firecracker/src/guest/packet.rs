//! Packets of virtio's vsock (virtio 1.2, 5.10.6). Pure.

/// Bytes of a header.
pub(super) const HEADER: usize = 44;

/// The host's address.
pub(super) const HOST: u64 = 2;

/// The only kind of sockets.
const STREAM: u16 = 1;

/// A side that reads no more, and one that writes no more.
pub(super) const NO_MORE_READS: u32 = 1;
pub(super) const NO_MORE_WRITES: u32 = 2;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    Credit = 6,
    AskCredit = 7,
}

impl Operation {
    fn of(number: u16) -> Option<Self> {
        let all = [
            Self::Request,
            Self::Response,
            Self::Reset,
            Self::Shutdown,
            Self::Data,
            Self::Credit,
            Self::AskCredit,
        ];
        all.into_iter().find(|operation| *operation as u16 == number)
    }
}

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) operation: Operation,
    pub(super) from: (u64, u32),
    pub(super) to: (u64, u32),
    pub(super) flags: u32,
    /// Bytes that the sender has room for, and has passed on.
    pub(super) room: u32,
    pub(super) passed_on: u32,
    pub(super) data: Vec<u8>,
}

impl Packet {
    /// Reads one; nothing if it is none of a stream.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let number = |at: usize, len: usize| {
            let bytes = header.get(at..at + len).unwrap_or_default();
            bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let small = |at| u32::try_from(number(at, 4)).unwrap_or_default();
        let tiny = |at| u16::try_from(number(at, 2)).unwrap_or_default();
        if tiny(28) != STREAM {
            return None;
        }
        Some(Self {
            operation: Operation::of(tiny(30))?,
            from: (number(0, 8), small(16)),
            to: (number(8, 8), small(20)),
            flags: small(32),
            room: small(36),
            passed_on: small(40),
            data: rest.get(..usize::try_from(small(24)).ok()?)?.to_owned(),
        })
    }

    /// As it is in a queue.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + self.data.len());
        bytes.extend(self.from.0.to_le_bytes());
        bytes.extend(self.to.0.to_le_bytes());
        for number in [self.from.1, self.to.1, len] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(STREAM.to_le_bytes());
        bytes.extend((self.operation as u16).to_le_bytes());
        for number in [self.flags, self.room, self.passed_on] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(&self.data);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_are_written() {
        let packet = Packet {
            operation: Operation::Data,
            from: (3, 1024),
            to: (HOST, 7),
            flags: 0,
            room: 65536,
            passed_on: 12,
            data: b"hello".to_vec(),
        };
        let bytes = packet.bytes();
        assert_eq!(bytes.len(), HEADER + 5);
        assert_eq!(Packet::read(&bytes), Some(packet));
        assert_eq!(Packet::read(bytes.get(..HEADER + 4).unwrap()), None, "cut");
        assert_eq!(Packet::read(&[0; HEADER]), None, "of another kind");
    }
}
