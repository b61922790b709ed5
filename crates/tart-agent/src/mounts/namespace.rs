//! The job's mount namespace, whose root is the job tree.
//!
//! A plain `chroot` would do for the view, but the kernel refuses user namespaces to a process whose root is not its
//! namespace's (`current_chrooted`), and with them rootless containers and the sandboxes of browsers.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Mode, OFlags},
    mount::MountPropagationFlags,
    thread::UnshareFlags,
};

/// Makes the namespace. What the agent mounts in the tree later appears in it too; what a job mounts stays in it.
pub(super) fn create(tree: &Path) -> io::Result<OwnedFd> {
    rustix::mount::mount_change(tree, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    // A thread of its own: it alone changes namespaces and ends.
    std::thread::scope(|scope| {
        scope.spawn(|| enter(tree)).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

fn enter(tree: &Path) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "rustix marks every unshare unsafe because of file descriptor tables")]
    // SAFETY: the descriptor table stays shared; only this thread's mounts, root and working directory change.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open("/proc/thread-self/ns/mnt", flags, Mode::empty())?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    rustix::process::chdir(tree)?;
    // The initramfs cannot be left by pivot_root, only be covered.
    rustix::mount::mount_move(".", "/")?;
    Ok(namespace)
}
