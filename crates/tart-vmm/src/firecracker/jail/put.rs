//! Making a jail, and putting files into it.

use std::{
    fs::{DirBuilder, File, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, SeekFrom as Find, StatVfsMountFlags, fstatvfs, ioctl_ficlone, linkat,
        openat, statvfs, unlinkat,
    },
    io::Errno,
};

use super::{Furnishing, JailPlan, Source};
use crate::{Identity, VmmError, firecracker::dir::Dir, handle};

/// Bytes of a disk without an image.
const EMPTY: u64 = 4096;

/// Who may do what with shared files, and with a machine's own.
const SHARED: u32 = 0o444;
const OWN: u32 = 0o600;

/// Makes the directories and files of a jail; `open` gives the open file of each. Blocks.
pub(in crate::firecracker) fn make<F>(
    plan: &JailPlan,
    files: &[Furnishing<F>],
    open: impl Fn(&F) -> io::Result<File>,
) -> Result<Dir, VmmError> {
    let failed = |what: String| move |e: io::Error| VmmError::system(what, e);
    let dir = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&plan.root)
        .and_then(|()| Dir::open(&plan.root))
        .map_err(failed(format!("make the jail {}", plan.root.display())))?;
    for file in files {
        file.map(&open).and_then(|file| put(&dir, plan.identity, &file)).map_err(failed(format!(
            "put {} into the jail {}",
            file.name,
            plan.root.display()
        )))?;
    }
    Ok(dir)
}

/// Why no jail can be in a directory, if there is a reason.
pub(in crate::firecracker) fn refuse_mount(dir: &Path) -> Option<String> {
    let flags = statvfs(dir).ok()?.f_flag;
    let forbidden = [
        (StatVfsMountFlags::NODEV, "devices cannot be used", "nodev"),
        (StatVfsMountFlags::NOEXEC, "programs cannot be run", "noexec"),
    ];
    let (_, what, option) = forbidden.into_iter().find(|(flag, ..)| flags.contains(*flag))?;
    Some(format!(
        "{what} in {}, whose file system is mounted with `{option}`: set `state_dir`, or `--jails` of the root helper, to a \
         directory of another",
        dir.display()
    ))
}

/// Puts a file into a jail, in the place of what has its name. The jailed program may be running. Blocks.
pub(in crate::firecracker) fn put(dir: &Dir, identity: Identity, file: &Furnishing<File>) -> io::Result<()> {
    let name = file.name.to_string();
    match unlinkat(dir.dir(), &*name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match &file.source {
        Source::Empty { writable } => {
            let made = create(dir, &name)?;
            made.set_len(EMPTY)?;
            finish(&made, identity, *writable)
        }
        Source::Shared(source) => {
            if harmless(source, identity)? && link(source, dir, &name)? {
                return Ok(());
            }
            copy(source, dir, identity, &name, false)
        }
        Source::Own(source) => {
            if link(source, dir, &name)? {
                // One file with two names has one owner.
                return finish(source, identity, true);
            }
            copy(source, dir, identity, &name, true)
        }
    }
}

/// Opens what is to be put into a jail.
pub(in crate::firecracker) fn open(path: &PathBuf) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no file", path.display())))
}

/// Whether the jailed user can read a file and can do nothing else to it, so that it may be linked as it is.
fn harmless(file: &File, identity: Identity) -> io::Result<bool> {
    let about = file.metadata()?;
    let (read, write) = (0o004, 0o002);
    Ok(about.uid() != identity.uid
        && about.gid() != identity.gid
        && about.mode() & read != 0
        && about.mode() & write == 0)
}

/// Gives an open file another name, in the jail. `false` if it cannot have one there.
fn link(source: &File, dir: &Dir, name: &str) -> io::Result<bool> {
    if link_of_mount(source, dir, name)? {
        return Ok(true);
    }
    match handle::by_mount_of(dir.dir(), source) {
        Ok(same) => link_of_mount(&same, dir, name),
        // Another file system, or one without handles, or the right to use them is missing.
        Err(_) => Ok(false),
    }
}

/// The same for a file by a mount.
fn link_of_mount(source: &impl AsRawFd, dir: &Dir, name: &str) -> io::Result<bool> {
    let path = format!("/proc/self/fd/{}", source.as_raw_fd());
    match linkat(CWD, path, dir.dir(), name, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        // Another mount, or a file system without links, or too many of them, or the file has no name any more.
        Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn create(dir: &Dir, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir.dir(), name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn copy(source: &File, dir: &Dir, identity: Identity, name: &str, writable: bool) -> io::Result<()> {
    let copy = create(dir, name)?;
    if ioctl_ficlone(&copy, source).is_err() {
        copy_data(source, &copy)?;
    }
    finish(&copy, identity, writable)
}

/// Gives a file to the jailed user, or only lets it be read.
fn finish(file: &File, identity: Identity, writable: bool) -> io::Result<()> {
    if writable {
        fchown(file, Some(identity.uid), Some(identity.gid))?;
    }
    file.set_permissions(Permissions::from_mode(if writable { OWN } else { SHARED }))
}

/// Copies what a file has data for; holes stay holes. Root's own blocks are not for copies, and the file may grow meanwhile.
fn copy_data(mut from: &File, mut to: &File) -> io::Result<()> {
    let (about, room) = (from.metadata()?, fstatvfs(to)?);
    if about.blocks().saturating_mul(512) > room.f_bavail.saturating_mul(room.f_frsize) {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "there is no room for a copy of it"));
    }
    to.set_len(about.len())?;
    let mut at = 0;
    while at < about.len() {
        let start = match rustix::fs::seek(from, Find::Data(at)) {
            Ok(start) if start < about.len() => start,
            Ok(_) | Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(from, Find::Hole(start))?.min(about.len());
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), &mut to)?;
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{FileExt as _, symlink},
    };

    use super::*;
    use crate::firecracker::jail::Name;

    const USER: Identity = Identity { uid: 60_001, gid: 60_002 };

    fn put_in(dir: &Dir, position: u8, source: Source<PathBuf>) -> io::Result<()> {
        put(dir, USER, &Furnishing { name: Name::Disk(position), source }.map(open)?)
    }

    #[test]
    fn data_is_copied_and_holes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let from = File::options().read(true).write(true).create_new(true).open(at("from")).unwrap();
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"middle", 32 << 20).unwrap();
        from.write_all_at(b"end", (64 << 20) - 3).unwrap();
        let to = File::create(at("to")).unwrap();
        copy_data(&from, &to).unwrap();
        assert!(fs::read(at("from")).unwrap() == fs::read(at("to")).unwrap());
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "{}", to.metadata().unwrap().blocks());
    }

    #[test]
    fn a_file_that_has_no_room_is_not_copied() {
        let small = tempfile::tempdir().unwrap();
        let mount = |options: &std::ffi::CStr| {
            let flags = rustix::mount::MountFlags::NOSUID;
            rustix::mount::mount("tart", small.path(), c"tmpfs", flags, options).unwrap();
        };
        mount(c"size=1m");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image"), vec![1; 2 << 20]).unwrap();
        let (from, to) = (File::open(dir.path().join("image")), File::create(small.path().join("to")));
        let copied = copy_data(&from.unwrap(), &to.unwrap());
        rustix::mount::unmount(small.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        insta::assert_snapshot!(copied.unwrap_err(), @"there is no room for a copy of it");
    }

    #[test]
    fn shared_files_are_linked_if_they_can_only_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("root")).unwrap();
        let place = Dir::open(&at("root")).unwrap();
        for (mode, linked) in [(0o444, true), (0o644, true), (0o600, false), (0o666, false)] {
            fs::write(at("image"), "image").unwrap();
            fs::set_permissions(at("image"), Permissions::from_mode(mode)).unwrap();
            put_in(&place, 0, Source::Shared(at("image"))).unwrap();
            let (image, within) = (at("image").metadata().unwrap(), at("root/disk0").metadata().unwrap());
            assert_eq!(image.ino() == within.ino(), linked, "{mode:o}");
            assert_eq!(image.mode() & 0o777, mode, "the original is left alone");
            assert_eq!(within.mode() & 0o006, 0o004, "{mode:o}");
            fs::remove_file(at("image")).unwrap();
        }
    }

    #[test]
    fn a_hostile_jail_gets_files_in_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("root")).unwrap();
        fs::write(at("image"), "image").unwrap();
        fs::write(at("precious"), "precious").unwrap();
        let place = Dir::open(&at("root")).unwrap();
        symlink("../precious", at("root/disk0")).unwrap();
        put_in(&place, 0, Source::Empty { writable: false }).unwrap();
        assert_eq!(fs::read_to_string(at("precious")).unwrap(), "precious");
        assert_eq!(at("root/disk0").symlink_metadata().unwrap().len(), EMPTY);
        fs::create_dir(at("root/disk1")).unwrap();
        assert!(put_in(&place, 1, Source::Shared(at("image"))).is_err());
        assert!(put_in(&place, 2, Source::Shared(dir.path().to_owned())).is_err());
    }
}
