//! Secrets in the query of a URL, such as the signature of a pre-signed address.

use super::MASKED;

const KEYS: [&[u8]; 6] = [
    b"private_token",
    b"authenticity_token",
    b"rss_token",
    b"x-amz-signature",
    b"x-amz-credential",
    b"x-amz-security-token",
];

const LONGEST_KEY: usize = 20;

/// Replaces the values of secret parameters. Holds nothing back: the key is not secret, and the replacement is
/// written as soon as the `=` after it is seen.
#[derive(Default)]
pub(super) struct UrlFilter {
    state: State,
    key: Vec<u8>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Key,
    SecretValue,
}

impl UrlFilter {
    pub(super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            let taken = match self.state {
                State::Text => self.text(input, out),
                State::Key => self.key(input, out),
                State::SecretValue => self.secret_value(input),
            };
            input = &input[taken..];
        }
    }

    fn text(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let taken = match input.iter().position(|&byte| starts_parameter(byte)) {
            Some(mark) => {
                self.start_key();
                mark + 1
            }
            None => input.len(),
        };
        out.extend_from_slice(&input[..taken]);
        taken
    }

    fn start_key(&mut self) {
        self.state = State::Key;
        self.key.clear();
    }

    fn key(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        for (position, &byte) in input.iter().enumerate() {
            out.push(byte);
            if starts_parameter(byte) {
                self.start_key();
            } else if byte == b'=' && KEYS.contains(&self.key.as_slice()) {
                out.extend_from_slice(MASKED.as_bytes());
                self.state = State::SecretValue;
                return position + 1;
            } else if byte == b'=' || self.key.len() == LONGEST_KEY {
                self.state = State::Text;
                return position + 1;
            } else {
                self.key.push(byte.to_ascii_lowercase());
            }
        }
        input.len()
    }

    fn secret_value(&mut self, input: &[u8]) -> usize {
        let end = input.iter().position(|&byte| {
            starts_parameter(byte) || byte.is_ascii_whitespace() || byte.is_ascii_control()
        });
        if end.is_some() {
            self.state = State::Text;
        }
        end.unwrap_or(input.len())
    }
}

fn starts_parameter(byte: u8) -> bool {
    matches!(byte, b'?' | b'&')
}
