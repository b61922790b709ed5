//! Guest kernel, initramfs, helper disk and default image: built, verified, cached by content.
//!
//! [`Store`] keeps everything below one directory. What is missing is built on first use and named after its inputs;
//! every file is named after its SHA-256 and checked before it is handed out. All functions block: run them where
//! blocking is fine.

mod agent;
mod bzimage;
mod cpio;
mod deb;
mod debootstrap;
mod decompress;
mod elf;
mod error;
mod initramfs;
mod kernel;
mod model;
mod modules;
mod packages;
mod program;
mod progress;
mod rootfs;
mod scratch;
mod squashfs;
mod store;

pub use error::AssetError;
pub use model::{
    AgentSource, BootAssets, BootRequest, Entry, ImageDisk, KernelSource, Kind, Pruned, Verified,
};
pub use progress::{Progress, Silent};
pub use scratch::Scratch;
pub use store::{
    DEFAULT_IMAGE, Evicted, ImageName, Lease, LocalImage, NewImage, PulledImage, Store, default_root,
};
pub use tart_oci::ImageConfig;
