//! What can go wrong with assets.

use std::{io, path::PathBuf};

/// Why an asset cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssetError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program that builds assets is not installed.
    #[error("`{program}` is not installed; install it with `apt-get install {package}`")]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program ended with an error.
    #[error("`{program}` failed ({status}): {message}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error.
        message: String,
    },
    /// An input has not the form it should have.
    #[error("{what} cannot be used: {reason}")]
    Malformed {
        /// The input.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A stored file is not what was stored.
    #[error("{} is damaged; remove it with `tart assets verify --repair`, and it is built again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No package of the distribution has a kernel for guests.
    #[error(
        "no guest kernel in the package lists ({tried}); run `apt-get update`, or give a kernel with --kernel"
    )]
    NoKernelPackage {
        /// The packages that were looked for.
        tried: String,
    },
    /// No image of that name.
    #[error("no image `{name}`; there are: {known}")]
    NoImage {
        /// The name that was asked for.
        name: String,
        /// The images in the store.
        known: String,
    },
    /// A name that is not one of an image.
    #[error(
        "`{name}` is no name for an image: 1 to 128 letters, digits and `._-/:@`, not first `.`, `-` or `/`"
    )]
    ImageName {
        /// The name.
        name: String,
    },
    /// No guest agent.
    #[error(
        "the guest agent is missing (looked at {looked_at}); build it with `cargo xtask agent` or set TART_AGENT"
    )]
    NoAgent {
        /// The places.
        looked_at: String,
    },
}

/// Result of asset operations.
pub(crate) type Result<T, E = AssetError> = std::result::Result<T, E>;

impl AssetError {
    pub(crate) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), reason: reason.into() }
    }
}

/// Adds to an I/O error what was done to which file.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|error| AssetError::Io { action, path: path.into(), source: error.into() })
    }
}
