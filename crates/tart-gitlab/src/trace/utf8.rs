//! Makes a byte stream UTF-8.

/// Replaces what is not UTF-8 by U+FFFD, however the stream is cut. At most three bytes are held back, which may be
/// the beginning of a character.
#[derive(Debug, Default)]
pub(crate) struct Utf8Stream {
    pending: Vec<u8>,
}

const REPLACEMENT: &str = "\u{fffd}";

impl Utf8Stream {
    /// The text of the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let joined: Vec<u8>;
        let bytes = if self.pending.is_empty() {
            bytes
        } else {
            joined = [self.pending.as_slice(), bytes].concat();
            &joined
        };
        let mut text = String::with_capacity(bytes.len());
        let mut rest = Vec::new();
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            if chunks.peek().is_none() && is_beginning(chunk.invalid()) {
                rest = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push_str(REPLACEMENT);
            }
        }
        self.pending = rest;
        text
    }

    /// What is left at the end of the stream.
    pub(crate) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.pending).is_empty() { "" } else { REPLACEMENT }
    }
}

/// Whether bytes that are no character could become one.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(pieces: &[&[u8]]) -> String {
        let mut stream = Utf8Stream::default();
        let mut text: String = pieces.iter().map(|piece| stream.push(piece)).collect();
        text.push_str(stream.finish());
        text
    }

    #[test]
    fn a_character_cut_into_pieces_survives() {
        assert_eq!(stream(&[b"a\xf0", b"\x9f", b"\x90\x89", b"b"]), "a\u{1f409}b");
        assert_eq!(stream(&[b"\xf0\x9f", b"x"]), "\u{fffd}x");
        assert_eq!(stream(&[b"x\xe2\x82"]), "x\u{fffd}");
        assert_eq!(stream(&[b"\xff\xfe"]), "\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                ".{0,20}".prop_map(String::into_bytes),
                proptest::collection::vec(prop_oneof![Just(0xf0_u8), Just(0x9f), Just(0xe2), Just(0x82), Just(b'a')], 0..30),
            ],
            cuts in proptest::collection::vec(1_usize..5, 0..60),
        ) {
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(stream(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
