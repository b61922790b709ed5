//! What holds a QEMU, should its guest take it over.

use std::path::Path;

use super::{QemuDriver, args::TCG_BUFFER};
use crate::{Acceleration, MachineSpec, confine::Allowed};

/// Host memory that QEMU takes for itself, in bytes: its code, its heap, its threads' stacks, buffers of disks.
const OWN_MEMORY: u64 = 512 << 20;

/// Memory that it takes at most besides its guest's, in bytes.
pub(super) fn own_memory(acceleration: Acceleration) -> u64 {
    let translated = match acceleration {
        Acceleration::Kvm => 0,
        Acceleration::Tcg => u64::from(TCG_BUFFER) << 20,
    };
    translated + OWN_MEMORY
}

/// What it opens by its path.
pub(super) fn allowed(driver: &QemuDriver, spec: &MachineSpec) -> Allowed {
    let images = |read_only| {
        spec.disks.iter().filter(move |disk| disk.read_only == read_only).filter_map(|disk| disk.path.clone())
    };
    let own = [&spec.kernel, &spec.initrd].into_iter().cloned();
    // One that is installed elsewhere has its libraries and firmware beside it.
    let prefix = driver.binary.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    let installed = ["lib", "lib64", "libexec", "share"].map(|name| prefix.join(name));
    Allowed {
        read: own.chain(images(true)).chain(spec.later_images.iter().cloned()).collect(),
        write: std::iter::once(spec.run_dir.clone())
            .chain(images(false))
            .chain(spec.later_disk.clone())
            .collect(),
        installed: installed.into_iter().chain([driver.binary.clone()]).collect(),
    }
}
