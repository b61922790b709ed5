//! Values that must not be printed.

use std::fmt;

use serde::Deserialize;

/// A token, key or password. `Debug` hides it and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it (a request, the configuration file).
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The part of a runner token that may be shown: its kind's prefix removed, then at most 9 characters
    /// (protocol reference 1.1).
    pub fn shortened(&self) -> String {
        tart_spec::short_token(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "Secret(empty)" } else { "Secret([redacted])" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_value() {
        assert_eq!(format!("{:?}", Secret::new("glrt-abc")), "Secret([redacted])");
    }

    #[test]
    fn shortened_tokens_lose_their_kind_and_keep_nine_characters() {
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
            assert_eq!(Secret::new(token).shortened(), short, "{token}");
        }
    }
}
