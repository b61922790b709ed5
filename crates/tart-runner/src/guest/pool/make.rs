//! Making a machine that waits for a job, with all that needs no word of the job.

use std::path::Path;
use std::sync::Arc;

use tart_assets::{ImageDisk, Scratch};
use tart_net::Nic;
use tart_proto::message::Interface;
use tokio::time::Instant;

use super::super::configuration;
use super::super::layout::{IMAGE, SCRATCH_SERIAL, early, not_done, template_mounts};
use super::super::place::scratch;
use super::super::rehearsal;
use super::super::start::start;
use super::{AttachedImage, LateRelay, Ready, Shared};

/// A machine with a disk to write to and the helper tree, and with the image that a job is likely to ask for.
///
/// # Errors
/// Why there is none.
pub(super) async fn machine(shared: &Shared) -> Result<Ready, String> {
    let (number, wanted) = {
        let mut state = shared.state();
        state.made += 1;
        let images = state.ready.iter().filter_map(|ready| ready.image.as_ref()).map(|image| &image.disk);
        (state.made, state.last_images.next(images))
    };
    let mut ready = bare(shared, number).await?;
    if let Some(disk) = wanted {
        match lease(shared, disk.clone()).await {
            Some(image) => ready.image = Some(image),
            // It was evicted.
            None => shared.state().last_images.forget(&disk),
        }
    }
    if let Err(error) = set_up(shared, &mut ready).await {
        if let Some(image) = &ready.image {
            shared.state().last_images.forget(&image.disk);
        }
        return Err(error);
    }
    ready.since = Instant::now();
    Ok(ready)
}

async fn bare(shared: &Shared, number: u64) -> Result<Ready, String> {
    let factory = &shared.factory;
    let id = format!("ready-{number}");
    let mut spec = factory.spec.clone();
    let dir = factory.places.machine(&id, &mut spec).map_err(|error| error.to_string())?;
    let scratch = scratch(dir.path(), factory.disk).await.map_err(|error| error.to_string())?;
    spec.later_disk = Some(scratch.path().to_owned());
    let reservation = factory.network.reserve(&id).await.map_err(|error| error.to_string())?;
    spec.nic = reservation.nic().cloned();
    let relay = Arc::new(LateRelay::default());
    let started = start(&*factory.driver, &spec, relay.clone()).await.map_err(|error| error.to_string())?;
    let inserted =
        spec.disks.into_iter().filter(|disk| disk.path.is_some()).map(|disk| disk.serial).collect();
    let mounted = template_mounts(&factory.helper);
    Ok(Ready {
        started,
        reservation,
        scratch,
        dir,
        relay,
        inserted,
        mounted,
        image: None,
        shell: None,
        since: Instant::now(),
    })
}

async fn lease(shared: &Shared, disk: ImageDisk) -> Option<AttachedImage> {
    let store = shared.factory.store.clone();
    let leased = tokio::task::spawn_blocking(move || Some((store.lease(&disk).ok()??, disk)));
    let (lease, disk) = leased.await.ok()??;
    Some(AttachedImage { disk, lease })
}

/// Inserts and mounts what is known, and has its programs started once.
async fn set_up(shared: &Shared, ready: &mut Ready) -> Result<(), String> {
    let guest = &ready.started.guest;
    let image = ready.image.as_ref().map(|image| &image.disk);
    let disks =
        [Some((SCRATCH_SERIAL, ready.scratch.path())), image.map(|image| (IMAGE, image.path.as_path()))];
    let disks: Vec<(&str, &Path)> = disks.into_iter().flatten().collect();
    for (serial, path) in &disks {
        ready.started.machine.insert_disk(serial, path).await.map_err(|error| error.to_string())?;
    }
    let bytes = |serial: &str| {
        let path = disks.iter().find(|(other, _)| *other == serial).map(|(_, path)| path);
        path.and_then(|path| path.metadata().ok()).map_or(0, |about| about.len())
    };
    let steps = early(&shared.factory.helper, image, Scratch::FSTYPE);
    let missing = not_done(steps.clone(), &ready.mounted, bytes);
    guest.mount(&missing).await.map_err(|error| error.to_string())?;
    // The job's own clock, randomness, names and addresses come with the job; by then all of that has been done once, and
    // the interface is up.
    let mut configure = configuration(ready.started.machine.id()).map_err(|error| error.to_string())?;
    let bare = |nic: &Nic| Interface { mac: nic.mac.clone(), addresses: vec![], gateways: vec![], mtu: None };
    configure.interfaces.extend(ready.reservation.nic().map(bare));
    guest.configure(&configure).await.map_err(|error| error.to_string())?;
    rehearsal::of_helper(guest, rehearsal::SHELL).await?;
    if image.is_some() {
        ready.shell = rehearsal::of_image(guest).await?;
    }
    ready.inserted.extend(disks.iter().map(|(serial, _)| (*serial).to_owned()));
    ready.mounted = steps;
    Ok(())
}
