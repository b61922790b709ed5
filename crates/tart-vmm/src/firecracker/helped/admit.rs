//! Which requests the helper carries out: it trusts the runner with its machines, but not with anything else of the host.

use std::{collections::BTreeSet, fs::File, os::fd::OwnedFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, fstatfs};
use tart_root_helper::Peer;

use super::request::{Request, Wanted};
use crate::{
    firecracker::jail::{Furnishing, Name, Source},
    spec::{self, MAX_DISKS},
};

/// Bytes of memory, and of a file, at most. No host has as many.
const MAX_BYTES: u64 = 1 << 44;

/// Processors at most.
const MAX_VCPUS: u32 = 1024;

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Machine(String),
    #[error("the runner drives Firecracker {asked}, and the root helper has {has}: start Tart again")]
    Version { asked: String, has: String },
    #[error("{0} is no size of this machine")]
    Size(u64),
    #[error("its files do not make a machine: {0}")]
    Files(&'static str),
    #[error("{0} cannot be of that kind")]
    Kind(Name),
    #[error("{given} descriptors came, and {needed} are needed")]
    Descriptors { given: usize, needed: usize },
    #[error("its network namespace is none that this helper has made for a guest")]
    Namespace,
    #[error("{0}: its descriptor is not open for reading")]
    Unread(Name),
    #[error("{0}: its descriptor is not open for reading and writing")]
    Unwritten(Name),
    #[error("{0}: it is no file")]
    NoFile(Name),
    #[error("{0}: it is a file of the kernel's")]
    OfKernel(Name),
    #[error("{0}: it is no file that is the runner's alone")]
    Foreign(Name),
    #[error("it has no empty disk {0}")]
    NoEmpty(Name),
    #[error("it was not started to be saved, or was saved already")]
    NotSaved,
}

/// Checks what needs no look at the system. `version` is the helper's Firecracker.
pub(super) fn check(wanted: &Wanted, descriptors: usize, version: &str) -> Result<(), Refusal> {
    spec::check_id(&wanted.machine).map_err(|error| Refusal::Machine(error.to_string()))?;
    if wanted.version != version {
        return Err(Refusal::Version { asked: wanted.version.clone(), has: version.to_owned() });
    }
    // A limit of 0 would be none.
    let bytes = [Some(wanted.memory), wanted.bandwidth];
    if let Some(size) = bytes.into_iter().flatten().find(|size| !(1..=MAX_BYTES).contains(size)) {
        return Err(Refusal::Size(size));
    }
    if wanted.max_file > MAX_BYTES {
        return Err(Refusal::Size(wanted.max_file));
    }
    if !(1..=MAX_VCPUS).contains(&wanted.vcpus) {
        return Err(Refusal::Size(wanted.vcpus.into()));
    }
    check_files(wanted)?;
    let files = wanted.files.iter().filter(|file| file.file().is_some()).count();
    let needed = 2 + usize::from(wanted.has_namespace) + files;
    if descriptors == needed {
        return Ok(());
    }
    Err(Refusal::Descriptors { given: descriptors, needed })
}

/// Whether files are those that a machine boots from, or goes on from, and its disks.
fn check_files(wanted: &Wanted) -> Result<(), Refusal> {
    let names: BTreeSet<Name> = wanted.files.iter().map(|file| file.name).collect();
    if names.len() != wanted.files.len() {
        return Err(Refusal::Files("one is there twice"));
    }
    let disks = names.iter().filter(|name| matches!(name, Name::Disk(_))).count();
    let is_gap = |name: &Name| matches!(name, Name::Disk(position) if usize::from(*position) >= disks);
    if disks > MAX_DISKS || names.iter().any(is_gap) {
        return Err(Refusal::Files("its disks are too many, or some are left out"));
    }
    let has = |name| names.contains(&name);
    let boots = has(Name::Kernel) && has(Name::Initrd) && !has(Name::State) && !has(Name::Memory);
    let restores = has(Name::State) && !has(Name::Kernel) && !has(Name::Initrd);
    if !boots && !restores {
        return Err(Refusal::Files("it has neither a kernel with its initramfs nor a saved state"));
    }
    // Memory is in a file or is served.
    if restores && has(Name::Memory) == wanted.listeners.memory || boots && wanted.listeners.memory {
        return Err(Refusal::Files("its memory is nowhere, or in two places"));
    }
    let is_disk = |file: &&Furnishing<()>| matches!(file.name, Name::Disk(_));
    let is_shared = |file: &&Furnishing<()>| matches!(file.source, Source::Shared(()));
    match wanted.files.iter().find(|file| !is_disk(file) && !is_shared(file)) {
        Some(file) => Err(Refusal::Kind(file.name)),
        None => Ok(()),
    }
}

/// Checks what was handed on for a file: the runner has to have opened it for what the machine does with it, so that it
/// gets nothing by the helper that it could not open itself.
pub(super) fn check_file(
    file: &Furnishing<()>,
    descriptor: OwnedFd,
    peer: Peer,
) -> Result<Furnishing<File>, Refusal> {
    let name = file.name;
    let flags = fcntl_getfl(&descriptor).map_err(|_| Refusal::Unread(name))?;
    let mode = flags & OFlags::RWMODE;
    // Nobody asks who opens a mere path.
    if flags.contains(OFlags::PATH) || !(mode == OFlags::RDONLY || mode == OFlags::RDWR) {
        return Err(Refusal::Unread(name));
    }
    let about = fstat(&descriptor).map_err(|_| Refusal::NoFile(name))?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return Err(Refusal::NoFile(name));
    }
    // What these say can depend on who reads, which is the helper.
    if fstatfs(&descriptor).is_ok_and(|system| KERNEL.contains(&system.f_type)) {
        return Err(Refusal::OfKernel(name));
    }
    if matches!(file.source, Source::Own(())) {
        if mode != OFlags::RDWR {
            return Err(Refusal::Unwritten(name));
        }
        if about.st_uid != peer.uid || about.st_nlink != 1 {
            return Err(Refusal::Foreign(name));
        }
    }
    file.map(|()| Ok(File::from(descriptor)))
}

/// File systems that are the kernel's own (linux/magic.h): proc, sysfs, debugfs, tracefs, securityfs, both of cgroups,
/// configfs, bpf, efivarfs, selinuxfs, pstore.
const KERNEL: [i64; 12] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x0027_e0eb,
    0x6367_7270,
    0x6265_6570,
    0xcafe_4a11,
    0xde5e_81e4,
    0xf97c_ff8c,
    0x6165_676c,
];

/// How far the requests about a machine that was started have come.
#[derive(Debug)]
pub(super) struct Admission {
    /// Disks that have no image yet.
    empty: Vec<Furnishing<()>>,
    /// It can be saved.
    saves: bool,
}

impl Admission {
    pub(super) fn new(wanted: &Wanted) -> Self {
        let empty = wanted.files.iter().filter(|file| file.file().is_none()).cloned().collect();
        // One that goes on from another is not saved again.
        let saves = wanted.files.iter().any(|file| file.name == Name::Kernel);
        Self { empty, saves }
    }

    /// Whether a request is carried out.
    pub(super) fn admit(&self, request: &Request, descriptors: usize) -> Result<(), Refusal> {
        let needed = usize::from(matches!(request, Request::Put(_)));
        if descriptors != needed {
            return Err(Refusal::Descriptors { given: descriptors, needed });
        }
        match request {
            Request::Connect(_) => Ok(()),
            Request::Take if self.saves => Ok(()),
            Request::Take => Err(Refusal::NotSaved),
            Request::Put(file) => match self.empty_of(file.name).map(|empty| &empty.source) {
                Some(Source::Empty { writable }) => match (&file.source, writable) {
                    (Source::Own(()), true) | (Source::Shared(()), false) => Ok(()),
                    _ => Err(Refusal::Kind(file.name)),
                },
                _ => Err(Refusal::NoEmpty(file.name)),
            },
        }
    }

    fn empty_of(&self, name: Name) -> Option<&Furnishing<()>> {
        self.empty.iter().find(|empty| empty.name == name)
    }

    /// A request was carried out.
    pub(super) fn done(&mut self, request: &Request) {
        match request {
            Request::Connect(_) => {}
            Request::Take => self.saves = false,
            Request::Put(file) => self.empty.retain(|empty| empty.name != file.name),
        }
    }
}

#[cfg(test)]
mod tests;
