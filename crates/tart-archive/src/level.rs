//! How hard to compress.

use flate2::Compression;

/// A level of compression, by the names of `ARTIFACT_COMPRESSION_LEVEL` and `CACHE_COMPRESSION_LEVEL`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// Not at all.
    Fastest,
    /// Little.
    Fast,
    /// As most programs do.
    #[default]
    Default,
    /// More.
    Slow,
    /// As much as possible.
    Slowest,
}

impl Level {
    /// The level of a name; `None` if there is no such level. Nothing means the default.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "fastest" => Self::Fastest,
            "fast" => Self::Fast,
            "" | "default" => Self::Default,
            "slow" => Self::Slow,
            "slowest" => Self::Slowest,
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fastest => "fastest",
            Self::Fast => "fast",
            Self::Default => "default",
            Self::Slow => "slow",
            Self::Slowest => "slowest",
        }
    }

    /// What zstd is told.
    pub(crate) fn zstd(self) -> i32 {
        match self {
            Self::Fastest | Self::Fast => 1,
            Self::Default => 3,
            Self::Slow => 7,
            Self::Slowest => 11,
        }
    }

    /// What deflate is told.
    pub(crate) fn deflate(self) -> Compression {
        Compression::new(match self {
            Self::Fastest => 0,
            Self::Fast => 1,
            Self::Default => 5,
            Self::Slow => 7,
            Self::Slowest => 9,
        })
    }
}
