//! The kernel's `userfaultfd` and the memory that its pages come from: all that is `unsafe` of the page server.

use std::{
    ffi::c_void,
    io::{self, IoSliceMut},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
    ptr,
};

use rustix::{
    fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, readlink},
    io::{Errno, ReadWriteFlags, preadv2},
    ioctl::{self, Opcode, Updater},
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
};

use super::{
    events::{EVENT_BYTES, Event},
    mappings::{HUGE, Page, SMALL},
};

/// Events that are read at once.
const EVENTS: usize = 64;

/// Reads where a file that has no positions is.
const HERE: u64 = u64::MAX;

/// What a descriptor of `userfaultfd` is called in `/proc/self/fd`.
const NAME: &str = "anon_inode:[userfaultfd]";

/// `UFFDIO` of `linux/userfaultfd.h`.
const GROUP: u8 = 0xaa;
const WAKE: Opcode = ioctl::opcode::read::<Range>(GROUP, 0x02);
const COPY: Opcode = ioctl::opcode::read_write::<Copy>(GROUP, 0x03);
const ZERO: Opcode = ioctl::opcode::read_write::<Zero>(GROUP, 0x04);

/// `struct uffdio_range`.
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct Zero {
    range: Range,
    mode: u64,
    zeroed: i64,
}

/// What came of serving a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// It is there.
    Done,
    /// It was there before, which the kernel also says if it has no huge page for it.
    Exists,
    /// The process changes its memory at the moment: this many bytes are there, and the rest has to be tried again after
    /// its events.
    Later(u64),
    /// The process has ended.
    Gone,
}

/// The other end of a process's memory.
#[derive(Debug)]
pub(super) struct Userfault(OwnedFd);

impl Userfault {
    /// Takes a descriptor that somebody sent.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, String> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let name =
            readlink(Path::new(&link), Vec::new()).map_err(|e| format!("its descriptor is unknown: {e}"))?;
        if name.to_bytes() != NAME.as_bytes() {
            return Err("its descriptor is no userfaultfd".to_owned());
        }
        // Reading must never wait: the process may take the event for which this thread was woken.
        fcntl_getfl(&fd)
            .and_then(|flags| fcntl_setfl(&fd, flags | OFlags::NONBLOCK))
            .map_err(|e| format!("its userfaultfd cannot be read without waiting: {e}"))?;
        Ok(Self(fd))
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// The events that are there.
    pub(super) fn events(&self) -> io::Result<Vec<Event>> {
        let mut bytes = [0; EVENTS * EVENT_BYTES];
        // The process can have the descriptor wait again after this thread was woken, but not this call, since Linux 6.10.
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let read = match preadv2(&self.0, parts, HERE, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::SPIPE | Errno::INVAL) => rustix::io::read(&self.0, &mut bytes),
            read => read,
        };
        let len = match read {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let (events, _) = bytes.get(..len).unwrap_or_default().as_chunks::<EVENT_BYTES>();
        let events: Vec<_> = events.iter().map(Event::read).collect();
        for event in &events {
            if let Event::Forked(number) = event
                && let Ok(number) = RawFd::try_from(*number)
            {
                #[expect(unsafe_code, reason = "the kernel gives this event's descriptor by its number")]
                // SAFETY: reading the event has made the descriptor, which nobody else knows of.
                drop(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        Ok(events)
    }

    /// Gives the process a page, of which it has some bytes already.
    pub(super) fn serve(&self, page: Page, done: u64, memory: &Memory) -> io::Result<Served> {
        let (to, len) = (page.address + done, page.size - done);
        let from = match page.offset.map(|offset| memory.at(offset + done, len)) {
            Some(Some(from)) => from,
            // There is no shared page of zeros that is huge.
            None | Some(None) if page.size != SMALL => memory.zeros(),
            None | Some(None) => return self.zero(to, len),
        };
        let mut copy = Copy { to, from, len, mode: 0, copied: 0 };
        #[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
        // SAFETY: the opcode is of this structure. The kernel reads `len` bytes at `from`, which `memory` has mapped, and
        // writes to the other process, where it checks addresses itself.
        let result = unsafe { ioctl::ioctl(&self.0, Updater::<COPY, _>::new(&mut copy)) };
        self.outcome(result, (to, len), copy.copied, done)
    }

    fn zero(&self, to: u64, len: u64) -> io::Result<Served> {
        let mut zero = Zero { range: Range { start: to, len }, mode: 0, zeroed: 0 };
        #[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
        // SAFETY: the opcode is of this structure, and the kernel touches no memory of this process beside it.
        let result = unsafe { ioctl::ioctl(&self.0, Updater::<ZERO, _>::new(&mut zero)) };
        self.outcome(result, (to, len), zero.zeroed, 0)
    }

    fn outcome(
        &self,
        result: rustix::io::Result<()>,
        range: (u64, u64),
        copied: i64,
        done: u64,
    ) -> io::Result<Served> {
        match result {
            Ok(()) => Ok(Served::Done),
            Err(Errno::EXIST) => self.wake(range),
            // Not all of it, or nothing, in which case `copied` is an error's number.
            Err(Errno::AGAIN) => {
                let copied = u64::try_from(copied).unwrap_or(0).min(range.1);
                Ok(Served::Later(done + copied))
            }
            Err(Errno::SRCH) => Ok(Served::Gone),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whoever waits for pages that are there looks again.
    fn wake(&self, (start, len): (u64, u64)) -> io::Result<Served> {
        let mut range = Range { start, len };
        #[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
        // SAFETY: the opcode is of this structure, which the kernel only reads.
        unsafe { ioctl::ioctl(&self.0, Updater::<WAKE, _>::new(&mut range)) }?;
        Ok(Served::Exists)
    }
}

/// Memory that pages are copied from.
#[derive(Debug)]
pub(super) struct Memory {
    file: OwnedFd,
    contents: Mapped,
    zeros: Mapped,
}

impl Memory {
    /// Maps a file that nobody changes: the kernel copies from it, and would only say `EFAULT` if it were cut.
    pub(super) fn map(file: OwnedFd, len: u64) -> io::Result<Self> {
        let contents = Mapped::new(len, |len| {
            #[expect(unsafe_code, reason = "the kernel copies pages from mapped memory")]
            // SAFETY: the kernel chooses the address. This process makes no reference to what is there.
            unsafe {
                mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::NORESERVE, &file, 0)
            }
        })?;
        let zeros = Mapped::new(HUGE, |len| {
            #[expect(unsafe_code, reason = "the kernel copies pages from mapped memory")]
            // SAFETY: the kernel chooses the address. This process makes no reference to what is there.
            unsafe {
                mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::NORESERVE)
            }
        })?;
        Ok(Self { file, contents, zeros })
    }

    /// The address of bytes of the file, or nothing if they are a hole: reading it would fill it.
    fn at(&self, offset: u64, len: u64) -> Option<u64> {
        let hole = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data >= offset.saturating_add(len),
            Err(Errno::NXIO) => true,
            // A file system that knows of no holes.
            Err(_) => false,
        };
        let end = offset.checked_add(len).filter(|end| *end <= self.contents.len as u64);
        (!hole && end.is_some()).then(|| self.contents.address() + offset)
    }

    fn zeros(&self) -> u64 {
        self.zeros.address()
    }
}

/// A mapping that is this process's own.
#[derive(Debug)]
struct Mapped {
    start: *mut c_void,
    len: usize,
}

#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
// SAFETY: nothing here is bound to a thread, and the memory is only the kernel's to read.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(len: u64, map: impl FnOnce(usize) -> rustix::io::Result<*mut c_void>) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        Ok(Self { start: map(len)?, len })
    }

    fn address(&self) -> u64 {
        self.start.addr() as u64
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "what was mapped has to be unmapped")]
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        let _unmapped = unsafe { munmap(self.start, self.len) };
    }
}
