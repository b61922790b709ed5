//! Files of other mounts. A runner that is a service of systemd has a mount namespace of its own, so whatever it opens is of
//! other mounts than those of the root helper, and the kernel links no file of one mount into another, though both be of
//! one file system. A file's handle (`open_by_handle_at(2)`) leads to the same file by the mount of choice. It takes
//! `CAP_DAC_READ_SEARCH`.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use rustix::fs::{Mode, OFlags, openat};

use crate::firecracker::dir::Dir;

/// Longest handle, in bytes (`MAX_HANDLE_SZ`).
const MAX_HANDLE: u8 = 128;

#[repr(C)]
struct Handle {
    head: libc::file_handle,
    bytes: [u8; MAX_HANDLE as usize],
}

/// The same file by the mount that a directory is of.
pub(super) fn by_mount_of(dir: &Dir, file: &File) -> io::Result<OwnedFd> {
    let head = libc::file_handle { handle_bytes: MAX_HANDLE.into(), handle_type: 0, f_handle: [] };
    let mut handle = Handle { head, bytes: [0; MAX_HANDLE as usize] };
    let mut mount = 0;
    // A mere path, as the directory is open, does not tell a mount here.
    let inside = openat(dir.dir(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let pointer = (&raw mut handle).cast::<libc::file_handle>();
    #[expect(unsafe_code, reason = "rustix has no calls for handles")]
    // SAFETY: `handle` has the room behind its head that the head tells of, and outlives both calls; the name ends with a
    // zero; the descriptor that the second call makes is nobody else's.
    let same = unsafe {
        let named = libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            pointer,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        );
        if named < 0 {
            return Err(io::Error::last_os_error());
        }
        let opened = libc::open_by_handle_at(inside.as_raw_fd(), pointer, libc::O_PATH | libc::O_CLOEXEC);
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(opened)
    };
    let (wanted, found) = (file.metadata()?, rustix::fs::fstat(&same)?);
    // A handle is of one file system, and says nothing of which.
    if (wanted.dev(), wanted.ino()) == (found.st_dev, found.st_ino) {
        return Ok(same);
    }
    Err(io::Error::other("the handle leads to another file"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_found_by_its_handle_and_no_other_of_another_file_system() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image"), "image").unwrap();
        let image = File::open(dir.path().join("image")).unwrap();
        let found = by_mount_of(&Dir::open(dir.path()).unwrap(), &image).unwrap();
        assert_eq!(rustix::fs::fstat(&found).unwrap().st_ino, image.metadata().unwrap().ino());
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(by_mount_of(&Dir::open(elsewhere.path()).unwrap(), &image).is_err());
        // It is gone from there.
        fs::remove_file(dir.path().join("image")).unwrap();
        let found = by_mount_of(&Dir::open(dir.path()).unwrap(), &image).unwrap();
        assert_eq!(rustix::fs::fstat(&found).unwrap().st_nlink, 0);
    }
}
