//! The file trees of a guest: which disks and mounts they are made of. Pure.
//!
//! All trees are overlays whose upper layers are on the scratch disk, and all see the same builds and cache
//! directories. The job's temporary directory, where its secrets are, is in the guest's memory, on no disk of the
//! host, and in no service.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tart_assets::ImageDisk;
use tart_job::dirs::JobDirs;
use tart_proto::message::{Disk, MountStep, Root};
use tart_vmm::DiskSpec;

use super::rehearsal;

/// Serials of the disks that every guest has.
const HELPER: &str = "helper";
pub(super) const IMAGE: &str = "image";
pub(super) const SCRATCH_SERIAL: &str = "scratch";

/// The file system of the helper disk.
const HELPER_FSTYPE: &str = "squashfs";

/// Where the scratch disk is mounted, for the agent only.
const SCRATCH: &str = "/run/tart/scratch";

/// Where the temporary directory of the job is, for the agent.
const TEMPORARY: &str = "/run/tart/temporary";

/// Everyone may write: the helper's tools run as root, the job perhaps as someone else.
const SHARED_MODE: u32 = 0o777;

/// Where container engines keep their images: overlays of theirs cannot lie on ours.
const ENGINES: [&str; 2] = ["/var/lib/docker", "/var/lib/containers"];

/// Most volumes of an image that are made.
const MAX_VOLUMES: usize = 32;

/// Disks of a guest without services.
const OWN_DISKS: usize = 3;

/// The position of the last of them.
const SCRATCH_POSITION: u8 = 2;

/// Disks of services for which a template has room; a job with more boots a guest of its own.
const SERVICE_SLOTS: usize = 4;

fn service_serial(number: usize) -> String {
    format!("service-{number}")
}

/// The disks of a template. Only the helper's has an image: the others get theirs with the job.
pub(crate) fn template_disks(helper: &Path) -> Vec<DiskSpec> {
    let services = (0..SERVICE_SLOTS).map(service_serial);
    let serials = [HELPER, IMAGE, SCRATCH_SERIAL].map(str::to_owned).into_iter().chain(services);
    let disk = |serial: String| DiskSpec {
        path: (serial == HELPER).then(|| helper.to_owned()),
        read_only: serial != SCRATCH_SERIAL,
        serial,
    };
    serials.map(disk).collect()
}

/// What is mounted in a template: the disk of the helper tree.
pub(super) fn template_mounts(helper: &Path) -> Vec<MountStep> {
    let disk =
        PlannedDisk { path: helper.to_owned(), fstype: HELPER_FSTYPE.to_owned(), serial: HELPER.to_owned() };
    vec![mount(0, &disk)]
}

/// Where the helper tree's disk is a tree while a template rehearses. The helper tree of a job covers it.
pub(super) fn rehearsal_mount() -> MountStep {
    MountStep::Bind {
        source: format!("/run/tart/disk/{HELPER}"),
        target: Root::Helper.mount_point().into_owned(),
    }
}

/// All that is done in a template, for the name of what depends on it.
pub(crate) fn template_facts(helper: &Path) -> String {
    format!("mounts {:?} {:?}\nrehearsal {}\n", template_mounts(helper), rehearsal_mount(), rehearsal::TOOLS)
}

/// The disks of a guest that goes on from a template: those of the job, then the rest of the template's. `None` if the
/// template has too few.
pub(super) fn fill(template: Vec<DiskSpec>, disks: Vec<DiskSpec>) -> Option<Vec<DiskSpec>> {
    let rest = template.into_iter().skip(disks.len()).collect::<Vec<_>>();
    (disks.len() + rest.len() == OWN_DISKS + SERVICE_SLOTS).then(|| [disks, rest].concat())
}

/// The mounts that a guest lacks which went on from a template, and has made those in `done` there and since. `bytes`
/// tells how large disks are: the guest knows them as empty ones.
pub(super) fn not_done(
    steps: Vec<MountStep>,
    done: &[MountStep],
    bytes: impl Fn(&str) -> u64,
) -> Vec<MountStep> {
    let more = steps.into_iter().filter(|step| !done.contains(step));
    let sized = |step| match step {
        MountStep::Disk { disk, target, fstype, read_only, options } => {
            let disk = Disk { bytes: bytes(&disk.serial), ..disk };
            MountStep::Disk { disk, target, fstype, read_only, options }
        }
        other => other,
    };
    more.map(sized).collect()
}

/// The mounts that depend on no more of a job than its image, which come first: a guest that waits for a job has them.
/// Without an image they are those of the helper tree.
pub(super) fn early(helper: &Path, image: Option<&ImageDisk>, scratch_fstype: &str) -> Vec<MountStep> {
    let disk = |path: &Path, fstype: &str, serial: &str| PlannedDisk {
        path: path.to_owned(),
        fstype: fstype.to_owned(),
        serial: serial.to_owned(),
    };
    let helper = disk(helper, HELPER_FSTYPE, HELPER);
    let scratch = disk(Path::new(SCRATCH), scratch_fstype, SCRATCH_SERIAL);
    let trees = [
        Some((Root::Helper, helper)),
        image.map(|image| (Root::Job, disk(&image.path, image.fstype, IMAGE))),
    ];
    let trees: Vec<_> = trees.into_iter().flatten().collect();
    let mut steps: Vec<_> = (0..).zip(&trees).map(|(position, (_, disk))| mount(position, disk)).collect();
    steps.push(mount(SCRATCH_POSITION, &scratch));
    steps.push(MountStep::Tmpfs { target: TEMPORARY.to_owned(), mode: SHARED_MODE, size_bytes: 0 });
    for (root, disk) in &trees {
        steps.push(overlay(*root, Some(disk.target())));
    }
    if let Some(image) = image {
        steps.extend(own_volumes(Root::Job, &image.config.volumes));
    }
    steps.extend(trees.iter().map(|(root, _)| MountStep::System { root: *root }));
    steps
}

/// What a guest's trees are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    /// Disk of the helper tree.
    pub(super) helper: &'a Path,
    /// The job's image.
    pub(super) image: &'a ImageDisk,
    /// Images of the services.
    pub(super) services: &'a [ImageDisk],
    /// The disk that everything is written to.
    pub(super) scratch: &'a Path,
    /// Kernel name of its file system.
    pub(super) scratch_fstype: &'a str,
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedDisk {
    pub(super) path: PathBuf,
    pub(super) fstype: String,
    pub(super) serial: String,
}

impl PlannedDisk {
    /// Everything but the scratch disk is shared with other guests.
    pub(super) fn is_read_only(&self) -> bool {
        self.serial != SCRATCH_SERIAL
    }

    /// The size of its image; 0 if that cannot be told.
    pub(super) fn bytes(&self) -> u64 {
        self.path.metadata().map_or(0, |about| about.len())
    }

    fn target(&self) -> String {
        if self.is_read_only() { format!("/run/tart/disk/{}", self.serial) } else { SCRATCH.to_owned() }
    }
}

impl Layout<'_> {
    /// The disks in their order. Trees of the same image share one.
    pub(super) fn disks(&self) -> Vec<PlannedDisk> {
        let disk = |path: &Path, fstype: &str, serial: String| PlannedDisk {
            path: path.to_owned(),
            fstype: fstype.to_owned(),
            serial,
        };
        let mut disks = vec![
            disk(self.helper, HELPER_FSTYPE, HELPER.to_owned()),
            disk(&self.image.path, self.image.fstype, IMAGE.to_owned()),
            disk(self.scratch, self.scratch_fstype, SCRATCH_SERIAL.to_owned()),
        ];
        for service in self.services {
            if !disks.iter().any(|disk| disk.path == service.path) {
                let serial = service_serial(disks.len() - OWN_DISKS);
                disks.push(disk(&service.path, service.fstype, serial));
            }
        }
        disks
    }

    /// The mounts of a job's guest. `cache_root` is the whole cache directory, `volumes` are what else the job and its
    /// services share.
    pub(super) fn mounts(&self, dirs: &JobDirs, cache_root: &str, volumes: &[String]) -> Vec<MountStep> {
        let disks = self.disks();
        let mut steps = early(self.helper, Some(self.image), self.scratch_fstype);
        steps.extend((0..).zip(&disks).skip(OWN_DISKS).map(|(position, disk)| mount(position, disk)));
        let lower = |path: &Path| disks.iter().find(|disk| disk.path == path).map(PlannedDisk::target);
        let services = self.services.iter().zip(0..).map(|(image, number)| (Root::Service(number), image));
        let services: Vec<_> = services.collect();
        steps.extend(services.iter().map(|(root, image)| overlay(*root, lower(&image.path))));
        for (root, image) in &services {
            steps.extend(own_volumes(*root, &image.config.volumes));
        }
        let mut shared =
            vec![("builds".to_owned(), dirs.builds_dir.as_str()), ("cache".to_owned(), cache_root)];
        let volumes = volumes.iter().map(|path| path.trim_end_matches('/')).filter(|path| is_volume(path));
        shared.extend(volumes.enumerate().map(|(number, path)| (format!("shared-{number}"), path)));
        let mut seen = BTreeSet::new();
        shared.retain(|(_, path)| seen.insert(*path));
        // What is inside another comes later, or it would be hidden.
        shared.sort_by_key(|(_, path)| path.len());
        for (name, _) in &shared {
            steps.push(MountStep::Directory { path: format!("{SCRATCH}/{name}"), mode: SHARED_MODE });
        }
        let services = services.iter().map(|(root, _)| *root);
        let roots: Vec<_> = [Root::Helper, Root::Job].into_iter().chain(services.clone()).collect();
        for (name, path) in shared {
            steps.extend(roots.iter().map(|root| bind(*root, &format!("{SCRATCH}/{name}"), path)));
        }
        steps.extend([Root::Helper, Root::Job].map(|root| bind(root, TEMPORARY, &dirs.temp_dir)));
        steps.extend(services.map(|root| MountStep::System { root }));
        steps
    }
}

fn mount(position: u8, disk: &PlannedDisk) -> MountStep {
    MountStep::Disk {
        disk: Disk { serial: disk.serial.clone(), position, bytes: 0 },
        target: disk.target(),
        fstype: disk.fstype.clone(),
        read_only: disk.is_read_only(),
        options: String::new(),
    }
}

fn overlay(root: Root, lower: Option<String>) -> MountStep {
    let place = format!("{SCRATCH}/tree/{}", name_of(root));
    MountStep::Overlay {
        lower: lower.into_iter().collect(),
        upper: format!("{place}/upper"),
        work: format!("{place}/work"),
        target: root.mount_point().into_owned(),
    }
}

/// The directories of a tree that are no part of its overlay.
fn own_volumes(root: Root, volumes: &[String]) -> Vec<MountStep> {
    let volumes = volumes.iter().map(String::as_str).filter(|path| is_volume(path)).take(MAX_VOLUMES);
    let mut paths: Vec<_> = ENGINES.into_iter().chain(volumes).collect();
    paths.sort_unstable();
    paths.dedup();
    let volume = |(number, path): (usize, &str)| MountStep::Volume {
        source: format!("{SCRATCH}/volume/{}/{number}", name_of(root)),
        target: format!("{}{path}", root.mount_point()),
    };
    paths.into_iter().enumerate().map(volume).collect()
}

/// An image may not cover what the agent mounts.
fn is_volume(path: &str) -> bool {
    let kernels = ["/dev", "/proc", "/sys", "/etc"];
    let plain = path.starts_with('/') && !path.split('/').any(|part| matches!(part, "." | ".."));
    let within =
        |top: &&str| path.strip_prefix(*top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    plain && !path.trim_matches('/').is_empty() && !kernels.iter().any(within)
}

fn name_of(root: Root) -> String {
    match root {
        Root::Agent => "agent".to_owned(),
        Root::Helper => HELPER.to_owned(),
        Root::Job => IMAGE.to_owned(),
        Root::Service(number) => format!("service-{number}"),
    }
}

fn bind(root: Root, source: &str, path: &str) -> MountStep {
    MountStep::Bind { source: source.to_owned(), target: format!("{}{path}", root.mount_point()) }
}

#[cfg(test)]
mod tests;
