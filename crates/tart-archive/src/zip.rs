//! Zip, written as a stream: sizes and checksums follow each file's data (APPNOTE 4.3.9), the directory is at the end.
//!
//! Numbers that need more than 32 bits are written as zip64 has them (APPNOTE 4.5.3), and only those.

use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use flate2::write::DeflateEncoder;
use zstd::stream::{raw, zio};

use crate::error::at;
use crate::files::{open, ordinary};
use crate::{ArchiveError, Level, Selection};

/// Files from this size on get zip64's sizes; what deflate cannot compress grows a little.
const LARGE: u64 = 0xF000_0000;
const MAX32: u32 = u32::MAX;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const ZSTD: u16 = 93;

/// How the files of a zip are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// As every program knows it; files are stored as they are at [`Level::Fastest`].
    #[default]
    Deflate,
    /// As newer programs know it.
    Zstd,
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
pub fn write_zip(
    selection: &Selection,
    method: Method,
    level: Level,
    out: impl Write,
) -> Result<u64, ArchiveError> {
    let mut packer = Packer { method, level, zstd: None };
    let mut out = Counted { inner: out, written: 0 };
    let mut entries = Vec::new();
    for path in selection.paths() {
        let Some(metadata) = ordinary(selection.root(), path)? else { continue };
        let kind = metadata.file_type();
        let mut entry = Entry::new(path, &metadata, out.written);
        if kind.is_file() {
            add_file(&mut entry, selection, path, &metadata, &mut packer, &mut out)?;
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
    let start = out.written;
    for entry in &entries {
        out.write_all(&entry.directory_header()).map_err(ArchiveError::Output)?;
    }
    let end = end_of_directory(entries.len() as u64, start, out.written);
    out.write_all(&end).and_then(|()| out.flush()).map_err(ArchiveError::Output)?;
    Ok(entries.len() as u64)
}

fn add_file(
    entry: &mut Entry,
    selection: &Selection,
    path: &[u8],
    metadata: &Metadata,
    packer: &mut Packer,
    out: &mut Counted<impl Write>,
) -> Result<(), ArchiveError> {
    let opened = open(selection, path).map_err(|error| at(path)(error.into()))?;
    let mut file = opened.take(metadata.len());
    entry.deferred = metadata.len() > 0;
    entry.large = metadata.len() >= LARGE;
    if entry.deferred {
        entry.method = match packer.method {
            Method::Zstd => ZSTD,
            Method::Deflate if packer.level == Level::Fastest => STORED,
            Method::Deflate => DEFLATED,
        };
    }
    out.write_all(&entry.local_header()).map_err(ArchiveError::Output)?;
    let start = out.written;
    let mut crc = crc32fast::Hasher::new();
    match entry.method {
        DEFLATED => {
            let mut encoder = DeflateEncoder::new(&mut *out, packer.level.deflate());
            entry.size = copy(&mut file, path, &mut crc, &mut encoder)?;
            encoder.finish().map_err(ArchiveError::Output)?;
        }
        ZSTD => {
            let mut encoder = zio::Writer::new(&mut *out, packer.zstd().map_err(ArchiveError::Output)?);
            entry.size = copy(&mut file, path, &mut crc, &mut encoder)?;
            encoder.finish().map_err(ArchiveError::Output)?;
            packer.zstd = Some(encoder.into_inner().1);
        }
        _ => entry.size = copy(&mut file, path, &mut crc, out)?,
    }
    entry.crc = crc.finalize();
    entry.packed = out.written - start;
    if entry.deferred {
        out.write_all(&entry.descriptor()).map_err(ArchiveError::Output)?;
    }
    Ok(())
}

fn copy(
    from: &mut impl Read,
    path: &[u8],
    crc: &mut crc32fast::Hasher,
    to: &mut impl Write,
) -> Result<u64, ArchiveError> {
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(at(path)(error)),
        };
        let data = &buffer[..length];
        crc.update(data);
        to.write_all(data).map_err(ArchiveError::Output)?;
        size += length as u64;
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

/// What the directory says of a file.
struct Entry {
    name: Box<[u8]>,
    offset: u64,
    size: u64,
    packed: u64,
    crc: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    method: u16,
    /// Size and checksum follow the data.
    deferred: bool,
    /// With zip64's sizes after the data.
    large: bool,
}

impl Entry {
    fn new(path: &[u8], metadata: &Metadata, offset: u64) -> Self {
        let mut name = path.to_vec();
        if metadata.is_dir() {
            name.push(b'/');
        }
        Self {
            name: name.into_boxed_slice(),
            offset,
            size: 0,
            packed: 0,
            crc: 0,
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: metadata.mtime(),
            method: STORED,
            deferred: false,
            large: false,
        }
    }

    fn flags(&self) -> u16 {
        let utf8 = if std::str::from_utf8(&self.name).is_ok() { 1 << 11 } else { 0 };
        utf8 | if self.deferred { 1 << 3 } else { 0 }
    }

    /// What a program has to know to read it (APPNOTE 4.4.3.2).
    fn version(&self, large: bool) -> u16 {
        match self.method {
            ZSTD => 63,
            _ if large => 45,
            _ => 20,
        }
    }

    fn needs_large(&self) -> bool {
        self.large || self.size >= MAX32.into() || self.packed >= MAX32.into()
    }

    /// Times and owners, which both headers have (Info-ZIP's fields 0x5455 and 0x7875).
    fn extra(&self) -> Vec<u8> {
        let mut extra = Vec::with_capacity(48);
        // A time beyond 32 bits is left to the coarse field.
        if let Ok(time) = i32::try_from(self.mtime) {
            put16(&mut extra, 0x5455);
            put16(&mut extra, 5);
            extra.push(1);
            extra.extend_from_slice(&time.to_le_bytes());
        }
        put16(&mut extra, 0x7875);
        put16(&mut extra, 11);
        extra.extend_from_slice(&[1, 4]);
        put32(&mut extra, self.uid);
        extra.push(4);
        put32(&mut extra, self.gid);
        extra
    }

    fn local_header(&self) -> Vec<u8> {
        let mut extra = self.extra();
        if self.large {
            put16(&mut extra, 1);
            put16(&mut extra, 16);
            extra.extend_from_slice(&[0; 16]);
        }
        let sizes = match (self.large, self.deferred) {
            (true, _) => (0, MAX32, MAX32),
            (false, true) => (0, 0, 0),
            (false, false) => (self.crc, short(self.packed), short(self.size)),
        };
        let mut header = b"PK\x03\x04".to_vec();
        put16(&mut header, self.version(self.large));
        self.common(&mut header, sizes);
        put16(&mut header, length(&extra));
        header.extend_from_slice(&self.name);
        header.extend_from_slice(&extra);
        header
    }

    /// From the flags to the length of the name.
    fn common(&self, header: &mut Vec<u8>, (crc, packed, size): (u32, u32, u32)) {
        put16(header, self.flags());
        put16(header, self.method);
        let (date, time) = dos_time(self.mtime);
        put16(header, time);
        put16(header, date);
        put32(header, crc);
        put32(header, packed);
        put32(header, size);
        put16(header, length(&self.name));
    }

    fn descriptor(&self) -> Vec<u8> {
        let mut text = b"PK\x07\x08".to_vec();
        put32(&mut text, self.crc);
        if self.large {
            put64(&mut text, self.packed);
            put64(&mut text, self.size);
        } else {
            put32(&mut text, short(self.packed));
            put32(&mut text, short(self.size));
        }
        text
    }

    fn directory_header(&self) -> Vec<u8> {
        let mut extra = self.extra();
        let (large, far) = (self.needs_large(), self.offset >= MAX32.into());
        if large || far {
            put16(&mut extra, 1);
            put16(&mut extra, if large { 16 } else { 0 } + if far { 8 } else { 0 });
            if large {
                put64(&mut extra, self.size);
                put64(&mut extra, self.packed);
            }
            if far {
                put64(&mut extra, self.offset);
            }
        }
        let mut header = b"PK\x01\x02".to_vec();
        let version = self.version(large || far);
        // Made on Unix: the upper half of the attributes is the mode.
        put16(&mut header, 3 << 8 | version);
        put16(&mut header, version);
        let sizes =
            if large { (self.crc, MAX32, MAX32) } else { (self.crc, short(self.packed), short(self.size)) };
        self.common(&mut header, sizes);
        put16(&mut header, length(&extra));
        header.extend_from_slice(&[0; 6]);
        let directory = if self.name.ends_with(b"/") { 0x10 } else { 0 };
        put32(&mut header, self.mode << 16 | directory);
        put32(&mut header, short(self.offset));
        header.extend_from_slice(&self.name);
        header.extend_from_slice(&extra);
        header
    }
}

fn end_of_directory(count: u64, start: u64, end: u64) -> Vec<u8> {
    let mut text = Vec::new();
    if count >= u16::MAX.into() || end >= MAX32.into() {
        text.extend_from_slice(b"PK\x06\x06");
        put64(&mut text, 44);
        put16(&mut text, 3 << 8 | 45);
        put16(&mut text, 45);
        text.extend_from_slice(&[0; 8]);
        put64(&mut text, count);
        put64(&mut text, count);
        put64(&mut text, end - start);
        put64(&mut text, start);
        text.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        put64(&mut text, end);
        put32(&mut text, 1);
    }
    text.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    put16(&mut text, count);
    put16(&mut text, count);
    put32(&mut text, short(end - start));
    put32(&mut text, short(start));
    put16(&mut text, 0);
    text
}

/// Date and time as DOS had them, in UTC; what DOS did not have is its nearest.
fn dos_time(mtime: i64) -> (u16, u16) {
    let (days, seconds) = (mtime.div_euclid(86_400), mtime.rem_euclid(86_400));
    // Days since the first of March of the year 0, in cycles of 400 years.
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + cycle * 400 + i64::from(month <= 2);
    if year < 1980 {
        return (1 << 5 | 1, 0);
    }
    if year > 2107 {
        return (127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29);
    }
    let field = |value: i64| u16::try_from(value).unwrap_or(0);
    let date = field(year - 1980) << 9 | field(month) << 5 | field(day);
    (date, field(seconds / 3600) << 11 | field(seconds / 60 % 60) << 5 | field(seconds % 60 / 2))
}

fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(MAX32)
}

fn length(text: &[u8]) -> u16 {
    u16::try_from(text.len()).expect("paths of the system are shorter than 4096 bytes")
}

fn put16(to: &mut Vec<u8>, value: u16) {
    to.extend_from_slice(&value.to_le_bytes());
}

fn put32(to: &mut Vec<u8>, value: u32) {
    to.extend_from_slice(&value.to_le_bytes());
}

fn put64(to: &mut Vec<u8>, value: u64) {
    to.extend_from_slice(&value.to_le_bytes());
}
