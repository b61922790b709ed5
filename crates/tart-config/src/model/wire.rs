//! How durations, times and lists are written in the file. The checker has seen the values before.

pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

pub(super) mod go_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    use crate::duration::{EXPECTED, parse_duration};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).ok_or_else(|| D::Error::custom(EXPECTED))
    }
}

pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::Deserializer;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::go_duration::deserialize(deserializer).map(Some)
    }
}

pub(super) mod optional_time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, de::Error};

    /// A TOML time or RFC 3339 text. Year 1 is how the official runner writes "none".
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text,
            toml::Value::Datetime(time) => time.to_string(),
            _ => return Err(D::Error::custom("a time")),
        };
        let time: Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok((time > Timestamp::UNIX_EPOCH).then_some(time))
    }
}

pub(super) mod one_or_many {
    use std::fmt;

    use serde::{
        Deserialize, Deserializer,
        de::{self, SeqAccess, value},
    };

    /// One item or a list of them.
    pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Vec<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                T::deserialize(value::StrDeserializer::new(text)).map(|item| vec![item])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(value::SeqAccessDeserializer::new(items))
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}
