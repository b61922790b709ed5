//! Where a job's guest comes from: the pool, the snapshot, or a boot.

use std::path::Path;
use std::sync::Arc;

use tart_assets::{ImageDisk, Lease, Scratch};
use tart_net::{AttachRequest, Attachment};
use tart_proto::message::MountStep;
use tart_vmm::{DiskSpec, MachineDir, Origin, Snapshot};
use tokio::time::Instant;

use super::layout::{Layout, PlannedDisk, fill, template_disks, template_mounts};
use super::pool::Ready;
use super::start::{HostRelay, Start, Started, start};
use super::{GuestFailure, GuestRequest};
use crate::HostSetup;

/// Name of the scratch disk in a machine's directory.
const SCRATCH: &str = "scratch.ext4";

/// A started machine with the disks and the network of a job. Fields are dropped in their order: the machine ends
/// before what it uses.
pub(super) struct Placed {
    pub(super) started: Started,
    pub(super) start: Start,
    pub(super) attachment: Box<dyn Attachment>,
    pub(super) scratch: Scratch,
    pub(super) dir: MachineDir,
    /// What is mounted in it already.
    pub(super) mounted: Vec<MountStep>,
    /// Of the image that it had before the job came.
    pub(super) lease: Option<Lease>,
    /// The first shell of its image, if that is known.
    pub(super) shell: Option<&'static str>,
}

/// What a job's guest is made of.
pub(super) fn layout<'a>(
    setup: &'a HostSetup,
    request: &'a GuestRequest,
    services: &'a [ImageDisk],
    scratch: &'a Path,
) -> Layout<'a> {
    let scratch_fstype = Scratch::FSTYPE;
    Layout { helper: &setup.boot.helper, image: &request.image, services, scratch, scratch_fstype }
}

/// A machine of the pool, if one is ready and has disks enough.
pub(super) async fn from_pool(
    setup: &HostSetup,
    request: &GuestRequest,
    services: &[ImageDisk],
    attach: &AttachRequest,
) -> Option<Placed> {
    let pool = setup.pool.as_ref()?;
    let disks = |scratch: &Path| layout(setup, request, services, scratch).disks();
    template_with(setup, disks(Path::new(SCRATCH)))?;
    let begin = Instant::now();
    let ready = pool.take(&request.image).await?;
    match occupy(ready, attach, disks).await {
        Ok(mut placed) => {
            placed.started.took = begin.elapsed();
            Some(placed)
        }
        Err(error) => {
            tracing::warn!(%error, "A machine of the pool cannot be used; the job gets another");
            None
        }
    }
}

/// The disks of a machine that goes on from the template, if it has enough for these.
fn template_with(setup: &HostSetup, disks: Vec<PlannedDisk>) -> Option<Vec<DiskSpec>> {
    fill(template_disks(&setup.boot.helper), specs(disks))
}

/// Gives a machine the disks and the network of a job.
async fn occupy(
    ready: Ready,
    attach: &AttachRequest,
    disks: impl Fn(&Path) -> Vec<PlannedDisk>,
) -> Result<Placed, GuestFailure> {
    let Ready { started, reservation, scratch, dir, relay, inserted, mounted, image, shell, .. } = ready;
    let attachment = reservation.attach(attach).await?;
    relay.serve_with(attachment.relay());
    for disk in disks(scratch.path()) {
        if !inserted.contains(&disk.serial) {
            started.machine.insert_disk(&disk.serial, &disk.path).await?;
        }
    }
    let lease = image.map(|attached| attached.lease);
    Ok(Placed { started, start: Start::Pooled, attachment, scratch, dir, mounted, lease, shell })
}

/// A new machine: one that goes on from the snapshot if there is one with disks enough, else one that boots.
pub(super) async fn place(
    setup: &HostSetup,
    request: &GuestRequest,
    services: &[ImageDisk],
    attach: &AttachRequest,
) -> Result<Placed, GuestFailure> {
    let fits =
        || template_with(setup, layout(setup, request, services, Path::new(SCRATCH)).disks()).is_some();
    if let Some(snapshot) = setup.snapshot.as_ref().filter(|_| fits()) {
        match new(setup, request, services, attach, Some(snapshot)).await {
            Err(GuestFailure::Machine(error)) => {
                let machine = &request.id;
                tracing::warn!(machine, %error, "A machine does not go on from the snapshot; the job's boots");
            }
            placed => return placed,
        }
    }
    new(setup, request, services, attach, None).await
}

async fn new(
    setup: &HostSetup,
    request: &GuestRequest,
    services: &[ImageDisk],
    attach: &AttachRequest,
    snapshot: Option<&Snapshot>,
) -> Result<Placed, GuestFailure> {
    let mut spec = setup.machine();
    let dir = setup.places.machine(&request.id, &mut spec)?;
    let (scratch, attachment) =
        tokio::join!(scratch(dir.path(), setup.config.disk.bytes()), setup.network.attach(attach));
    let (scratch, attachment) = (scratch?, attachment?);
    let disks = layout(setup, request, services, scratch.path()).disks();
    spec.nic = attachment.guest().nic.clone();
    let (mut how, mut mounted) = (Start::Booted, Vec::new());
    match snapshot.and_then(|snapshot| Some((snapshot, template_with(setup, disks.clone())?))) {
        Some((snapshot, disks)) => {
            spec.disks = disks;
            spec.origin = Origin::Snapshot(snapshot.clone());
            how = Start::Restored;
            mounted = template_mounts(&setup.boot.helper);
        }
        None => spec.disks = specs(disks),
    }
    let relay = Arc::new(HostRelay(attachment.relay()));
    let started = start(&*setup.driver, &spec, relay).await?;
    Ok(Placed { started, start: how, attachment, scratch, dir, mounted, lease: None, shell: None })
}

/// Makes the scratch disk of a machine.
pub(super) async fn scratch(dir: &Path, bytes: u64) -> Result<Scratch, GuestFailure> {
    let path = dir.join(SCRATCH);
    let scratch = tokio::task::spawn_blocking(move || Scratch::create(&path, bytes));
    Ok(scratch.await.map_err(|_| GuestFailure::Interrupted)??)
}

fn specs(disks: Vec<PlannedDisk>) -> Vec<DiskSpec> {
    let spec = |disk: PlannedDisk| DiskSpec {
        read_only: disk.is_read_only(),
        path: Some(disk.path),
        serial: disk.serial,
    };
    disks.into_iter().map(spec).collect()
}
