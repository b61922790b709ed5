//! Starting a monitor as a child of this process.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, chown},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{JAILS, Wanted};
use crate::{
    Identity,
    confine::{Place, PlaceAccess},
    isolation::Jail,
    process::{Launch, Namespace, User},
};

/// The directory that new roots are mounted on, each in a mount namespace of its own.
const ROOT: &str = "root";

/// The directory of devices that monitors have in place of the host's.
const DEVICES: &str = "kvm";

const KVM: &str = "/dev/kvm";

/// What is to be launched. The files that become the monitor's user's are given to it.
pub(super) fn launch(
    wanted: &Wanted,
    descriptors: Vec<Arc<OwnedFd>>,
    stderr: OwnedFd,
    (identity, cgroup): (Option<Identity>, Option<PathBuf>),
) -> io::Result<Launch> {
    let places = wanted.allowed.places();
    if let Some(Identity { uid, gid }) = identity {
        for path in &wanted.own {
            chown(path, Some(uid), Some(gid))?;
        }
    }
    prepared(wanted, descriptors, stderr, places, identity, cgroup.as_deref())
}

/// The same with places that were looked up already, and files that were given.
pub(super) fn prepared(
    wanted: &Wanted,
    descriptors: Vec<Arc<OwnedFd>>,
    stderr: OwnedFd,
    mut places: Vec<Place>,
    identity: Option<Identity>,
    cgroup: Option<&Path>,
) -> io::Result<Launch> {
    let user = identity.map(|identity| user(wanted, identity, &mut places)).transpose()?;
    let cgroup = cgroup.map(|cgroup| File::options().write(true).open(cgroup.join("cgroup.procs")));
    Ok(Launch {
        program: wanted.program.clone(),
        args: wanted.args.iter().map(Into::into).collect(),
        dir: wanted.dir.clone(),
        inherit: descriptors.into_iter().zip(wanted.numbers.iter().copied()).collect(),
        stdout: None,
        stderr,
        network: if user.is_some() { Namespace::Empty } else { Namespace::Runner },
        user,
        cgroup: cgroup.transpose()?,
        places: Some(places),
        max_file: wanted.max_file,
    })
}

/// Whom a monitor runs as, and what that user sees.
fn user(wanted: &Wanted, identity: Identity, places: &mut Vec<Place>) -> io::Result<User> {
    let make = |name| -> io::Result<PathBuf> {
        let path = Path::new(JAILS).join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(path)
    };
    if wanted.kvm {
        let own = make(DEVICES)?.join(identity.uid.to_string());
        let device = fs::metadata(KVM)?.rdev();
        match fs::remove_file(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        mknodat(CWD, &own, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device)?;
        chown(&own, Some(identity.uid), Some(identity.gid))?;
        places.retain(|place| place.path != Path::new(KVM));
        places.push(Place { from: own, path: KVM.into(), access: PlaceAccess::Device });
    }
    Ok(User { identity, jail: Jail::plan(&make(ROOT)?, places, &wanted.dir)? })
}
