//! The kernel's initramfs archive: cpio in its `newc` form. Times and owners are always 0.

/// Archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// A file that does not fit into the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not fit into an initramfs")]
pub(crate) struct TooLarge(String);

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// Adds a directory; `path` is relative to the root.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> Result<(), TooLarge> {
        self.entry(path, DIRECTORY | mode, 2, (0, 0), &[])
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<(), TooLarge> {
        self.entry(path, REGULAR | mode, 1, (0, 0), contents)
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, mode: u32, number: (u32, u32)) -> Result<(), TooLarge> {
        self.entry(path, CHARACTER_DEVICE | mode, 1, number, &[])
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        self.entries = u32::MAX;
        self.entry("TRAILER!!!", 0, 1, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        links: u32,
        device: (u32, u32),
        contents: &[u8],
    ) -> Result<(), TooLarge> {
        let too_large = |_| TooLarge(path.to_owned());
        let size = u32::try_from(contents.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        // The trailer is number 0.
        let number = self.entries.wrapping_add(1);
        self.entries = number;
        self.bytes.extend_from_slice(b"070701");
        for field in [number, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
        Ok(())
    }

    /// Names and contents end at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reading archives, for tests.
#[cfg(test)]
pub(crate) mod samples {
    /// `mode size path` of every entry.
    pub(crate) fn list(archive: &[u8]) -> String {
        let (mut at, mut list) = (0, String::new());
        while at < archive.len() {
            let field = |index: usize| {
                let text = &archive[at + 6 + index * 8..][..8];
                usize::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap()
            };
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&archive[at + 110..][..name_size - 1]).unwrap();
            list.push_str(&format!("{mode:06o} {size} {name}\n"));
            at = (at + 110 + name_size).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_laid_out_as_the_kernel_reads_them() {
        let mut archive = Archive::default();
        archive.directory("dev", 0o755).unwrap();
        archive.device("dev/console", 0o600, (5, 1)).unwrap();
        archive.file("init", 0o755, b"#!/bin/sh\n").unwrap();
        let bytes = archive.finish().unwrap();
        insta::assert_snapshot!(samples::list(&bytes), @"
        040755 0 dev
        020600 0 dev/console
        100755 10 init
        000000 0 TRAILER!!!
        ");
        assert_eq!(bytes.len() % 4, 0);
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes[..116]).replace('\0', "."), @"07070100000001000041ed0000000000000000000000020000000000000000000000000000000000000000000000000000000400000000dev...");
    }

    proptest::proptest! {
        #[test]
        fn any_contents_can_be_listed(files in proptest::collection::vec(("[a-z]{1,9}", proptest::collection::vec(0u8..255, 0..40)), 0..9)) {
            let mut archive = Archive::default();
            for (name, contents) in &files {
                archive.file(name, 0o644, contents).unwrap();
            }
            let list = samples::list(&archive.finish().unwrap());
            let expected: String = files.iter().map(|(name, contents)| format!("100644 {} {name}\n", contents.len())).collect();
            proptest::prop_assert_eq!(list, expected + "000000 0 TRAILER!!!\n");
        }
    }
}
