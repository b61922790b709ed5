//! The log in a file without a name.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::job_api::LogDigest;
use crate::trace::utf8::Utf8Stream;

/// A log that is written and read at the same time. Its memory does not grow with its size.
#[derive(Debug)]
pub(crate) struct LogBuffer {
    file: File,
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    utf8: Utf8Stream,
    crc: crc32fast::Hasher,
    size: u64,
    /// Nothing is taken any more: the end, the limit or a failure.
    closed: bool,
    failure: Option<String>,
}

impl LogBuffer {
    /// Makes an empty log in a file of this directory, for the owner only and without a name, so that nothing is left
    /// of it after a crash.
    pub(crate) fn new(directory: &Path, limit: u64) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        let state = State {
            utf8: Utf8Stream::default(),
            crc: crc32fast::Hasher::new(),
            size: 0,
            closed: false,
            failure: None,
        };
        Ok(Self { file, limit, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends bytes; at the limit the log is cut, and a notice is its last line.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let text = state.utf8.push(bytes);
        self.append(&mut state, &text);
    }

    /// Ends the log.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let rest = state.utf8.finish();
        self.append(&mut state, rest);
        state.closed = true;
    }

    fn append(&self, state: &mut State, text: &str) {
        let room = usize::try_from(self.limit.saturating_sub(state.size)).unwrap_or(usize::MAX);
        if text.len() < room {
            self.store(state, text);
            return;
        }
        let cut = text.floor_char_boundary(room);
        self.store(state, text.get(..cut).unwrap_or_default());
        self.store(state, &limit_notice(self.limit));
        state.closed = true;
    }

    fn store(&self, state: &mut State, text: &str) {
        if text.is_empty() || state.failure.is_some() {
            return;
        }
        // A write that fails half-way leaves bytes behind the size, which nobody reads.
        if let Err(error) = self.file.write_all_at(text.as_bytes(), state.size) {
            state.failure = Some(error.to_string());
            state.closed = true;
            return;
        }
        state.crc.update(text.as_bytes());
        state.size += u64::try_from(text.len()).unwrap_or(0);
    }

    /// Size and checksum of what is stored.
    pub(crate) fn digest(&self) -> LogDigest {
        let state = self.lock();
        LogDigest { crc32: state.crc.clone().finalize(), size: state.size }
    }

    /// Why the log ended before its time.
    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// At most `max` bytes from `start` on; empty at the end.
    pub(crate) fn read(&self, start: u64, max: usize) -> io::Result<Bytes> {
        let size = self.lock().size;
        let length = usize::try_from(size.saturating_sub(start)).unwrap_or(usize::MAX).min(max);
        let mut bytes = vec![0; length];
        // What is below the size never changes, so no lock is needed.
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// The words of the official runner, to the letter.
fn limit_notice(limit: u64) -> String {
    format!(
        "\n\x1b[33;1mJob's log exceeded limit of {limit} bytes.\nJob execution will continue but no more output will \
         be collected.\x1b[0;m\n"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use insta::assert_debug_snapshot;

    use super::*;

    fn buffer(limit: u64) -> LogBuffer {
        LogBuffer::new(&std::env::temp_dir(), limit).expect("a temporary file")
    }

    fn text(buffer: &LogBuffer) -> String {
        let bytes = buffer.read(0, usize::MAX).expect("readable");
        let digest = buffer.digest();
        assert_eq!(digest, LogDigest { crc32: crc32fast::hash(&bytes), size: bytes.len() as u64 });
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn the_file_has_no_name_and_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let buffer = LogBuffer::new(directory.path(), 100).expect("a temporary file");
        buffer.write(b"masked");
        let metadata = buffer.file.metadata().expect("an open file");
        assert_eq!((metadata.nlink(), metadata.permissions().mode() & 0o777), (0, 0o600));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn the_log_is_cut_between_characters_and_ends_with_the_notice() {
        let buffer = buffer(10);
        buffer.write("12345678€".as_bytes());
        buffer.write(b"lost");
        buffer.close();
        assert_debug_snapshot!(text(&buffer), @r#""12345678\n\u{1b}[33;1mJob's log exceeded limit of 10 bytes.\nJob execution will continue but no more output will be collected.\u{1b}[0;m\n""#);
    }

    #[test]
    fn reaching_the_limit_exactly_is_exceeding_it() {
        let buffer = buffer(4);
        buffer.write(b"123");
        assert_eq!(text(&buffer), "123");
        buffer.write(b"4");
        assert!(text(&buffer).starts_with("1234\n\x1b[33;1mJob's log exceeded limit of 4 bytes."));
    }

    #[test]
    fn half_a_character_at_the_end_is_replaced_and_nothing_follows_the_end() {
        let buffer = buffer(100);
        buffer.write(b"a\xe2\x82");
        assert_eq!(text(&buffer), "a");
        buffer.close();
        buffer.write(b"late");
        buffer.close();
        assert_eq!(text(&buffer), "a\u{fffd}");
    }

    #[test]
    fn parts_are_read_from_anywhere() {
        let buffer = buffer(100);
        buffer.write(b"0123456789");
        let read = |start, max| buffer.read(start, max).expect("readable");
        assert_eq!(&read(0, 3)[..], b"012");
        assert_eq!(&read(8, 3)[..], b"89");
        assert!(read(10, 3).is_empty() && read(u64::MAX, 3).is_empty());
    }

    #[test]
    fn a_full_disk_ends_the_log_and_is_remembered() {
        // Writes to this device fail for want of space.
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let buffer = LogBuffer { file: full, ..buffer(100) };
        buffer.write(b"lost");
        assert!(buffer.failure().is_some());
        assert_eq!(buffer.digest().size, 0);
    }
}
