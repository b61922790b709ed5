//! Files of other mounts. A runner that is a service of systemd has a mount namespace of its own, so whatever it opens is of
//! other mounts than those of the root helper, and the kernel neither links a file of one mount into another, though both be
//! of one file system, nor binds what is of a mount of another namespace. A file's handle (`open_by_handle_at(2)`) leads to
//! the same file by the mount of choice. It takes `CAP_DAC_READ_SEARCH`.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

/// Longest handle, in bytes (`MAX_HANDLE_SZ`).
const MAX_HANDLE: u8 = 128;

#[repr(C)]
struct Handle {
    head: libc::file_handle,
    bytes: [u8; MAX_HANDLE as usize],
}

/// The same file by the mount that a directory is of.
pub(crate) fn by_mount_of(dir: impl AsFd, file: impl AsFd) -> io::Result<OwnedFd> {
    let head = libc::file_handle { handle_bytes: MAX_HANDLE.into(), handle_type: 0, f_handle: [] };
    let mut handle = Handle { head, bytes: [0; MAX_HANDLE as usize] };
    let mut mount = 0;
    let file = file.as_fd();
    // A mere path, as the directory may be open, does not tell a mount here.
    let inside = openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let pointer = (&raw mut handle).cast::<libc::file_handle>();
    #[expect(unsafe_code, reason = "rustix has no calls for handles")]
    // SAFETY: `handle` has the room behind its head that the head tells of, and outlives both calls; the name ends with a
    // zero; the descriptor that the second call makes is nobody else's.
    let same = unsafe {
        let number = file.as_raw_fd();
        let flags = libc::AT_EMPTY_PATH;
        if libc::name_to_handle_at(number, c"".as_ptr(), pointer, &raw mut mount, flags) < 0 {
            return Err(io::Error::last_os_error());
        }
        let opened = libc::open_by_handle_at(inside.as_raw_fd(), pointer, libc::O_PATH | libc::O_CLOEXEC);
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(opened)
    };
    let (wanted, found) = (fstat(file)?, fstat(&same)?);
    // A handle is of one file system, and says nothing of which.
    if (wanted.st_dev, wanted.st_ino) == (found.st_dev, found.st_ino) {
        return Ok(same);
    }
    Err(io::Error::other("the handle leads to another file"))
}

/// The same file by a mount of this process's namespace, whichever has its file system.
pub(crate) fn by_own_mount(file: impl AsFd) -> io::Result<OwnedFd> {
    let device = fstat(&file)?.st_dev;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    // Names with spaces are written otherwise there; another mount of the file system does as well.
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = points.filter_map(|point| openat(CWD, point, flags, Mode::empty()).ok());
    let mut found = opened.filter(|point| fstat(point).is_ok_and(|about| about.st_dev == device));
    let point = found.next().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "its file system is not mounted where the root helper sees it",
        )
    })?;
    by_mount_of(&point, &file)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn a_file_is_found_by_its_handle_and_no_other_of_another_file_system() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image"), "image").unwrap();
        let image = File::open(dir.path().join("image")).unwrap();
        let inode = image.metadata().unwrap().ino();
        let place = File::open(dir.path()).unwrap();
        assert_eq!(fstat(by_mount_of(&place, &image).unwrap()).unwrap().st_ino, inode);
        assert_eq!(fstat(by_own_mount(&image).unwrap()).unwrap().st_ino, inode);
        assert_eq!(fstat(by_own_mount(&place).unwrap()).unwrap().st_ino, place.metadata().unwrap().ino());
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(by_mount_of(File::open(elsewhere.path()).unwrap(), &image).is_err());
        // It is gone from there.
        fs::remove_file(dir.path().join("image")).unwrap();
        assert_eq!(fstat(by_mount_of(&place, &image).unwrap()).unwrap().st_nlink, 0);
    }
}
