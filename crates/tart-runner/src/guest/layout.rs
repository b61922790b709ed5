//! The file trees of a guest: which disks and mounts they are made of. Pure.
//!
//! Both trees are overlays whose upper layers are on the scratch disk, and both see the same builds and cache
//! directories. The job's temporary directory, where its secrets are, is in the guest's memory and on no disk of the
//! host.

use tart_job::dirs::JobDirs;
use tart_proto::message::{Disk, MountStep, Root};

/// The disks in their order: what the guest knows them by.
pub(super) const DISKS: [&str; 3] = ["helper", "image", "scratch"];

/// Where the scratch disk is mounted, for the agent only.
const SCRATCH: &str = "/run/tart/scratch";

/// Where the temporary directory of the job is, for the agent.
const TEMPORARY: &str = "/run/tart/temporary";

/// Everyone may write: the helper's tools run as root, the job perhaps as someone else.
const SHARED_MODE: u32 = 0o777;

/// Kernel names of the disks' file systems.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filesystems<'a> {
    pub(super) helper: &'a str,
    pub(super) image: &'a str,
    pub(super) scratch: &'a str,
}

/// The mounts of a job's guest. `cache_root` is the whole cache directory.
pub(super) fn mounts(dirs: &JobDirs, cache_root: &str, filesystems: Filesystems<'_>) -> Vec<MountStep> {
    let mut steps = vec![
        disk(0, &read_only("helper"), filesystems.helper, true),
        disk(1, &read_only("image"), filesystems.image, true),
        disk(2, SCRATCH, filesystems.scratch, false),
        MountStep::Tmpfs { target: TEMPORARY.to_owned(), mode: SHARED_MODE, size_bytes: 0 },
        overlay(Root::Helper, "helper"),
        overlay(Root::Job, "image"),
    ];
    let mut shared = vec![("builds", dirs.builds_dir.as_str()), ("cache", cache_root)];
    shared.dedup_by_key(|(_, path)| *path);
    // What is inside another comes later, or it would be hidden.
    shared.sort_by_key(|(_, path)| path.len());
    for (name, _) in &shared {
        steps.push(MountStep::Directory { path: format!("{SCRATCH}/{name}"), mode: SHARED_MODE });
    }
    for (name, path) in shared {
        steps.extend(both(&format!("{SCRATCH}/{name}"), path));
    }
    steps.extend(both(TEMPORARY, &dirs.temp_dir));
    steps.extend([Root::Helper, Root::Job].map(|root| MountStep::System { root }));
    steps
}

fn read_only(name: &str) -> String {
    format!("/run/tart/disk/{name}")
}

fn disk(position: u8, target: &str, fstype: &str, read_only: bool) -> MountStep {
    let serial = DISKS.get(usize::from(position)).copied().unwrap_or_default().to_owned();
    MountStep::Disk {
        disk: Disk { serial, position },
        target: target.to_owned(),
        fstype: fstype.to_owned(),
        read_only,
        options: String::new(),
    }
}

fn overlay(root: Root, name: &str) -> MountStep {
    MountStep::Overlay {
        lower: vec![read_only(name)],
        upper: format!("{SCRATCH}/tree/{name}/upper"),
        work: format!("{SCRATCH}/tree/{name}/work"),
        target: root.mount_point().to_owned(),
    }
}

fn both(source: &str, path: &str) -> [MountStep; 2] {
    [Root::Helper, Root::Job].map(|root| MountStep::Bind {
        source: source.to_owned(),
        target: format!("{}{path}", root.mount_point()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(builds_dir: &str) -> JobDirs {
        JobDirs {
            builds_dir: builds_dir.to_owned(),
            project_slug: "g/p".to_owned(),
            build_dir: format!("{builds_dir}/g/p"),
            temp_dir: format!("{builds_dir}/g/p.tmp"),
            cache_dir: "/cache/g/p".to_owned(),
        }
    }

    /// One line for each step that has a target.
    fn shown(steps: &[MountStep]) -> String {
        let line = |step: &MountStep| match step {
            MountStep::Disk { disk, target, read_only, .. } => {
                format!("disk {} {target}{}", disk.serial, if *read_only { " ro" } else { "" })
            }
            MountStep::Overlay { lower, target, .. } => format!("overlay {} {target}", lower.join(":")),
            MountStep::Bind { source, target } => format!("bind {source} {target}"),
            MountStep::Tmpfs { target, .. } => format!("tmpfs {target}"),
            MountStep::Directory { path, .. } => format!("directory {path}"),
            MountStep::System { root } => format!("system {root:?}"),
        };
        steps.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    const FILESYSTEMS: Filesystems<'_> =
        Filesystems { helper: "squashfs", image: "squashfs", scratch: "ext4" };

    #[test]
    fn both_trees_share_builds_cache_and_temporary_files() {
        insta::assert_snapshot!(shown(&mounts(&dirs("/builds"), "/cache", FILESYSTEMS)), @"
        disk helper /run/tart/disk/helper ro
        disk image /run/tart/disk/image ro
        disk scratch /run/tart/scratch
        tmpfs /run/tart/temporary
        overlay /run/tart/disk/helper /run/tart/helper
        overlay /run/tart/disk/image /run/tart/job
        directory /run/tart/scratch/cache
        directory /run/tart/scratch/builds
        bind /run/tart/scratch/cache /run/tart/helper/cache
        bind /run/tart/scratch/cache /run/tart/job/cache
        bind /run/tart/scratch/builds /run/tart/helper/builds
        bind /run/tart/scratch/builds /run/tart/job/builds
        bind /run/tart/temporary /run/tart/helper/builds/g/p.tmp
        bind /run/tart/temporary /run/tart/job/builds/g/p.tmp
        system Helper
        system Job
        ");
    }

    #[test]
    fn a_cache_inside_the_builds_directory_is_not_hidden_by_it() {
        let steps = shown(&mounts(&dirs("/ci"), "/ci/cache", FILESYSTEMS));
        let at = |line: &str| steps.lines().position(|l| l == line).unwrap();
        assert!(
            at("bind /run/tart/scratch/builds /run/tart/job/ci")
                < at("bind /run/tart/scratch/cache /run/tart/job/ci/cache")
        );
    }

    #[test]
    fn one_directory_for_both_is_bound_once() {
        let steps = shown(&mounts(&dirs("/ci"), "/ci", FILESYSTEMS));
        assert_eq!(steps.lines().filter(|line| line.ends_with("/run/tart/job/ci")).count(), 1, "{steps}");
    }
}
