//! The prefix that gives each line of a job log its time, stream and kind (`FF_TIMESTAMPS`).
//!
//! An entry is 31 bytes of header with a flag as the 32nd, then content, then a line feed:
//!
//! ```text
//! 2026-11-24T10:00:00.000000Z 01O+content
//! ```
//!
//! The flag is a space for the start of a line and `+` for more of the line the stream's previous entry began.

use std::fmt::Write as _;

use jiff::Timestamp;

/// An unterminated line is written out in pieces of this many bytes.
const LONGEST_PIECE: usize = 8 * 1024;

/// What an entry's content came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Standard output, and the runner's own lines.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Turns one stream's bytes into timestamped entries. Writes only whole entries, so that the entries of several
/// streams can share one log.
#[derive(Debug)]
pub struct Timestamper {
    /// `01O`: the two digits of the stream and the letter of the channel.
    source: String,
    continues: bool,
    line: Vec<u8>,
    line_started: Timestamp,
}

impl Timestamper {
    /// Starts a stream. `stream` is 0 for the runner's own lines, 1 for the build, 15 and up for services.
    pub fn new(stream: u8, channel: Channel) -> Self {
        let letter = match channel {
            Channel::Stdout => 'O',
            Channel::Stderr => 'E',
        };
        let source = format!("{stream:02x}{letter}");
        Self { source, continues: false, line: Vec::new(), line_started: Timestamp::UNIX_EPOCH }
    }

    /// Takes the stream's next bytes, which arrived at `now`, and appends the entries they complete to `out`.
    ///
    /// A carriage return in what follows the last line feed of `input` completes an entry too, so that progress
    /// bars and section markers are not held back.
    pub fn write(&mut self, now: Timestamp, input: &[u8], out: &mut Vec<u8>) {
        let (lines, rest) = match input.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => input.split_at(last + 1),
            None => (&[][..], input),
        };
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            self.hold(now, line.strip_suffix(b"\n").unwrap_or(line), out);
            self.end_entry(now, false, out);
        }
        self.hold(now, rest, out);
        if rest.contains(&b'\r') && !self.line.is_empty() {
            self.end_entry(now, true, out);
        }
    }

    /// Appends the line that is still open, if any, to `out`.
    pub fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.end_entry(now, false, out);
        }
    }

    fn hold(&mut self, now: Timestamp, mut content: &[u8], out: &mut Vec<u8>) {
        while !content.is_empty() {
            if self.line.len() == LONGEST_PIECE {
                self.end_entry(now, true, out);
            }
            if self.line.is_empty() {
                self.line_started = now;
            }
            let room = LONGEST_PIECE - self.line.len();
            let (piece, rest) = content.split_at(content.len().min(room));
            self.line.extend_from_slice(piece);
            content = rest;
        }
    }

    fn end_entry(&mut self, now: Timestamp, line_goes_on: bool, out: &mut Vec<u8>) {
        let started = if self.line.is_empty() { now } else { self.line_started };
        let flag = if self.continues { '+' } else { ' ' };
        let mut header = String::with_capacity(32);
        write!(header, "{} {}{flag}", started.strftime("%Y-%m-%dT%H:%M:%S.%6fZ"), self.source)
            .expect("a UTC time is always writable");
        out.extend_from_slice(header.as_bytes());
        out.append(&mut self.line);
        out.push(b'\n');
        self.continues = line_goes_on;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: usize = 32;

    fn at(microseconds: i64) -> Timestamp {
        Timestamp::from_microsecond(1_790_000_000_000_000 + microseconds).expect("in range")
    }

    fn text(out: &[u8]) -> &str {
        std::str::from_utf8(out).expect("text")
    }

    #[test]
    fn every_line_gets_the_time_it_began() {
        let mut stream = Timestamper::new(1, Channel::Stderr);
        let mut out = Vec::new();
        stream.write(at(0), b"one\ntw", &mut out);
        stream.write(at(5), b"o\n\n", &mut out);
        stream.write(at(9), b"end", &mut out);
        stream.finish(at(10), &mut out);
        insta::assert_snapshot!(text(&out), @"
        2026-09-21T14:13:20.000000Z 01E one
        2026-09-21T14:13:20.000000Z 01E two
        2026-09-21T14:13:20.000005Z 01E 
        2026-09-21T14:13:20.000009Z 01E end
        ");
    }

    #[test]
    fn a_carriage_return_ends_an_entry_and_the_next_one_continues_it() {
        let mut stream = Timestamper::new(0, Channel::Stdout);
        let mut out = Vec::new();
        stream.write(at(0), b"section_start:1:x\r\x1b[0K", &mut out);
        stream.write(at(1), b"Header\nnext\n", &mut out);
        assert_eq!(
            text(&out),
            "2026-09-21T14:13:20.000000Z 00O section_start:1:x\r\x1b[0K\n\
             2026-09-21T14:13:20.000001Z 00O+Header\n\
             2026-09-21T14:13:20.000001Z 00O next\n"
        );
    }

    #[test]
    fn a_windows_line_end_is_one_line() {
        let mut stream = Timestamper::new(15, Channel::Stdout);
        let mut out = Vec::new();
        stream.write(at(0), b"a\r\nb\r\n", &mut out);
        assert_eq!(text(&out), "2026-09-21T14:13:20.000000Z 0fO a\r\n2026-09-21T14:13:20.000000Z 0fO b\r\n");
    }

    #[test]
    fn a_long_line_is_cut_into_pieces() {
        let mut stream = Timestamper::new(1, Channel::Stdout);
        let mut out = Vec::new();
        stream.write(at(0), &[b'x'; LONGEST_PIECE], &mut out);
        assert!(out.is_empty());
        stream.write(at(1), b"y\n", &mut out);
        let entries: Vec<&[u8]> = out.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].len(), HEADER + LONGEST_PIECE + 1);
        assert_eq!(text(entries[1]), "2026-09-21T14:13:20.000001Z 01O+y\n");
    }

    proptest! {
        #[test]
        fn the_entries_give_the_input_back(writes in prop::collection::vec("[a\r\n]{0,5}|x{8190,8194}|\n", 0..20)) {
            let mut stream = Timestamper::new(1, Channel::Stdout);
            let mut out = Vec::new();
            for write in &writes {
                stream.write(at(0), write.as_bytes(), &mut out);
            }
            stream.finish(at(0), &mut out);

            let mut rebuilt = String::new();
            let mut expect_continuation = None;
            for entry in text(&out).split_terminator('\n') {
                prop_assert!(entry.len() >= HEADER && entry.len() <= HEADER + LONGEST_PIECE);
                let continues = &entry[HEADER - 1..HEADER] == "+";
                if let (false, Some(_)) = (continues, expect_continuation) {
                    rebuilt.push('\n');
                }
                rebuilt.push_str(&entry[HEADER..]);
                expect_continuation = Some(());
            }
            let input = writes.concat();
            let unterminated = input.strip_suffix('\n').unwrap_or(&input);
            prop_assert_eq!(rebuilt, unterminated);
        }
    }
}
