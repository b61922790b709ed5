//! The second reading: the files that are left, as one archive.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
};

use tar::{EntryType, Header};

use crate::{
    error::LayerError,
    layer::Layer,
    merge::{Inode, Plan},
    read::{Broken, Kind, Reader},
};

/// What an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
}

impl Plan {
    /// Writes what is left of the layers as one tar archive: directories and special files, then the content of
    /// regular files in the order of the layers, then their further names. Blocks; takes memory for buffers only.
    ///
    /// # Errors
    /// If a layer cannot be read again, is not what it was, or `out` takes no more.
    pub fn write(&self, layers: &[Layer], out: &mut dyn Write) -> Result<Summary, LayerError> {
        let mut archive = Archive { out, summary: Summary::default() };
        // The content of a file is under the first of its names.
        let mut first: HashMap<usize, &[u8]> = HashMap::new();
        let mut wanted: HashMap<(usize, u32), (&Inode, &[u8])> = HashMap::new();
        let mut counts = vec![0; self.layers.len()];
        for (path, number) in &self.tree {
            let Some(inode) = self.inodes.get(*number) else { continue };
            if inode.kind != Kind::File {
                archive.special(path, inode)?;
            } else if !first.contains_key(number) {
                first.insert(*number, path);
                wanted.insert(inode.at, (inode, path));
                if let Some(count) = counts.get_mut(inode.at.0) {
                    *count += 1;
                }
            }
        }
        for (position, (name, count)) in self.layers.iter().zip(counts).enumerate() {
            if count > 0 {
                let layer = layers.get(position).ok_or_else(|| LayerError::layer(name, "it is not there"))?;
                self.copy_layer(layer, position, count, &wanted, &mut archive)?;
            }
        }
        for (path, number) in &self.tree {
            if let (Some(inode), Some(first)) = (self.inodes.get(*number), first.get(number))
                && *first != &**path
            {
                archive.entry(EntryType::Link, path, inode, Some(first))?;
            }
        }
        archive.out.write_all(&[0; 1024]).map_err(LayerError::Write)?;
        Ok(archive.summary)
    }

    /// Copies `count` files of a layer.
    fn copy_layer(
        &self,
        layer: &Layer,
        position: usize,
        mut count: usize,
        wanted: &HashMap<(usize, u32), (&Inode, &[u8])>,
        archive: &mut Archive<'_>,
    ) -> Result<(), LayerError> {
        let read = |source| LayerError::Read { layer: layer.name.clone(), source };
        let mut reader = Reader::new(layer.decompressed().map_err(read)?, &self.limits);
        let changed = || LayerError::layer(&layer.name, "it changed while the image was made");
        let broken = |broken| match broken {
            Broken::Read(source) => read(source),
            Broken::Archive(_) => changed(),
        };
        let mut ordinal = 0;
        while count > 0 {
            let entry = reader.next().map_err(broken)?.ok_or_else(changed)?;
            if let Some((inode, path)) = wanted.get(&(position, ordinal)) {
                if entry.size != inode.size {
                    return Err(changed());
                }
                archive.entry(EntryType::Regular, path, inode, None)?;
                archive.content(&mut reader, inode.size, &read, &changed)?;
                count -= 1;
            }
            ordinal += 1;
        }
        Ok(())
    }
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    summary: Summary,
}

impl Archive<'_> {
    /// What has no content.
    fn special(&mut self, path: &[u8], inode: &Inode) -> Result<(), LayerError> {
        match &inode.kind {
            Kind::Directory => self.entry(EntryType::Directory, path, inode, None),
            Kind::Symlink(target) => self.entry(EntryType::Symlink, path, inode, Some(target)),
            Kind::Character(..) => self.entry(EntryType::Char, path, inode, None),
            Kind::Block(..) => self.entry(EntryType::Block, path, inode, None),
            Kind::Fifo => self.entry(EntryType::Fifo, path, inode, None),
            Kind::File | Kind::HardLink(_) => Ok(()),
        }
    }

    fn entry(
        &mut self,
        kind: EntryType,
        path: &[u8],
        inode: &Inode,
        target: Option<&[u8]>,
    ) -> Result<(), LayerError> {
        self.summary.entries += 1;
        let (extended, header) = headers(kind, path, inode, target).map_err(LayerError::Write)?;
        let written = self.out.write_all(&extended).and_then(|()| self.out.write_all(header.as_bytes()));
        written.map_err(LayerError::Write)
    }

    fn content<R: Read>(
        &mut self,
        reader: &mut Reader<'_, R>,
        size: u64,
        read: &dyn Fn(io::Error) -> LayerError,
        changed: &dyn Fn() -> LayerError,
    ) -> Result<(), LayerError> {
        // Errors of both sides come back through the same call.
        let mut failed = None;
        let out = &mut *self.out;
        let copied = reader.copy_to(&mut |part| {
            out.write_all(part).map_err(|error| {
                let kind = error.kind();
                failed = Some(error);
                kind.into()
            })
        });
        match (copied, failed) {
            (_, Some(error)) => return Err(LayerError::Write(error)),
            (Err(Broken::Read(source)), None) => return Err(read(source)),
            (Err(Broken::Archive(_)), None) => return Err(changed()),
            (Ok(()), None) => {}
        }
        let padding = size.checked_next_multiple_of(512).map_or(0, |padded| padded - size);
        let zeros = [0; 512];
        let zeros = zeros.get(..usize::try_from(padding).unwrap_or(0)).unwrap_or_default();
        self.out.write_all(zeros).map_err(LayerError::Write)?;
        self.summary.bytes += size;
        Ok(())
    }
}

/// An entry's header, and before it an extended one if it says something that does not fit.
fn headers(
    kind: EntryType,
    path: &[u8],
    inode: &Inode,
    target: Option<&[u8]>,
) -> io::Result<(Vec<u8>, Header)> {
    let metadata = &inode.metadata;
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode);
    header.set_uid(u64::from(metadata.uid));
    header.set_gid(u64::from(metadata.gid));
    // File systems of images have 32 bits for it.
    header.set_mtime(metadata.mtime.min(u64::from(u32::MAX)));
    header.set_size(if kind == EntryType::Regular { inode.size } else { 0 });
    if let Kind::Character(major, minor) | Kind::Block(major, minor) = inode.kind {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    let mut records = Vec::new();
    let path = if path.is_empty() { b"./" } else { path };
    if !fill(&mut header.as_old_mut().name, path) {
        records.extend(record(b"path", path));
    }
    if let Some(target) = target
        && !fill(&mut header.as_old_mut().linkname, target)
    {
        records.extend(record(b"linkpath", target));
    }
    // A hard link is the same file, whose attributes have been said.
    if kind != EntryType::Link {
        for (name, value) in metadata.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
            records.extend(record(&[b"SCHILY.xattr.", &**name].concat(), value));
        }
    }
    header.set_cksum();
    if records.is_empty() {
        return Ok((records, header));
    }
    let mut before = Header::new_ustar();
    before.set_entry_type(EntryType::XHeader);
    fill(&mut before.as_old_mut().name, b"extended");
    before.set_mode(0o644);
    before.set_size(records.len() as u64);
    before.set_cksum();
    let mut bytes = before.as_bytes().to_vec();
    bytes.extend(&records);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    Ok((bytes, header))
}

/// Writes a text into a field of a header. If it is too long, its beginning is there and the answer is no.
fn fill(field: &mut [u8], text: &[u8]) -> bool {
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
    text.len() <= field.len()
}

/// A record of an extended header, whose length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}
