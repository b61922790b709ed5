//! What can go wrong with archives.

use std::io;

/// Why an archive cannot be made or taken apart. Paths are shown as text, cleaned of what is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A pattern of `paths` or `exclude`.
    #[error("the pattern {pattern:?} {problem}")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// More files than one archive may have.
    #[error("more files than fit into one archive: {limit}; narrow `paths`")]
    TooMany {
        /// The limit, for people.
        limit: String,
    },
    /// Only regular files go into this format.
    #[error("{path} is no regular file, and the format has only those")]
    NotRegular {
        /// The file.
        path: String,
    },
    /// Several files for the format that has one.
    #[error("only one file can be sent as raw; {count} match")]
    NotOne {
        /// How many matched.
        count: usize,
    },
    /// The archive could not be written to where it goes.
    #[error("the archive cannot be written")]
    Output(#[source] io::Error),
    /// The archive could not be read from where it comes from.
    #[error("the archive does not arrive")]
    Input(#[source] io::Error),
    /// The archive is damaged, or no archive.
    #[error("the archive cannot be read: {problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
    },
    /// An entry of an archive that leads out of the directory.
    #[error("the archive has an entry outside of the directory: {path}")]
    Outside {
        /// The entry's name.
        path: String,
    },
}

/// Adds a path to an error of the system.
pub(crate) fn at(path: &[u8]) -> impl FnOnce(io::Error) -> ArchiveError + use<> {
    let path = shown(path);
    move |source| ArchiveError::File { path, source }
}

/// A path for people.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}
