//! Tokens, which are never printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A runner, registration, job or personal access token. `Debug` hides it and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Wraps a token.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The token itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it belongs to a runner that was created in the web page or the API (`glrt-`), which cannot be
    /// registered but only verified.
    pub fn is_created_runner(&self) -> bool {
        self.0.starts_with("glrt-")
    }

    /// The part that may be shown: without the prefixes of its kind, at most 9 characters (protocol reference 1.1).
    pub fn short(&self) -> String {
        tart_spec::short_token(&self.0)
    }
}

impl From<&str> for Token {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<String> for Token {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "Token(empty)" } else { "Token([redacted])" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn debug_hides_the_token() {
        assert_eq!(format!("{:?}", Token::new("glrt-abc")), "Token([redacted])");
    }

    #[test]
    fn short_tokens_lose_their_kind_and_keep_nine_characters() {
        for (token, short) in [
            ("glrt-abcdefghijkl", "abcdefghi"),
            ("glrt-t3_abcdefghijkl", "abcdefghi"),
            ("t1_abcdefghijkl", "abcdefghi"),
            ("glrtr-abcdefghijkl", "abcdefghi"),
            ("glcbt-64_abcdefghijkl", "64_abcdef"),
            ("GR1348941abcdefghijkl", "abcdefghi"),
            ("GRxyz", "GRxyz"),
            ("short", "short"),
            ("", ""),
        ] {
            assert_eq!(Token::new(token).short(), short, "{token}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_short_form(token in ".*") {
            prop_assert!(Token::new(token).short().chars().count() <= 9);
        }
    }
}
