//! What services print: the last of it for when they fail, and lines for the job's log. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;

/// Most that is kept of a service's output, in bytes.
const MAX_TAIL: usize = 64 * 1024;

/// A longer line is shown in pieces, in bytes.
const MAX_LINE: usize = 8 * 1024;

/// The last of a service's output.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(MAX_TAIL)..).unwrap_or(bytes);
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(MAX_TAIL);
        self.cut |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    /// Whole lines, if the beginning is missing.
    pub(super) fn text(&self) -> Vec<u8> {
        let skipped = if self.cut {
            self.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)
        } else {
            0
        };
        self.bytes.iter().skip(skipped).copied().collect()
    }
}

/// Marks lines with the service's name and the time, as `CI_DEBUG_SERVICES` shows them.
#[derive(Debug)]
pub(super) struct Lines {
    label: String,
    clock: fn() -> Timestamp,
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn new(label: &str) -> Self {
        Self { label: label.to_owned(), clock: Timestamp::now, begun: Vec::new() }
    }

    /// Takes output; gives the lines that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut marked = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(MAX_LINE) {
                self.begun.extend_from_slice(piece);
                if self.begun.ends_with(b"\n") || self.begun.len() >= MAX_LINE {
                    marked.extend(self.rest());
                }
            }
        }
        marked
    }

    /// The line that has no end yet.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        if self.begun.is_empty() {
            return Vec::new();
        }
        let mut line = format!("[service:{}] {:.9} ", self.label, (self.clock)()).into_bytes();
        line.append(&mut self.begun);
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines() -> Lines {
        Lines { clock: || Timestamp::UNIX_EPOCH, ..Lines::new("postgres-db") }
    }

    #[test]
    fn lines_are_marked_when_they_are_whole() {
        let mut lines = lines();
        assert!(lines.push(b"sta").is_empty());
        insta::assert_snapshot!(String::from_utf8(lines.push(b"rted\nready\nwai")).unwrap(), @"
        [service:postgres-db] 1970-01-01T00:00:00.000000000Z started
        [service:postgres-db] 1970-01-01T00:00:00.000000000Z ready
        ");
        insta::assert_snapshot!(String::from_utf8(lines.rest()).unwrap(), @"[service:postgres-db] 1970-01-01T00:00:00.000000000Z wai");
        assert!(lines.rest().is_empty());
    }

    #[test]
    fn a_flood_without_line_ends_takes_no_memory() {
        let mut lines = lines();
        for _ in 0..100 {
            lines.push(&[b'x'; 5000]);
            assert!(lines.begun.len() < MAX_LINE * 2);
        }
    }

    #[test]
    fn the_tail_is_the_last_whole_lines() {
        let mut tail = Tail::default();
        tail.push(b"first\n");
        assert_eq!(tail.text(), b"first\n");
        tail.push(&b"0123456\n".repeat(MAX_TAIL / 8));
        assert_eq!(tail.text().len(), MAX_TAIL - 8);
        tail.push(&[b'y'; MAX_TAIL * 2]);
        assert_eq!(tail.text().len(), MAX_TAIL);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut lines = lines();
            let mut marked: Vec<u8> = pieces.iter().flat_map(|piece| lines.push(piece)).collect();
            marked.extend(lines.rest());
            let prefix = b"[service:postgres-db] 1970-01-01T00:00:00.000000000Z ";
            let mut plain: Vec<u8> =
                marked.split_inclusive(|byte| *byte == b'\n').flat_map(|line| &line[prefix.len()..]).copied().collect();
            let mut expected = pieces.concat();
            if plain.len() > expected.len() {
                expected.push(b'\n');
            }
            prop_assert_eq!(std::mem::take(&mut plain), expected);
        }
    }
}
