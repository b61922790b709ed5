//! Layers as tar archives.

use tar::{Builder, EntryType, Header};

/// The files of a layer, in the order they are added.
///
/// Paths are written as they are given, also those that no honest archive has.
pub struct Files {
    builder: Builder<Vec<u8>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl Files {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self { builder: Builder::new(Vec::new()) }
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, contents: impl AsRef<[u8]>) -> Self {
        self.owned_file(path, mode, (0, 0), contents)
    }

    /// A regular file of a user and a group.
    #[must_use]
    pub fn owned_file(
        self,
        path: &str,
        mode: u32,
        (uid, gid): (u64, u64),
        contents: impl AsRef<[u8]>,
    ) -> Self {
        let mut header = header(EntryType::Regular, path, mode);
        header.set_uid(uid);
        header.set_gid(gid);
        self.entry(header, contents.as_ref())
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(header(EntryType::Directory, path, mode), &[])
    }

    /// A directory of a user and group.
    #[must_use]
    pub fn owned_directory(self, path: &str, mode: u32, (uid, gid): (u64, u64)) -> Self {
        let mut header = header(EntryType::Directory, path, mode);
        header.set_uid(uid);
        header.set_gid(gid);
        self.entry(header, &[])
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(link(EntryType::Symlink, path, target), &[])
    }

    /// Another name of a file.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(link(EntryType::Link, path, target), &[])
    }

    /// Removes what a lower layer has at the path.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let path = if parent.is_empty() { format!(".wh.{name}") } else { format!("{parent}/.wh.{name}") };
        self.file(&path, 0o644, [])
    }

    /// Any entry. The size and the checksum are set here.
    ///
    /// # Panics
    /// Never: it is written to memory.
    #[must_use]
    pub fn entry(mut self, mut header: Header, contents: &[u8]) -> Self {
        header.set_size(contents.len() as u64);
        header.set_cksum();
        self.builder.append(&header, contents).expect("memory takes all bytes");
        self
    }

    /// The archive.
    ///
    /// # Panics
    /// Never: it is written to memory.
    #[must_use]
    pub fn tar(self) -> Vec<u8> {
        self.builder.into_inner().expect("memory takes all bytes")
    }
}

fn header(kind: EntryType, path: &str, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    // The library refuses the paths of hostile archives.
    copy(&mut header.as_old_mut().name, path);
    header
}

fn link(kind: EntryType, path: &str, target: &str) -> Header {
    let mut header = header(kind, path, 0o777);
    copy(&mut header.as_old_mut().linkname, target);
    header
}

fn copy(field: &mut [u8], text: &str) {
    assert!(text.len() <= field.len(), "test paths fit into a header: {text}");
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
}
