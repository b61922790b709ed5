//! The namespaces that set a service apart from the job and from other services: a view of processes in which its
//! command is the first, and its own names, shared memory, cgroups and network.

use std::{ffi::CStr, os::fd::AsRawFd, sync::Arc};

use rustix::{
    io::Errno,
    mount::MountFlags,
    thread::{LinkNameSpaceType, UnshareFlags},
};
use tart_proto::message::Failure;

use super::{
    cgroup::{CONTROLLERS, ServiceEntrance, Step},
    spawn::borrow,
};
use crate::{
    failure,
    machine::{Machine, ServicePlace},
};

/// What the first process of a service needs between fork and exec. Nothing in it may allocate when used.
#[derive(Debug)]
pub(super) struct Isolation {
    place: Arc<ServicePlace>,
    cgroup: ServiceEntrance,
}

impl Isolation {
    pub(super) fn new(machine: &Machine, number: u8, step: &Step) -> Result<Self, Failure> {
        let place = machine
            .service(number)
            .ok_or_else(|| failure::invalid(format!("service {number} has no network yet")))?;
        let cgroup = step
            .service_entrance()
            .map_err(|e| failure::system(format!("cannot make the cgroup of service {number}"), e))?;
        Ok(Self { place, cgroup })
    }

    /// Enters the namespaces. The caller is in the service's cgroup and alone in its process. It goes on as the first
    /// process of the service; what it was waits for its end and ends likewise.
    pub(super) fn enter(&self) -> rustix::io::Result<()> {
        let flags =
            UnshareFlags::NEWCGROUP | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWPID;
        #[expect(unsafe_code, reason = "rustix marks every unshare unsafe because of file descriptor tables")]
        // SAFETY: namespaces of this process alone change; the table of descriptors does not.
        unsafe {
            rustix::thread::unshare_unsafe(flags)?;
        }
        // The kernel wants no process in a cgroup whose children have controllers.
        rustix::io::write(borrow(self.cgroup.inner.as_raw_fd()), b"0")?;
        for controller in CONTROLLERS {
            // One that this kernel lacks must not cost the others.
            let _missing =
                rustix::io::write(borrow(self.cgroup.controllers.as_raw_fd()), controller.as_bytes());
        }
        fork_into_namespace()?;
        rustix::system::sethostname(self.place.hostname.as_bytes())?;
        let network = borrow(self.place.network.as_raw_fd());
        rustix::thread::move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
    }
}

/// Covers the kernel's file systems of the tree with those of the new namespaces.
pub(super) fn mount_own_view() -> rustix::io::Result<()> {
    const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
    const VIEWS: [(&CStr, &CStr); 3] =
        [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"cgroup2", c"/sys/fs/cgroup")];
    for (fstype, target) in VIEWS {
        rustix::mount::mount(fstype, target, fstype, SAFE, None)?;
    }
    Ok(())
}

/// Returns in a new process, the first of its namespace. The caller waits for that one, and never returns.
fn fork_into_namespace() -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "a fork between fork and exec")]
    // SAFETY: this process has one thread, and what follows in either process makes system calls only. The bare
    // system call runs no handlers of the C library, whose locks other threads of the agent may have held.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match child {
        -1 => Err(last_error()),
        0 => rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)),
        child => wait_for(child),
    }
}

#[expect(unsafe_code, reason = "system calls of a process that has nothing else left")]
fn wait_for(child: libc::c_long) -> ! {
    let child = libc::pid_t::try_from(child).unwrap_or(-1);
    let mut status = 0;
    // SAFETY: the set and the status live here; no descriptor is used after this. Signals to the whole cgroup are for
    // the service itself: this process lives as long.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        // An open end would keep the streams of the service, and the agent's wait for the exec, from ending.
        libc::close_range(0, libc::c_uint::MAX, 0);
        while libc::waitpid(child, &raw mut status, 0) == -1 && last_error() == Errno::INTR {}
        let code =
            if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
        libc::_exit(code)
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
