//! What holds a QEMU, should its guest take it over.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{QemuDriver, args::TCG_BUFFER};
use crate::{
    Acceleration, Identity, MachineSpec, VmmError, confine::Allowed, isolation::Jail, process::User,
};

/// Host memory that QEMU takes for itself, in bytes: its code, its heap, its threads' stacks, buffers of disks.
const OWN_MEMORY: u64 = 512 << 20;

/// The directory below the machine's that its root is mounted on.
const ROOT: &str = "root";

const KVM: &str = "/dev/kvm";

/// The device in the machine's directory that its user has in place of the host's.
const OWN_KVM: &str = "kvm";

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
        write: std::iter::once(spec.run_dir.clone()).chain(images(false)).collect(),
        installed: installed.into_iter().chain([driver.binary.clone()]).collect(),
    }
}

/// Whom it runs as, and what that user sees. The disks that it writes to become that user's.
pub(super) fn user(
    driver: &QemuDriver,
    spec: &MachineSpec,
    identity: Identity,
    allowed: &mut Allowed,
) -> Result<User, VmmError> {
    let mut prepare = || -> io::Result<Jail> {
        for path in spec.disks.iter().filter(|disk| !disk.read_only).filter_map(|disk| disk.path.as_ref()) {
            give(Some(identity), path)?;
        }
        let root = spec.run_dir.join(ROOT);
        DirBuilder::new().mode(0o755).create(&root)?;
        let mut devices = Vec::new();
        if driver.acceleration == Acceleration::Kvm {
            let own = spec.run_dir.join(OWN_KVM);
            let device = fs::metadata(KVM)?.rdev();
            mknodat(CWD, &own, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device)?;
            give(Some(identity), &own)?;
            allowed.write.push(own.clone());
            devices.push((own, PathBuf::from(KVM)));
        }
        Jail::plan(&root, allowed, &devices, &spec.run_dir)
    };
    let what = || format!("make a root directory for virtual machine `{}`", spec.id);
    Ok(User { identity, jail: prepare().map_err(|e| VmmError::system(what(), e))? })
}

/// Makes a file a user's, if there is one.
pub(super) fn give(identity: Option<Identity>, path: &Path) -> io::Result<()> {
    match identity {
        Some(Identity { uid, gid }) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
