//! The first reading of a layer: its headers, its limits and its digest.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read},
    rc::Rc,
};

use sha2::{Digest as _, Sha256};

use crate::{
    error::{LayerError, text},
    layer::Layer,
    limits::Limits,
    read::{Broken, Entry, Kind, Metadata, Reader},
};

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Indexed {
    /// Components joined by `/`, without a leading one; empty for the root.
    pub(crate) path: Box<[u8]>,
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    pub(crate) size: u64,
    /// Which entry of the archive it is.
    pub(crate) ordinal: u32,
}

/// The headers of one layer.
#[derive(Debug, Clone)]
pub struct LayerIndex {
    pub(crate) position: usize,
    pub(crate) layer: String,
    pub(crate) entries: Vec<Indexed>,
    /// Decompressed bytes.
    pub(crate) bytes: u64,
    /// Bytes of paths, targets and attributes.
    pub(crate) text_bytes: u64,
}

/// Reads a layer once: checks its digest and its limits, and keeps its headers. `position` counts from the image's
/// base, 0. Blocks.
///
/// # Errors
/// If the layer cannot be read, is damaged, or larger in any way than it may be.
pub fn index(layer: &Layer, position: usize, limits: &Limits) -> Result<LayerIndex, LayerError> {
    let name = &layer.name;
    let bytes = layer.decompressed().map_err(|source| LayerError::Read { layer: name.clone(), source })?;
    let most = limits.total_bytes.min(limits.free_bytes.max(layer.size.saturating_mul(limits.ratio)));
    let measured = Measured::new(bytes, most);
    let (count, hasher) = (Rc::clone(&measured.count), Rc::clone(&measured.hasher));
    let mut index =
        LayerIndex { position, layer: name.clone(), entries: Vec::new(), bytes: 0, text_bytes: 0 };
    let result = read(measured, limits, &mut index);
    result.map_err(|broken| match broken {
        Broken::Read(source) => LayerError::Read { layer: name.clone(), source },
        Broken::Archive(_) if count.get() > most => {
            let problem = format!(
                "it has more than {most} bytes in {} compressed ones, which is more than an image may have",
                layer.size
            );
            LayerError::layer(name, problem)
        }
        Broken::Archive(problem) => LayerError::layer(name, problem),
    })?;
    index.bytes = count.get();
    let digest = hex::encode(hasher.borrow().clone().finalize());
    if digest != layer.diff_id {
        let problem = format!(
            "its content has the digest sha256:{digest}, and the image says sha256:{}: it was damaged or forged",
            layer.diff_id
        );
        return Err(LayerError::layer(name, problem));
    }
    index.entries.shrink_to_fit();
    Ok(index)
}

fn read(mut measured: Measured, limits: &Limits, index: &mut LayerIndex) -> Result<(), Broken> {
    let mut reader = Reader::new(&mut measured, limits);
    let mut ordinal = 0;
    while let Some(entry) = reader.next()? {
        if u64::from(ordinal) >= limits.entries {
            return Err(Broken::Archive(format!("it has more than {} entries", limits.entries)));
        }
        if let Some(path) = normalized(&entry.path, limits)? {
            let entry = indexed(entry, path, ordinal);
            index.text_bytes += text_bytes(&entry);
            if index.text_bytes > limits.text_bytes {
                let problem = format!("its paths take more than {} bytes", limits.text_bytes);
                return Err(Broken::Archive(problem));
            }
            index.entries.push(entry);
        }
        ordinal += 1;
    }
    // The digest is of everything, also of what follows the archive's end.
    io::copy(&mut measured, &mut io::sink())?;
    Ok(())
}

fn indexed(entry: Entry, path: Box<[u8]>, ordinal: u32) -> Indexed {
    Indexed { path, kind: entry.kind, metadata: entry.metadata, size: entry.size, ordinal }
}

fn text_bytes(entry: &Indexed) -> u64 {
    let target = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => target.len(),
        _ => 0,
    };
    let xattrs = entry.metadata.xattrs.iter().flat_map(|xattrs| xattrs.iter());
    let xattrs: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
    (entry.path.len() + target + xattrs) as u64
}

/// A path without `.` and empty components. Nothing for AUFS' own files, which no layer means.
pub(crate) fn normalized(path: &[u8], limits: &Limits) -> Result<Option<Box<[u8]>>, Broken> {
    let mut normal = Vec::with_capacity(path.len());
    let mut depth = 0;
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => {
                return Err(Broken::Archive(format!("the path `{}` leads out of the image", text(path))));
            }
            _ if component.len() > 255 => {
                return Err(Broken::Archive(format!("a name of `{}` is longer than 255 bytes", text(path))));
            }
            _ if component.contains(&0) => {
                return Err(Broken::Archive(format!("the path `{}` has a zero byte", text(path))));
            }
            b".wh..wh..opq" => {}
            _ if component.starts_with(b".wh..wh.") => return Ok(None),
            _ => {}
        }
        depth += 1;
        if depth > limits.depth {
            return Err(Broken::Archive(format!(
                "`{}` is deeper than {} directories",
                text(path),
                limits.depth
            )));
        }
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(component);
    }
    Ok(Some(normal.into_boxed_slice()))
}

/// Counts and hashes what passes, and ends when it is too much.
struct Measured {
    from: Box<dyn Read + Send>,
    count: Rc<Cell<u64>>,
    hasher: Rc<RefCell<Sha256>>,
    most: u64,
}

impl Measured {
    fn new(from: Box<dyn Read + Send>, most: u64) -> Self {
        Self { from, count: Rc::default(), hasher: Rc::default(), most }
    }
}

impl Read for Measured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.count.set(self.count.get() + length as u64);
        if self.count.get() > self.most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too large"));
        }
        self.hasher.borrow_mut().update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
