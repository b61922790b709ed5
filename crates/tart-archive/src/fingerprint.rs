//! Whether files are still what they were.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::ArchiveError;
use crate::files::ordinary;

/// A digest, in hexadecimal, of what would show a change of files, directories and links: which there are, and the
/// kind, permissions, size, time and number (inode) of each. No content is read. Others, and what is missing, do not
/// count: they are in no archive.
pub fn fingerprint<'a>(
    root: &Path,
    paths: impl IntoIterator<Item = &'a [u8]>,
) -> Result<String, ArchiveError> {
    let mut digest = Sha256::new();
    for path in paths {
        let Some(metadata) = ordinary(root, path)? else { continue };
        digest.update(path);
        // No path has a null byte.
        digest.update([0]);
        digest.update(metadata.mode().to_le_bytes());
        for number in [metadata.ino(), metadata.size()] {
            digest.update(number.to_le_bytes());
        }
        for time in [metadata.mtime(), metadata.mtime_nsec()] {
            digest.update(time.to_le_bytes());
        }
    }
    Ok(hex(&digest.finalize()))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn every_change_of_a_file_shows() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("a"), "one").unwrap();
        let of = |paths: &[&str]| fingerprint(root, paths.iter().map(|path| path.as_bytes())).unwrap();
        let mut seen = vec![of(&["a"])];
        assert_eq!(of(&["a", "missing"]), seen[0], "what is missing is in no archive");
        let mut new = |paths: &[&str]| {
            let now = of(paths);
            assert!(!seen.contains(&now));
            seen.push(now);
        };
        fs::write(root.join("a"), "longer").unwrap();
        new(&["a"]);
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o711)).unwrap();
        new(&["a"]);
        symlink("a", root.join("b")).unwrap();
        new(&["a", "b"]);
        fs::remove_file(root.join("a")).unwrap();
        new(&["a", "b"]);
    }
}
