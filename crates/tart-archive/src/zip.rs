//! Zip, written as a stream: sizes and checksums follow each file's data (APPNOTE 4.3.9), the directory is at the end.
//!
//! Numbers that need more than 32 bits are written as zip64 has them (APPNOTE 4.5.3), and only those.

mod headers;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::write::DeflateEncoder;
use sha2::{Digest, Sha256};
use zstd::stream::{raw, zio};

use crate::error::at;
use crate::files::{open, ordinary};
use crate::statement::{Sha, write_statement};
use crate::{ArchiveError, Level, Selection, Statement};
use headers::{DEFLATED, Entry, STORED, ZSTD, end_of_directory};

/// Files from this size on get zip64's sizes; what deflate cannot compress grows a little.
const LARGE: u64 = 0xF000_0000;

/// How the files of a zip are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// As every program knows it; files are stored as they are at [`Level::Fastest`].
    #[default]
    Deflate,
    /// As newer programs know it.
    Zstd,
}

/// How a zip is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Packing<'a> {
    /// How files are compressed.
    pub method: Method,
    /// How hard.
    pub level: Level,
    /// What is said of the files, in a file at the end that takes the place of one with its name.
    pub statement: Option<&'a Statement>,
}

/// What compresses the files of a zip.
struct Packer {
    method: Method,
    level: Level,
    /// Its tables are large, so all files share it.
    zstd: Option<raw::Encoder<'static>>,
}

/// Writes a zip of the selection: names with `/`, UTF-8 where they are; permissions, kind, owner and time of each file.
/// Links are links. Sockets, pipes and devices stay out, and so does what is gone meanwhile. A file that grows while
/// it is read is cut at the size it had. Returns how many entries were written.
pub fn write_zip(selection: &Selection, packing: &Packing<'_>, out: impl Write) -> Result<u64, ArchiveError> {
    let Packing { method, level, statement } = *packing;
    let mut packer = Packer { method, level, zstd: None };
    let mut out = Counted { inner: out, written: 0 };
    let mut entries = Vec::new();
    let mut digests = Vec::new();
    for path in selection.paths() {
        if statement.is_some_and(|statement| statement.name.as_bytes() == path) {
            continue;
        }
        let Some(metadata) = ordinary(selection.root(), path)? else { continue };
        let kind = metadata.file_type();
        let mut entry = Entry::new(path, &metadata, out.written);
        if kind.is_file() {
            let opened = open(selection, path).map_err(|error| at(path)(error.into()))?;
            let mut file = opened.take(metadata.len());
            entry.deferred = metadata.len() > 0;
            entry.large = metadata.len() >= LARGE;
            let digest = statement.map(|_| Sha256::new());
            let digest = add(&mut entry, digest, &mut packer, &mut out, |to| copy(&mut file, path, to))?;
            digests.extend(digest.map(|digest| (entries.len(), digest)));
        } else {
            let target = match kind.is_symlink() {
                true => fs::read_link(selection.absolute(path)).map_err(at(path))?,
                false => Default::default(),
            };
            let data = target.as_os_str().as_bytes();
            entry.crc = crc32fast::hash(data);
            entry.size = data.len() as u64;
            entry.packed = entry.size;
            out.write_all(&entry.local_header())
                .and_then(|()| out.write_all(data))
                .map_err(ArchiveError::Output)?;
        }
        entries.push(entry);
    }
    if let Some(statement) = statement {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut entry = Entry::made(&statement.name, now, out.written);
        let subjects =
            digests.iter().filter_map(|(index, digest)| Some((&*entries.get(*index)?.name, *digest)));
        add(&mut entry, None, &mut packer, &mut out, |to| {
            write_statement(&statement.text, subjects, to).map_err(ArchiveError::Output)
        })?;
        entries.push(entry);
    }
    let start = out.written;
    for entry in &entries {
        out.write_all(&entry.directory_header()).map_err(ArchiveError::Output)?;
    }
    let end = end_of_directory(entries.len() as u64, start, out.written);
    out.write_all(&end).and_then(|()| out.flush()).map_err(ArchiveError::Output)?;
    Ok(entries.len() as u64)
}

/// Adds a file whose content is what `fill` writes. Returns its digest if there is one to be made.
fn add<W: Write>(
    entry: &mut Entry,
    digest: Option<Sha256>,
    packer: &mut Packer,
    out: &mut Counted<W>,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), ArchiveError>,
) -> Result<Option<Sha>, ArchiveError> {
    if entry.deferred {
        entry.method = match packer.method {
            Method::Zstd => ZSTD,
            Method::Deflate if packer.level == Level::Fastest => STORED,
            Method::Deflate => DEFLATED,
        };
    }
    out.write_all(&entry.local_header()).map_err(ArchiveError::Output)?;
    let start = out.written;
    let mut sums = Sums { crc: crc32fast::Hasher::new(), digest, size: 0 };
    match entry.method {
        DEFLATED => {
            let mut encoder = DeflateEncoder::new(&mut *out, packer.level.deflate());
            fill(&mut Summed { sums: &mut sums, inner: &mut encoder })?;
            encoder.finish().map_err(ArchiveError::Output)?;
        }
        ZSTD => {
            let mut encoder = zio::Writer::new(&mut *out, packer.zstd().map_err(ArchiveError::Output)?);
            fill(&mut Summed { sums: &mut sums, inner: &mut encoder })?;
            encoder.finish().map_err(ArchiveError::Output)?;
            packer.zstd = Some(encoder.into_inner().1);
        }
        _ => fill(&mut Summed { sums: &mut sums, inner: out })?,
    }
    (entry.size, entry.crc, entry.packed) = (sums.size, sums.crc.finalize(), out.written - start);
    if entry.deferred {
        out.write_all(&entry.descriptor()).map_err(ArchiveError::Output)?;
    }
    Ok(sums.digest.map(|digest| digest.finalize().into()))
}

fn copy(from: &mut impl Read, path: &[u8], to: &mut dyn Write) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(at(path)(error)),
        };
        to.write_all(&buffer[..length]).map_err(ArchiveError::Output)?;
    }
}

/// What is known of data when all of it has passed.
struct Sums {
    crc: crc32fast::Hasher,
    digest: Option<Sha256>,
    size: u64,
}

struct Summed<'a, W> {
    sums: &'a mut Sums,
    inner: &'a mut W,
}

impl<W: Write> Write for Summed<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(data)?;
        let done = data.get(..length).unwrap_or(data);
        self.sums.crc.update(done);
        if let Some(digest) = &mut self.sums.digest {
            digest.update(done);
        }
        self.sums.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Packer {
    fn zstd(&mut self) -> io::Result<raw::Encoder<'static>> {
        match self.zstd.take() {
            Some(mut encoder) => raw::Operation::reinit(&mut encoder).map(|()| encoder),
            None => raw::Encoder::new(self.level.zstd()),
        }
    }
}

struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(data)?;
        self.written += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
