//! What the store hands out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
pub(crate) use tart_oci::ImageConfig;

/// What a machine boots from, apart from the job's image and scratch disk. All files are read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootAssets {
    /// What QEMU starts: the bzImage, or the ELF file that was given.
    pub kernel: PathBuf,
    /// The uncompressed kernel, an ELF file, for Firecracker.
    pub vmlinux: PathBuf,
    /// The initramfs with the agent and the kernel's modules.
    pub initrd: PathBuf,
    /// The helper disk, a squashfs.
    pub helper: PathBuf,
    /// The kernel's release, as `uname -r` in the guest says.
    pub release: String,
    /// SHA-256 over the digests of all of them: whatever is cached per boot configuration goes by it.
    pub digest: String,
}

/// Which kernel and agent to boot.
#[derive(Debug, Clone, Default)]
pub struct BootRequest {
    /// The kernel.
    pub kernel: KernelSource,
    /// The agent.
    pub agent: AgentSource,
}

/// Where the guest's kernel comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KernelSource {
    /// The distribution's package for cloud machines.
    #[default]
    Distribution,
    /// A kernel of the user.
    File {
        /// A bzImage or an uncompressed ELF file.
        kernel: PathBuf,
        /// Its modules (`/lib/modules/RELEASE`); none for a kernel that has all drivers built in.
        modules: Option<PathBuf>,
    },
}

/// Where the guest's agent comes from.
#[derive(Debug, Clone, Default)]
pub enum AgentSource {
    /// `TART_AGENT`, then next to the running program, then `/usr/lib/tart/tart-agent`.
    #[default]
    Installed,
    /// This file.
    File(PathBuf),
    /// As [`Self::Installed`], else these bytes, which are in the running program.
    Embedded(&'static [u8]),
}

/// An image as a disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDisk {
    /// The disk, read-only.
    pub path: PathBuf,
    /// Its file system: `squashfs`.
    pub fstype: &'static str,
    /// SHA-256 of the disk, in hexadecimal digits.
    pub digest: String,
    /// What the image says about running commands in it.
    pub config: ImageConfig,
}

/// One entry of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name, such as an image's.
    pub name: String,
    /// Bytes of its files. Files that several entries share count for each.
    pub size: u64,
    /// How long it was not used.
    pub unused_for: std::time::Duration,
    /// More about it: versions, the source.
    pub details: Vec<(String, String)>,
}

/// Kind of a stored entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A kernel with its modules.
    Kernel,
    /// An initramfs.
    Initrd,
    /// A helper disk.
    Helper,
    /// An image of the administrator: built, or imported under a name.
    #[default]
    Image,
    /// An image that was fetched, by the digest of its manifest.
    Pulled,
    /// A compressed layer of images.
    Layer,
    /// A name that stands for a fetched image.
    Reference,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Kernel, Self::Initrd, Self::Helper, Self::Image, Self::Pulled, Self::Layer, Self::Reference];

    /// Its name, also of its directory in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Helper => "helper",
            Self::Image => "image",
            Self::Pulled => "pulled",
            Self::Layer => "layer",
            Self::Reference => "reference",
        }
    }
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries: kind and name.
    pub entries: Vec<(Kind, String)>,
    /// Files.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

/// What a check of the whole store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries that are whole.
    pub good: u64,
    /// Entries with a missing or damaged file: kind, name and the file.
    pub damaged: Vec<(Kind, String, PathBuf)>,
}
