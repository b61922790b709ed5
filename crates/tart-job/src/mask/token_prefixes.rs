//! Tokens that are recognised by what they begin with: `glpat-secret` becomes `glpat-[MASKED]`.

use std::sync::Arc;

use super::MASKED;
use super::phrases::{Cursor, PhraseIndex};

/// The prefixes, compiled.
pub(super) struct PrefixIndex(PhraseIndex);

impl PrefixIndex {
    pub(super) fn new<'a>(prefixes: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(PhraseIndex::new(prefixes))
    }
}

/// Replaces what follows a prefix. Holds nothing back: the prefix itself is kept.
pub(super) struct PrefixFilter {
    index: Arc<PrefixIndex>,
    cursor: Cursor,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// A prefix has just ended: a token byte here is the first of a secret.
    AfterPrefix,
    Secret,
}

impl PrefixFilter {
    pub(super) fn new(index: Arc<PrefixIndex>) -> Self {
        Self { index, cursor: Cursor::default(), state: State::Text }
    }

    pub(super) fn reset(&mut self) {
        self.cursor = Cursor::default();
        self.state = State::Text;
    }

    pub(super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some(&first) = input.first() {
            match self.state {
                State::Text => {
                    let end = self.cursor.advance_to_end_of_phrase(&self.index.0, input);
                    if end.is_some() {
                        self.state = State::AfterPrefix;
                    }
                    let (text, rest) = input.split_at(end.unwrap_or(input.len()));
                    out.extend_from_slice(text);
                    input = rest;
                }
                State::AfterPrefix if is_token_byte(first) => {
                    out.extend_from_slice(MASKED.as_bytes());
                    self.state = State::Secret;
                }
                State::AfterPrefix => self.state = State::Text,
                State::Secret => {
                    let length = input.iter().take_while(|&&byte| is_token_byte(byte)).count();
                    input = &input[length..];
                    if !input.is_empty() {
                        self.reset();
                    }
                }
            }
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'=' | b'.' | b'-')
}
