//! Reading a layer's tar archive: one entry after the other, with every length bounded before memory is taken for it.
//!
//! The `tar` crate knows the header's fields; long names and extended headers are read here, because it takes as much
//! memory for them as the archive says.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::{error::text, limits::Limits};

const BLOCK: usize = 512;

/// Most bytes of one extended header.
const MAX_EXTENDED: u64 = 1 << 20;

/// Prefix of extended attributes in extended headers. bsdtar says them again in an encoding of its own, which
/// containerd ignores too.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Namespaces of extended attributes that a squashfs can have. It has no ACLs, and its writer refuses an archive for
/// one of them.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// What kind of file an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink(Box<[u8]>),
    HardLink(Box<[u8]>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Owner, mode, time and extended attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    /// Names and values; nearly all files have none.
    pub(crate) xattrs: Option<Box<Xattrs>>,
}

/// Extended attributes: names and values.
pub(crate) type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// One entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it is written.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    /// Bytes of content.
    pub(crate) size: u64,
}

/// Why an archive cannot be read: an error of the reader below, or a text about the archive.
#[derive(Debug)]
pub(crate) enum Broken {
    Read(io::Error),
    Archive(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Archive("it ends too early".to_owned()),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Self::Archive(format!("it cannot be decompressed: {error}"))
            }
            _ => Self::Read(error),
        }
    }
}

type Result<T> = std::result::Result<T, Broken>;

fn broken<T>(problem: impl Into<String>) -> Result<T> {
    Err(Broken::Archive(problem.into()))
}

/// A tar archive as a series of entries.
pub(crate) struct Reader<'a, R> {
    from: R,
    limits: &'a Limits,
    /// Bytes of the current entry's content that were not read, and its padding.
    content: u64,
    padding: u64,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    xattrs: Xattrs,
}

impl<'a, R: Read> Reader<'a, R> {
    pub(crate) fn new(from: R, limits: &'a Limits) -> Self {
        Self { from, limits, content: 0, padding: 0 }
    }

    /// The next entry's header; nothing at the archive's end. Content that was not read is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        let mut between = false;
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return if between { broken("it ends after an extended header") } else { Ok(None) };
            };
            let kind = header.entry_type();
            let size = numeric(&header.as_old().size, || header.entry_size())?;
            self.expect(size);
            match kind {
                EntryType::GNULongName => extended.path = Some(self.name(size)?),
                EntryType::GNULongLink => extended.link = Some(self.name(size)?),
                EntryType::XHeader => self.extended(size, &mut extended)?,
                // For the whole archive: a comment of git, of no meaning here.
                EntryType::XGlobalHeader => {}
                EntryType::GNUSparse => return broken("sparse entries are not supported"),
                _ => return self.entry(&header, kind, extended).map(Some),
            }
            between = kind != EntryType::XGlobalHeader;
        }
    }

    /// Copies the current entry's content.
    pub(crate) fn copy_to(&mut self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        while self.content > 0 {
            let most = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..most).unwrap_or_default();
            let length = self.from.read(part)?;
            let Some(part) = part.get(..length).filter(|part| !part.is_empty()) else {
                return broken("it ends too early");
            };
            self.content -= length as u64;
            out(part).map_err(Broken::Read)?;
        }
        Ok(())
    }

    /// What it reads from.
    pub(crate) fn source(&mut self) -> &mut R {
        &mut self.from
    }

    /// The bytes up to the next header, which the caller skips in another way.
    pub(crate) fn take_content(&mut self) -> u64 {
        std::mem::take(&mut self.content).saturating_add(std::mem::take(&mut self.padding))
    }

    fn expect(&mut self, size: u64) {
        self.content = size;
        self.padding = size.checked_next_multiple_of(BLOCK as u64).map_or(0, |padded| padded - size);
    }

    fn skip(&mut self) -> Result<()> {
        self.copy_to(&mut |_| Ok(()))?;
        self.expect_content(self.padding);
        self.copy_to(&mut |_| Ok(()))
    }

    fn expect_content(&mut self, size: u64) {
        (self.content, self.padding) = (size, 0);
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < bytes.len() {
            match self.from.read(bytes.get_mut(filled..).unwrap_or_default())? {
                // Some archives have no end mark.
                0 if filled == 0 => return Ok(None),
                0 => return broken("it ends too early"),
                length => filled += length,
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return broken("it is no tar archive, or damaged: the checksum of a header is wrong");
        }
        Ok(Some(header))
    }

    fn bytes(&mut self, size: u64, most: u64, what: &str) -> Result<Vec<u8>> {
        if size > most {
            return broken(format!("{what} of {size} bytes is longer than {most}"));
        }
        let mut bytes = Vec::new();
        self.copy_to(&mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn name(&mut self, size: u64) -> Result<Vec<u8>> {
        // It ends with a zero byte.
        let mut name = self.bytes(size, self.limits.path_bytes as u64 + 1, "a path")?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn extended(&mut self, size: u64, extended: &mut Extended) -> Result<()> {
        let all = self.bytes(size, MAX_EXTENDED, "an extended header")?;
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let Some((key, value, after)) = record(rest) else {
                return broken("an extended header is malformed");
            };
            rest = after;
            let number = || {
                // Times may have a fraction.
                let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                std::str::from_utf8(whole).ok().and_then(|digits| digits.parse().ok())
            };
            match key {
                b"path" => extended.path = Some(value.to_vec()),
                b"linkpath" => extended.link = Some(value.to_vec()),
                b"size" => match number() {
                    Some(size) => extended.size = Some(size),
                    None => return broken("the size in an extended header is no number"),
                },
                b"uid" => extended.uid = number(),
                b"gid" => extended.gid = number(),
                b"mtime" => extended.mtime = number(),
                _ if key.starts_with(b"GNU.sparse.") => return broken("sparse entries are not supported"),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR)
                        && NAMESPACES.iter().any(|namespace| name.starts_with(namespace))
                    {
                        extended.xattrs.push((name.into(), value.into()));
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, kind: EntryType, extended: Extended) -> Result<Entry> {
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        for part in [Some(&path), link.as_ref()].into_iter().flatten() {
            if part.len() > self.limits.path_bytes {
                return broken(format!("a path of {} bytes: `{}`", part.len(), text(part)));
            }
        }
        let shown = text(&path);
        let link = || match link {
            Some(link) if !link.is_empty() => Ok(link.into_boxed_slice()),
            _ => broken(format!("the link `{shown}` has no target")),
        };
        let number = |field: std::ops::Range<usize>, value: io::Result<Option<u32>>| {
            let field = header.as_bytes().get(field).unwrap_or_default();
            let number = numeric(field, || value.map(|number| u64::from(number.unwrap_or(0))))?;
            Ok::<_, Broken>(u32::try_from(number).unwrap_or(0))
        };
        let device = || {
            Ok::<_, Broken>((
                number(329..337, header.device_major())?,
                number(337..345, header.device_minor())?,
            ))
        };
        let mut size = self.content;
        let kind = match kind {
            // Old archives mark a directory by its name.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()?),
            EntryType::Link => Kind::HardLink(link()?),
            EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::Fifo => Kind::Fifo,
            other => {
                return broken(format!("`{shown}` is of the unknown kind {:?}", other.as_byte() as char));
            }
        };
        if let Some(real) = extended.size {
            size = real;
            self.expect(real);
        }
        if kind != Kind::File {
            size = 0;
        }
        let length: usize = extended.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if length > self.limits.xattr_bytes {
            let most = self.limits.xattr_bytes;
            return broken(format!("`{shown}` has {length} bytes of extended attributes, more than {most}"));
        }
        let owner = |said: Option<u64>, field: u64| match u32::try_from(said.unwrap_or(field)) {
            Ok(id) => Ok(id),
            Err(_) => broken(format!("`{shown}` belongs to a user or group that is no 32-bit number")),
        };
        let old = header.as_old();
        let mode = numeric(&old.mode, || header.mode().map(u64::from))?;
        let metadata = Metadata {
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: owner(extended.uid, numeric(&old.uid, || header.uid())?)?,
            gid: owner(extended.gid, numeric(&old.gid, || header.gid())?)?,
            mtime: extended.mtime.unwrap_or(header.mtime().unwrap_or(0)),
            xattrs: (!extended.xattrs.is_empty()).then(|| Box::new(extended.xattrs)),
        };
        Ok(Entry { path, kind, metadata, size })
    }
}

/// A number of a header. Some programs leave fields blank that they have nothing to say in.
fn numeric(field: &[u8], value: impl FnOnce() -> io::Result<u64>) -> Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    value().or_else(|error| broken(error.to_string()))
}

/// The first record of an extended header: `LENGTH KEY=VALUE\n`. The value may hold anything.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((body.get(..equals)?, body.get(equals + 1..)?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_records_may_hold_line_feeds() {
        let bytes = b"12 key=\na\n\n\n9 b=c\n\n";
        let (key, value, rest) = record(bytes).unwrap();
        assert_eq!((key, value), (&b"key"[..], &b"\na\n\n"[..]));
        assert_eq!(rest, b"9 b=c\n\n");
        assert!(record(b"99 a=b\n").is_none() && record(b"x a=b\n").is_none() && record(b"").is_none());
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _any = record(&junk);
            let limits = Limits::default();
            let mut reader = Reader::new(&*junk, &limits);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
