//! What a machine is made of.

use std::{path::PathBuf, time::Duration};

use tart_net::Nic;

use crate::{Identity, MachineDir, Snapshot, VmmError};

/// Smallest memory that a guest boots with, in bytes.
const MIN_MEMORY: u64 = 96 << 20;

/// Disks that a machine can have; the microvm machine has 24 slots for devices of all kinds.
pub(crate) const MAX_DISKS: usize = 19;

/// Longest name of a machine, in bytes.
const MAX_ID: usize = 40;

/// Longest serial of a virtio block device, in bytes.
const MAX_SERIAL: usize = 20;

/// A machine to start.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Name of the machine on this host: `[a-z0-9-]{1,40}`.
    pub id: String,
    /// A directory of its own (mode 0700) for sockets and process files; exists. The caller removes it after the
    /// machine's end, see [`crate::MachineDir`].
    pub run_dir: PathBuf,
    /// The guest's kernel in the format that the driver needs (a bzImage for QEMU).
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initrd: PathBuf,
    /// The administrator's words for the kernel's command line, after the driver's own. Those that would break the
    /// guest's start are refused.
    pub extra_kernel_args: Vec<String>,
    /// Virtual processors, at least 1.
    pub vcpus: u32,
    /// Memory in bytes; rounded up to whole MiB.
    pub memory_bytes: u64,
    /// Disks: `vda`, `vdb`, ... in this order.
    pub disks: Vec<DiskSpec>,
    /// The image that a writable disk without one gets later; it exists.
    pub later_disk: Option<PathBuf>,
    /// Where images come from that disks without one get later.
    pub later_images: Vec<PathBuf>,
    /// The network device, if there is one.
    pub nic: Option<Nic>,
    /// How long the machine may take until its agent answers.
    pub boot_limit: Duration,
    /// The user that its monitor runs as, which no other machine has; the runner's without it. Firecracker's jailer needs
    /// one.
    pub identity: Option<Identity>,
    /// The control group (cgroup v2) that its monitor is put into: a directory of this machine's own, which exists, has
    /// the machine's limits, and is removed at its end.
    pub cgroup: Option<PathBuf>,
    /// Where it begins.
    pub origin: Origin,
}

/// Where a machine begins.
#[derive(Debug, Clone, Default)]
pub enum Origin {
    /// Its kernel boots.
    #[default]
    Boot,
    /// Its kernel boots, and the machine is saved later: [`crate::Machine::save`].
    Template,
    /// It goes on from where another was saved. Kernel, processors, memory, and the kinds and order of devices must be
    /// those of that machine; images of disks and the host end of the network device need not. The agent has to be
    /// told which disks have other images.
    Snapshot(Snapshot),
}

impl Origin {
    /// What it goes on from, if it does.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Snapshot(snapshot) => Some(snapshot),
            Self::Boot | Self::Template => None,
        }
    }
}

/// A disk of a machine: a raw image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The image. A writable one is thrown away after the job: it may be lost when the host crashes. Without one, the
    /// disk is a few sectors of zeros until [`crate::Machine::insert_disk`] gives it one.
    pub path: Option<PathBuf>,
    /// The guest may not write to it; several machines may share the image.
    pub read_only: bool,
    /// What the guest knows it by, `[A-Za-z0-9_-]{1,20}`.
    pub serial: String,
}

impl MachineSpec {
    /// Puts it into its directory, with what the directory holds for it.
    pub fn place_in(&mut self, dir: &MachineDir) {
        dir.path().clone_into(&mut self.run_dir);
        (self.identity, self.cgroup) = (dir.identity(), dir.cgroup().map(Into::into));
    }

    /// Checks what every driver takes for granted.
    ///
    /// # Errors
    /// [`VmmError::Spec`] with the first rule that is broken.
    pub fn check(&self) -> Result<(), VmmError> {
        check_id(&self.id)?;
        let serial =
            |text: &str| is_word(text, MAX_SERIAL, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let broken = if self.vcpus == 0 {
            "it has no processor".to_owned()
        } else if self.memory_bytes < MIN_MEMORY {
            format!(
                "{} bytes of memory are less than the {} MiB that a guest needs",
                self.memory_bytes,
                MIN_MEMORY >> 20
            )
        } else if self.disks.len() > MAX_DISKS {
            format!("it has {} disks, more than {MAX_DISKS}", self.disks.len())
        } else if let Some(disk) = self.disks.iter().find(|disk| !serial(&disk.serial)) {
            format!("`{}` is no disk serial of at most {MAX_SERIAL} letters, digits, - and _", disk.serial)
        } else if let Origin::Snapshot(snapshot) = &self.origin
            && snapshot.memory_bytes() != self.memory_mib() << 20
        {
            "it has not as much memory as the machine that it is to go on from".to_owned()
        } else {
            return Ok(());
        };
        Err(VmmError::Spec { id: self.id.clone(), reason: broken })
    }

    /// Bytes of the largest disk that the guest may write to: a monitor writes to no other file.
    pub(crate) fn largest_writable(&self) -> u64 {
        let disks = self.disks.iter().filter(|disk| !disk.read_only).filter_map(|disk| disk.path.as_ref());
        let sizes = disks.chain(&self.later_disk).filter_map(|disk| disk.metadata().ok());
        sizes.map(|disk| disk.len()).max().unwrap_or(0)
    }

    /// Memory in whole MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.memory_bytes.div_ceil(1 << 20)
    }
}

/// The disk of a serial that has no image yet, with its position.
pub(crate) fn empty_disk<'d>(
    id: &str,
    disks: &'d [DiskSpec],
    serial: &str,
) -> Result<(usize, &'d DiskSpec), VmmError> {
    let found = disks.iter().enumerate().find(|(_, disk)| disk.serial == serial && disk.path.is_none());
    found.ok_or_else(|| VmmError::control(id, format!("has no empty disk `{serial}`")))
}

/// Checks the name of a machine, which is also that of its directory.
pub(crate) fn check_id(id: &str) -> Result<(), VmmError> {
    if is_word(id, MAX_ID, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Ok(());
    }
    let reason =
        format!("`{id}` is no machine name of at most {MAX_ID} lower case letters, digits and hyphens");
    Err(VmmError::Spec { id: id.to_owned(), reason })
}

fn is_word(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}
