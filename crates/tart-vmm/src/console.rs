//! What a machine says, bounded: its console and the monitor's own messages.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The last bytes of an endless stream.
#[derive(Debug)]
struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
}

impl Ring {
    fn push(&mut self, chunk: &[u8]) {
        let kept = chunk.get(chunk.len().saturating_sub(self.capacity)..).unwrap_or_default();
        let over = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
    }
}

/// A log of which only the end is kept.
#[derive(Debug, Clone)]
pub(crate) struct Tail(Arc<Mutex<Ring>>);

impl Tail {
    /// Keeps this many bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Ring { bytes: VecDeque::new(), capacity })))
    }

    /// Takes what was read next.
    pub(crate) fn keep(&self, chunk: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
    }

    /// Reads a stream to its end. It never stops reading for lack of space, so the writer never has to wait.
    pub(crate) async fn follow(self, mut from: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 4096];
        // An error ends the stream like its end does.
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            self.keep(buffer.get(..len).unwrap_or_default());
        }
    }

    /// What is kept, as text fit for a terminal.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.iter().copied().collect();
        printable(&String::from_utf8_lossy(&bytes))
    }
}

/// Text without control characters and terminal sequences; every line ends in a line feed alone.
fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // A sequence ends with its first character of this range (ECMA-48).
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tail(capacity: usize, chunks: &[&[u8]]) -> String {
        let tail = Tail::new(capacity);
        for chunk in chunks {
            tail.0.lock().unwrap().push(chunk);
        }
        tail.text()
    }

    #[test]
    fn only_the_end_is_kept() {
        assert_eq!(tail(4, &[b"ab", b"cd"]), "abcd");
        assert_eq!(tail(4, &[b"ab", b"cde"]), "bcde");
        assert_eq!(tail(4, &[b"ab", b"0123456789"]), "6789");
        assert_eq!(tail(4, &[]), "");
    }

    #[test]
    fn terminal_sequences_and_controls_are_left_out() {
        assert_eq!(tail(100, &[b"\x1b[2J\x1b[1;31mred\x1b[0m\r\nnext\x07\x00\tz\x1b"]), "red\nnext\tz");
    }

    #[tokio::test]
    async fn a_stream_is_followed_to_its_end() {
        let tail = Tail::new(10);
        tail.clone().follow(&[b'x'; 100_000][..]).await;
        assert_eq!(tail.text(), "x".repeat(10));
    }

    proptest! {
        #[test]
        fn the_tail_is_the_end_of_everything(
            chunks in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 0..20), 0..20),
            capacity in 1_usize..40,
        ) {
            let all = chunks.concat();
            let chunks: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
            let end = &all[all.len().saturating_sub(capacity)..];
            prop_assert_eq!(tail(capacity, &chunks).into_bytes(), end);
        }

        #[test]
        fn any_bytes_become_printable(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!tail(100, &[&bytes]).chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
