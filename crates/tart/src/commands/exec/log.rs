//! The job's log without colours, for files and pipes.

use async_trait::async_trait;
use tart_runner::JobLogSink;

/// Takes colours and erasures out of a log, unless they are wanted.
#[derive(Debug)]
pub(super) struct Uncoloured<S> {
    inner: S,
    coloured: bool,
    stripper: Stripper,
}

impl<S: JobLogSink> Uncoloured<S> {
    pub(super) fn new(inner: S, coloured: bool) -> Self {
        Self { inner, coloured, stripper: Stripper::default() }
    }
}

#[async_trait]
impl<S: JobLogSink> JobLogSink for Uncoloured<S> {
    fn write(&mut self, bytes: &[u8]) {
        if self.coloured {
            self.inner.write(bytes);
        } else {
            self.inner.write(&self.stripper.strip(bytes));
        }
    }

    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

/// The longest escape sequence that is recognised; a longer one is none.
const MAX_SEQUENCE: usize = 64;

/// Removes `ESC [ ... m` (colours) and `ESC [ ... K` (erasures), also over the borders of chunks.
#[derive(Debug, Default)]
struct Stripper {
    /// An escape sequence that has begun.
    held: Vec<u8>,
}

impl Stripper {
    fn strip(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            let expected = match self.held.len() {
                0 => byte == 0x1b,
                1 => byte == b'[',
                length => length < MAX_SEQUENCE && matches!(byte, b'0'..=b'9' | b';' | b':'),
            };
            if expected {
                self.held.push(byte);
            } else if self.held.len() > 1 && matches!(byte, b'm' | b'K') {
                self.held.clear();
            } else {
                out.append(&mut self.held);
                if byte == 0x1b { self.held.push(byte) } else { out.push(byte) }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(chunks: &[&str]) -> String {
        let mut stripper = Stripper::default();
        let out: Vec<u8> = chunks.iter().flat_map(|chunk| stripper.strip(chunk.as_bytes())).collect();
        String::from_utf8(out).expect("only whole sequences are removed")
    }

    #[test]
    fn colours_vanish_wherever_chunks_end() {
        assert_eq!(strip(&["\x1b[0;m\x1b[31", ";1mred\x1b", "[0m\x1b[0K!\n"]), "red!\n");
    }

    #[test]
    fn what_is_no_colour_stays() {
        assert_eq!(strip(&["a\x1bb \x1b[2J \x1b\x1b[m\n"]), "a\x1bb \x1b[2J \x1b\n");
    }
}
