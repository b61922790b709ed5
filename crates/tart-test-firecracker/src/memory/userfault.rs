//! The kernel's `userfaultfd` on the side of the process whose memory it is.

use std::{
    ffi::c_void,
    fs::File,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
};

use rustix::{
    fs::OFlags,
    ioctl::{self, Ioctl, IoctlOutput, Opcode, Updater},
    mm::UserfaultfdFlags,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

/// The device, which jails have, and which may be opened by others than root.
const DEVICE: &str = "/dev/userfaultfd";

/// `UFFDIO` of `linux/userfaultfd.h`, and the version of its interface.
const GROUP: u8 = 0xaa;
const VERSION: u64 = 0xaa;
const API: Opcode = ioctl::opcode::read_write::<Api>(GROUP, 0x3f);
const REGISTER: Opcode = ioctl::opcode::read_write::<Register>(GROUP, 0x00);

/// `UFFD_FEATURE_EVENT_REMOVE`.
const EVENT_REMOVE: u64 = 1 << 3;

/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `USERFAULTFD_IOC_NEW` of the device.
struct New;

#[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
// SAFETY: the argument is a number, and what is returned is a new descriptor.
unsafe impl Ioctl for New {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::none(GROUP, 0)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::without_provenance_mut((OFlags::CLOEXEC | OFlags::NONBLOCK).bits() as usize)
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the kernel has just made it.
        Ok(unsafe { OwnedFd::from_raw_fd(output) })
    }
}

/// A new one, with the features that Firecracker asks for.
pub(super) fn create() -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "memory is what is tested")]
    // SAFETY: the descriptor is for memory that nothing refers to.
    let fd = unsafe {
        match File::options().read(true).write(true).open(DEVICE) {
            Ok(device) => ioctl::ioctl(&device, New),
            Err(_) => rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK),
        }
    }?;
    let mut api = Api { version: VERSION, features: EVENT_REMOVE, ioctls: 0 };
    #[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
    // SAFETY: the opcode is of this structure.
    unsafe { ioctl::ioctl(&fd, Updater::<API, _>::new(&mut api)) }?;
    Ok(fd)
}

/// From now on, who touches a page there that is missing waits for it.
pub(super) fn register(fd: &OwnedFd, start: u64, len: u64) -> io::Result<()> {
    let mut register = Register { start, len, mode: MISSING, ioctls: 0 };
    #[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
    // SAFETY: the opcode is of this structure, and nothing refers to the memory.
    unsafe { ioctl::ioctl(fd, Updater::<REGISTER, _>::new(&mut register)) }?;
    Ok(())
}

/// Sends bytes with descriptors; how many were sent.
pub(super) fn send(stream: &UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    Ok(sendmsg(stream, &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL)?)
}
