//! Archives of artifacts and caches: which files go in, how they are written, and how they are taken out again.
//!
//! All of this runs inside the guest, on its own files; the host only passes the bytes on. Archives are written to a
//! stream that cannot seek. Memory is bounded by the number of files, never by their size: the sorted list of paths
//! ([`Limits`]: at most 1,000,000 paths with 128 MiB of text), a record of about 100 bytes and the path for the
//! directory at a zip's end, and fixed buffers; about 500 MiB at the very worst, and less than 1 MiB for jobs with a
//! few thousand files, and what zstd needs: from 2 MiB to 40 MiB, by its level. All functions block.

mod error;
mod extract;
mod files;
mod fingerprint;
mod format;
mod glob;
mod helper;
mod level;
mod members;
mod request;
mod select;
mod statement;
mod tar;
mod target;
mod zip;

pub use error::ArchiveError;
pub use extract::{Extracted, extract, extract_zip};
pub use fingerprint::fingerprint;
pub use format::Format;
pub use glob::{Pattern, is_pattern};
pub use helper::{NOTHING, helper};
pub use level::Level;
pub use members::{write_gzip, write_raw};
pub use request::{Purpose, Request};
pub use select::{Limits, Selection};
pub use statement::Statement;
pub use tar::{extract_tar_zstd, write_tar_zstd};
pub use zip::{Method, Packing, write_zip};
