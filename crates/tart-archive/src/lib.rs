//! Artifacts and caches as archives: patterns, zip, gzip, raw and tar, written and read as streams.
