//! Downloads in pieces, several of them at once (`FF_USE_PARALLEL_ARTIFACT_TRANSFER`,
//! `FF_USE_PARALLEL_CACHE_TRANSFER`), in the memory that a few pieces take.

mod ranges;

pub use ranges::{RangeError, Ranges};
