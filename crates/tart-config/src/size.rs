//! Byte sizes: `512m`, `1g`, `1.5GiB`.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::duration::scaled;

/// What the parser expects, for messages.
pub(crate) const EXPECTED: &str = "a size such as \"512m\", \"1g\" or \"20GiB\"";

/// A number of bytes. Units are powers of 1024, as Docker reads them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many mebibytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many gibibytes.
    pub const fn gibibytes(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Parses a number with an optional unit (`b`, `k`, `m`, `g`, `t`, `p`, alone or followed by `b` or `ib`; any
    /// case). Without a unit the number counts bytes. `None` if it is not a size or does not fit 63 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start().to_ascii_lowercase();
        let shift = match unit.as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return None,
        };
        let bytes = scaled(number, 1 << shift)?;
        i64::try_from(bytes).ok()?;
        u64::try_from(bytes).ok().map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(formatter, "{}{unit}", self.0 >> shift);
            }
        }
        write!(formatter, "{}b", self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(EXPECTED)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ByteSize, E> {
                u64::try_from(value).map(ByteSize).map_err(|_| E::custom(EXPECTED))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<ByteSize, E> {
                ByteSize::parse(value).ok_or_else(|| E::custom(EXPECTED))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_in_any_spelling() {
        for (text, bytes) in [
            ("1024", 1024),
            ("1k", 1024),
            ("512m", 512 << 20),
            ("1g", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("20 GB", 20 << 30),
            ("0", 0),
        ] {
            assert_eq!(ByteSize::parse(text), Some(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "g", "-1g", "1x", "1gg", "1.2.3g", "9999999999999p", "1e3"] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_displayed_is_read_back(bytes in 0_u64..(1 << 62)) {
            let size = ByteSize(bytes);
            proptest::prop_assert_eq!(ByteSize::parse(&size.to_string()), Some(size));
        }

        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = ByteSize::parse(&text);
        }
    }
}
