//! Loaded into QEMU before its other libraries: hands what QEMU asks of the kernel's vhost driver to the stand-in, which
//! is at the other end of the socket that QEMU takes for `/dev/vhost-vsock`, and the guest's memory to QEMU.
//!
//! A message is the number of an ioctl (8 bytes) and its argument, with the descriptor beside it that the argument names.
//! The answer is the result (4 bytes, a negative error number), and the argument again.

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void},
    ptr, slice,
};

/// `VHOST_VIRTIO` of `linux/vhost.h`, and the numbers of those of its requests whose arguments are not what they seem.
const GROUP: c_ulong = 0xaf;
const SET_MEM_TABLE: c_ulong = 0x03;
const SET_VRING_KICK: c_ulong = 0x20;
const SET_VRING_ERR: c_ulong = 0x22;

/// Bytes of a region in the table of memory, and of the table without its regions.
const REGION: usize = 32;
const TABLE: usize = 8;

/// Longest message.
const MAX: usize = 4096;

/// System calls of x86-64.
const SYS_IOCTL: c_long = 16;
const SYS_DUP: c_long = 32;
const SYS_MEMFD_CREATE: c_long = 319;

const EINVAL: c_int = 22;
const EIO: c_int = 5;
const POLLIN: i16 = 1;
const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;

/// The name that QEMU gives a guest's memory, and the variable with the number of the file that it is to be.
const MEMORY: &CStr = c"memory-backend-memfd";
const VARIABLE: &str = "TART_STANDIN_MEMORY";

#[repr(C)]
struct Part {
    base: *const c_void,
    len: usize,
}

#[repr(C)]
struct Message {
    name: *const c_void,
    name_len: u32,
    parts: *const Part,
    parts_len: usize,
    control: *const c_void,
    control_len: usize,
    flags: c_int,
}

/// `struct cmsghdr` with one descriptor, and the padding to its alignment.
#[repr(C)]
struct Rights {
    len: usize,
    level: c_int,
    kind: c_int,
    descriptor: c_int,
    padding: c_int,
}

#[repr(C)]
struct Poll {
    descriptor: c_int,
    events: i16,
    happened: i16,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn sendmsg(socket: c_int, message: *const Message, flags: c_int) -> isize;
    fn recv(socket: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> isize;
    fn poll(polled: *mut Poll, count: c_ulong, timeout: c_int) -> c_int;
    fn __errno_location() -> *mut c_int;
}

/// # Safety
/// As `ioctl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(descriptor: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if (request >> 8) & 0xff != GROUP {
        // SAFETY: it is what the caller asks for.
        let result = unsafe { syscall(SYS_IOCTL, descriptor, request, argument) };
        return c_int::try_from(result).unwrap_or(-1);
    }
    // SAFETY: the caller's argument is that of this request.
    match unsafe { forward(descriptor, request, argument.cast()) } {
        0.. => 0,
        error => {
            // SAFETY: it is this thread's own.
            unsafe { *__errno_location() = -error };
            -1
        }
    }
}

/// # Safety
/// The argument is that of this request of vhost's.
unsafe fn forward(socket: c_int, request: c_ulong, argument: *mut u8) -> c_int {
    let (number, reads) = (request & 0xff, request >> 30 & 2 != 0);
    let mut len = usize::try_from(request >> 16 & 0x3fff).unwrap_or(0);
    if number == SET_MEM_TABLE {
        // SAFETY: a table begins with the number of its regions.
        let regions = unsafe { argument.cast::<u32>().read_unaligned() };
        len = TABLE + REGION * usize::try_from(regions).unwrap_or(0);
    }
    let mut message = [0; MAX];
    let (head, rest) = message.split_at_mut(8);
    head.copy_from_slice(&u64::to_le_bytes(request));
    let Some(body) = rest.get_mut(..len) else { return -EINVAL };
    if len > 0 {
        // SAFETY: the argument has this length.
        body.copy_from_slice(unsafe { slice::from_raw_parts(argument, len) });
    }
    let names_file = (SET_VRING_KICK..=SET_VRING_ERR).contains(&number);
    // SAFETY: `struct vhost_vring_file` is an index and a descriptor.
    let file = if names_file { unsafe { argument.cast::<c_int>().add(1).read_unaligned() } } else { -1 };
    let rights = Rights {
        len: size_of::<Rights>() - size_of::<c_int>(),
        level: SOL_SOCKET,
        kind: SCM_RIGHTS,
        descriptor: file,
        padding: 0,
    };
    let part = Part { base: message.as_ptr().cast(), len: 8 + len };
    let has_file = file >= 0;
    let header = Message {
        name: ptr::null(),
        name_len: 0,
        parts: &raw const part,
        parts_len: 1,
        control: if has_file { (&raw const rights).cast() } else { ptr::null() },
        control_len: if has_file { size_of::<Rights>() } else { 0 },
        flags: 0,
    };
    // SAFETY: all that the header leads to is alive.
    if unsafe { sendmsg(socket, &raw const header, 0) } < 0 {
        return -EIO;
    }
    let mut answer = [0_u8; MAX];
    let mut polled = Poll { descriptor: socket, events: POLLIN, happened: 0 };
    // SAFETY: the buffer has that length; QEMU has made the socket one that does not wait.
    let received = unsafe {
        while poll(&raw mut polled, 1, -1) < 0 {}
        recv(socket, answer.as_mut_ptr().cast(), MAX, 0)
    };
    let (Some(result), Some(body)) = (answer.first_chunk(), answer.get(4..4 + len)) else { return -EIO };
    if received < 4 {
        return -EIO;
    }
    if reads {
        // SAFETY: the argument has this length, and the request says that it is written to.
        unsafe { ptr::copy_nonoverlapping(body.as_ptr(), argument, len) };
    }
    c_int::from_le_bytes(*result)
}

/// # Safety
/// As `memfd_create(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memfd_create(name: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: the caller gives a string.
    let is_memory = unsafe { CStr::from_ptr(name) } == MEMORY;
    let given = std::env::var(VARIABLE).ok().and_then(|number| number.parse::<c_int>().ok());
    // SAFETY: it is what the caller asks for, or a copy of a descriptor.
    let made = unsafe {
        match given.filter(|_| is_memory) {
            Some(file) => syscall(SYS_DUP, file),
            None => syscall(SYS_MEMFD_CREATE, name, flags),
        }
    };
    c_int::try_from(made).unwrap_or(-1)
}
