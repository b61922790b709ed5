//! The snapshot that guests of jobs go on from: an idle guest that has booted, has the helper tree's disk mounted, and ran
//! the stages' tools once. No job was ever in it, so it holds no secret.
//!
//! It is kept beside the assets under a name of all that it depends on, so whatever changes makes another.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tart_net::Nic;
use tart_vmm::{MachineSpec, Origin, Snapshot};

use super::HostSetup;
use crate::guest::{save_template, template_disks, template_facts};

/// Where snapshots are, below the assets.
const DIRECTORY: &str = "snapshots";

/// Snapshots that are kept; those not used for longest go.
const MAX_KEPT: usize = 8;

/// Name of the machine that is saved.
const MACHINE: &str = "template";

/// Bytes of a digest that make a name.
const NAME_BYTES: usize = 16;

/// The snapshot for this host's jobs: as kept, or made now, which takes as long as a boot.
///
/// # Errors
/// Why there is none; guests boot then.
pub(super) async fn prepare(setup: &HostSetup, note: impl FnOnce()) -> Result<Snapshot, String> {
    let mut spec = setup.machine();
    let dir = setup.places.machine(MACHINE, &mut spec).map_err(|error| error.to_string())?;
    let reservation = setup.network.reserve(MACHINE).await.map_err(|error| error.to_string())?;
    let nic = reservation.nic().cloned();
    let root = setup.images.store().root().join(DIRECTORY);
    let place = root.join(name(setup, nic.as_ref()).map_err(|error| error.to_string())?);
    let lock = on_thread({
        let root = root.clone();
        move || lock(&root)
    })
    .await?;
    let kept = on_thread({
        let place = place.clone();
        move || read(&place)
    })
    .await?;
    let snapshot = match kept {
        Some(snapshot) => Ok(snapshot),
        None => {
            note();
            spec.nic = nic;
            spec.disks = template_disks(&setup.boot.helper);
            spec.origin = Origin::Template;
            make(setup, &spec, root, place).await
        }
    };
    drop((reservation, dir, lock));
    snapshot
}

async fn make(
    setup: &HostSetup,
    spec: &MachineSpec,
    root: PathBuf,
    place: PathBuf,
) -> Result<Snapshot, String> {
    let snapshot = save_template(setup, spec).await?;
    let kept = snapshot.clone();
    let written = on_thread(move || {
        fs::create_dir(&place)
            .or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })?;
        kept.write(&place).map_err(io::Error::other)?;
        prune(&root)
    });
    if let Err(error) = written.await {
        // This runner has it in memory.
        tracing::warn!(error, "A snapshot of the guest cannot be kept");
    }
    Ok(snapshot)
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the preparation was interrupted".to_owned()),
    }
}

/// Held while a snapshot is looked for and made, so that runners that start together make one.
fn lock(root: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    let lock = File::options().create(true).truncate(false).write(true).open(root.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

fn read(place: &Path) -> io::Result<Option<Snapshot>> {
    let snapshot = Snapshot::read(place).map_err(io::Error::other)?;
    if snapshot.is_some() {
        // When it was used last.
        File::open(place)?.set_modified(SystemTime::now())?;
    }
    Ok(snapshot)
}

/// Removes what was not used for longest.
fn prune(root: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            kept.push((about.modified()?, entry.path()));
        }
    }
    kept.sort();
    for (_, path) in kept.iter().rev().skip(MAX_KEPT) {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

/// A name of everything that a snapshot depends on.
fn name(setup: &HostSetup, nic: Option<&Nic>) -> io::Result<String> {
    let (boot, config) = (&setup.boot, &setup.config);
    let mut facts = format!(
        "tart {} protocol {}\nguest {}\n{} processors, {} bytes\narguments {:?}\ntimes {}\ntuning {:?}\nnic {:?}\n{}\n",
        env!("CARGO_PKG_VERSION"),
        tart_proto::limits::VERSION,
        boot.digest,
        config.vcpus,
        config.memory.bytes(),
        config.kernel_args,
        // Its agent was told by how much it is to wait longer.
        tart_proto::time::factor(),
        (&config.cpu_template, config.huge_pages, config.balloon, config.disk_bandwidth),
        nic.map(|nic| &nic.mac),
        setup.driver.describe(),
    );
    for disk in template_disks(&boot.helper) {
        let _infallible = writeln!(facts, "disk {}", disk.serial);
    }
    facts.push_str(&template_facts(&boot.helper));
    for file in [setup.driver.program(), &boot.kernel, &boot.initrd, &boot.helper] {
        let about = fs::metadata(file)?;
        let (len, seconds, nanos) = (about.len(), about.mtime(), about.mtime_nsec());
        let _infallible = writeln!(facts, "file {} {len} {seconds}.{nanos}", file.display());
    }
    facts.push_str(&host());
    let digest = Sha256::digest(facts.as_bytes());
    Ok(hex::encode(&digest[..NAME_BYTES]))
}

/// The host's kernel and processor: state of the one is none of the other.
fn host() -> String {
    let uname = rustix::system::uname();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = cpu.lines().take_while(|line| !line.is_empty());
    let telling = first.filter(|line| {
        ["vendor_id", "model", "stepping", "microcode", "flags"].iter().any(|key| line.starts_with(key))
    });
    let telling: Vec<_> = telling.collect();
    format!(
        "{} {}\n{}\n",
        uname.release().to_string_lossy(),
        uname.version().to_string_lossy(),
        telling.join("\n")
    )
}
