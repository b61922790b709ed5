//! Read-only disks, written from tar streams without unpacking them.

use std::{
    io::{self, BufWriter, Read, Write},
    process::Stdio,
};

use crate::{
    error::{AssetError, IoContext, Result},
    program::TAR2SQFS,
    store::{Store, StoredFile},
};

/// The file system's name for `mount`.
pub(crate) const FSTYPE: &str = "squashfs";

/// Most entries of a root file system.
const MAX_ENTRIES: u64 = 4_000_000;

/// Most bytes of a root file system, as a tar stream.
const MAX_BYTES: u64 = 256 << 30;

/// How many bytes pass between two reports of progress.
const REPORT: u64 = 8 << 20;

/// Makes a disk of a tar stream. The stream ends where its archive does; whatever follows is ignored.
pub(crate) fn from_tar(store: &Store, role: &str, tar: impl Read, total: Option<u64>) -> Result<StoredFile> {
    write(store, role, |out| {
        let mut passing = Passing {
            from: tar,
            to: out,
            done: 0,
            reported: 0,
            report: |done| store.progress().bytes(done, total),
        };
        let copied = check(&mut passing).and_then(|()| io::copy(&mut passing, &mut io::sink()).map(drop));
        copied.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => {
                AssetError::Io { action: "write to", path: "tar2sqfs".into(), source: error }
            }
            _ => AssetError::malformed("the root file system", error.to_string()),
        })
    })
}

/// Makes a disk of the tar stream that `fill` writes. If that fails, nothing is left.
pub(crate) fn write<E: From<AssetError>>(
    store: &Store,
    role: &str,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<StoredFile, E> {
    let draft = store.draft()?;
    // Fast to write and to read: zstd takes 25 times as long to write.
    let mut command = TAR2SQFS.command(["--quiet", "--force", "--no-skip", "--compressor", "lz4"]);
    command.arg(draft.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut writer = TAR2SQFS.start(store, command)?;
    let Some(stdin) = writer.child.stdin.take() else {
        return Err(AssetError::malformed("tar2sqfs", "it has no standard input").into());
    };
    let mut out = Pipe { to: BufWriter::with_capacity(1 << 16, stdin), broken: false };
    let filled = fill(&mut out);
    let flushed = out.flush();
    let broken = out.broken;
    drop(out);
    match filled {
        // The program says better why it stopped reading.
        Err(error) if broken => {
            writer.finish()?;
            return Err(error);
        }
        Err(error) => return Err(error),
        Ok(()) => writer.finish()?,
    }
    flushed.at("write to", "tar2sqfs")?;
    let file = store.add(role, draft)?;
    if file.size == 0 {
        return Err(AssetError::malformed("the root file system", "it is empty").into());
    }
    Ok(file)
}

/// The way to the program, which knows whether it still reads.
struct Pipe<W> {
    to: W,
    broken: bool,
}

impl<W> Pipe<W> {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.broken |= result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.to.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.flush();
        self.note(result)
    }
}

/// Reads the archive's headers while it passes by.
fn check(tar: impl Read) -> io::Result<()> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut archive = tar::Archive::new(tar);
    let mut count = 0;
    for entry in archive.entries()? {
        let entry = entry?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(invalid(format!("more than {MAX_ENTRIES} files")));
        }
        let path = entry.path_bytes();
        if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
            return Err(invalid(format!(
                "the path `{}` leads out of it",
                String::from_utf8_lossy(&path).escape_debug()
            )));
        }
    }
    if count == 0 { Err(invalid("no files in it".into())) } else { Ok(()) }
}

/// Hands on everything that is read.
struct Passing<R, W, F> {
    from: R,
    to: W,
    done: u64,
    reported: u64,
    report: F,
}

impl<R: Read, W: Write, F: Fn(u64)> Read for Passing<R, W, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        if let Some(part) = buffer.get(..length) {
            self.to.write_all(part)?;
        }
        self.done += length as u64;
        if self.done > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_BYTES} bytes")));
        }
        if self.done - self.reported >= REPORT {
            self.reported = self.done;
            (self.report)(self.done);
        }
        Ok(length)
    }
}

/// Refuses an archive that is none, as the cheapest check before a program is started.
pub(crate) fn looks_like_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

/// Reads up to `length` bytes.
pub(crate) fn peek(reader: &mut impl Read, length: u64) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    reader.take(length).read_to_end(&mut start).at("read", "the root file system")?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(paths: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for path in paths {
            let mut header = tar::Header::new_ustar();
            // As hostile archives do: the library refuses such paths.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(3);
            header.set_cksum();
            builder.append(&header, &b"abc"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        assert!(check(&*archive(&["./bin/sh", "etc/..passwd"])).is_ok());
        insta::assert_snapshot!(check(&*archive(&["bin/sh", "etc/../../x"])).unwrap_err(), @"the path `etc/../../x` leads out of it");
    }

    #[test]
    fn everything_passes_unchanged() {
        let tar = archive(&["bin/sh", "bin/ls"]);
        let mut out = Vec::new();
        let mut passing = Passing { from: &*tar, to: &mut out, done: 0, reported: 0, report: |_| {} };
        check(&mut passing).unwrap();
        io::copy(&mut passing, &mut io::sink()).unwrap();
        assert_eq!(out, tar);
    }

    proptest! {
        #[test]
        fn junk_never_panics(at in 0usize..1024, junk in prop::collection::vec(any::<u8>(), 1..600)) {
            let mut tar = archive(&["bin/sh", "bin/ls"]);
            for (place, byte) in tar.iter_mut().skip(at).zip(&junk) {
                *place = *byte;
            }
            let _any = check(&*tar);
            let _any = check(&*junk);
        }
    }
}
