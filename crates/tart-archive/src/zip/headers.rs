//! What is written before and after the files of a zip.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

const MAX32: u32 = u32::MAX;
pub(super) const STORED: u16 = 0;
pub(super) const DEFLATED: u16 = 8;
pub(super) const ZSTD: u16 = 93;

/// What the directory says of a file.
pub(super) struct Entry {
    pub(super) name: Box<[u8]>,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) packed: u64,
    pub(super) crc: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    pub(super) method: u16,
    /// Size and checksum follow the data.
    pub(super) deferred: bool,
    /// With zip64's sizes after the data.
    pub(super) large: bool,
}

impl Entry {
    pub(super) fn new(path: &[u8], metadata: &Metadata, offset: u64) -> Self {
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

    /// A file that everybody may read, and that nobody has yet.
    pub(super) fn made(name: &str, mtime: i64, offset: u64) -> Self {
        let name = name.as_bytes().into();
        let (mode, method) = (0o100_644, STORED);
        Self {
            name,
            offset,
            size: 0,
            packed: 0,
            crc: 0,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            method,
            deferred: true,
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

    pub(super) fn local_header(&self) -> Vec<u8> {
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

    pub(super) fn descriptor(&self) -> Vec<u8> {
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

    pub(super) fn directory_header(&self) -> Vec<u8> {
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

pub(super) fn end_of_directory(count: u64, start: u64, end: u64) -> Vec<u8> {
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
