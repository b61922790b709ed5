//! Forms of archives.

/// The form of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// With a directory, permissions and links.
    #[default]
    Zip,
    /// The files' content one after the other.
    Gzip,
    /// One file as it is.
    Raw,
    /// A zip whose files are compressed with zstd.
    ZipZstd,
    /// A tar, compressed with zstd as a whole.
    TarZstd,
}

impl Format {
    /// The form that GitLab calls so; `None` if there is no such form. Nothing means zip.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "" | "zip" => Self::Zip,
            "gzip" => Self::Gzip,
            "raw" => Self::Raw,
            "zipzstd" => Self::ZipZstd,
            "tarzstd" => Self::TarZstd,
            _ => return None,
        })
    }

    /// What GitLab calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Gzip => "gzip",
            Self::Raw => "raw",
            Self::ZipZstd => "zipzstd",
            Self::TarZstd => "tarzstd",
        }
    }

    /// How names of such archives end, as the official runner has it.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zip | Self::ZipZstd => ".zip",
            Self::Gzip => ".gz",
            Self::Raw => "",
            Self::TarZstd => ".tar.zst",
        }
    }
}
