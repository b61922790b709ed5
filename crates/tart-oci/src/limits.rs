//! What an image may be.

/// What an image may be. An index entry takes about 150 bytes and its path, so the defaults bound the memory of a
/// merge to some hundred megabytes, and an ordinary image of 20,000 files takes about 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers together, decompressed.
    pub total_bytes: u64,
    /// Entries of all layers together; also files and directories that they make, described or not.
    pub entries: u64,
    /// Bytes of all paths, link targets and extended attributes of all layers together.
    pub text_bytes: u64,
    /// Bytes of one path or link target.
    pub path_bytes: usize,
    /// Components of one path.
    pub depth: usize,
    /// Bytes of the extended attributes of one file.
    pub xattr_bytes: usize,
    /// Steps through directories and links on the paths of all files together: a million files as deep as ordinary ones
    /// take a tenth of the default, and the worst image is refused within seconds.
    pub steps: u64,
    /// How many times larger than its compressed form a layer may be, beyond [`Self::free_bytes`].
    pub ratio: u64,
    /// Bytes that any layer may have, however well it is compressed.
    pub free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 64 << 30,
            entries: 1_000_000,
            text_bytes: 128 << 20,
            path_bytes: 4096,
            depth: 256,
            // With names and a path it has to fit into an extended header of 64 KiB.
            xattr_bytes: 56 << 10,
            steps: 100_000_000,
            ratio: 200,
            free_bytes: 1 << 30,
        }
    }
}
