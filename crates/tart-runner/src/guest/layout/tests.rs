use tart_assets::ImageConfig;

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

fn image(path: &str, volumes: &[&str]) -> ImageDisk {
    let volumes = volumes.iter().map(|path| (*path).to_owned()).collect();
    ImageDisk {
        path: path.into(),
        fstype: "squashfs",
        digest: String::new(),
        config: ImageConfig { volumes, ..ImageConfig::default() },
    }
}

fn steps(builds_dir: &str, cache_root: &str, services: &[ImageDisk]) -> String {
    let image = image("/objects/a", &[]);
    let layout = Layout {
        helper: Path::new("/objects/h"),
        image: &image,
        services,
        scratch: Path::new("/run/s"),
        scratch_fstype: "ext4",
    };
    let volumes = ["/certs/client/", "/cache", "relative", "/sys/x"].map(str::to_owned);
    let volumes = if services.is_empty() { &[] } else { &volumes[..] };
    shown(&layout.mounts(&dirs(builds_dir), cache_root, volumes))
}

/// One line for each step.
fn shown(steps: &[MountStep]) -> String {
    let line = |step: &MountStep| match step {
        MountStep::Disk { disk, target, read_only, .. } => {
            format!("disk {} {} {target}{}", disk.position, disk.serial, if *read_only { " ro" } else { "" })
        }
        MountStep::Overlay { lower, target, .. } => format!("overlay {} {target}", lower.join(":")),
        MountStep::Bind { source, target } => format!("bind {source} {target}"),
        MountStep::Volume { source, target } => format!("volume {source} {target}"),
        MountStep::Tmpfs { target, .. } => format!("tmpfs {target}"),
        MountStep::Directory { path, .. } => format!("directory {path}"),
        MountStep::System { root } => format!("system {root:?}"),
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn both_trees_share_builds_cache_and_temporary_files() {
    insta::assert_snapshot!(steps("/builds", "/cache", &[]), @"
    disk 0 helper /run/tart/disk/helper ro
    disk 1 image /run/tart/disk/image ro
    disk 2 scratch /run/tart/scratch
    tmpfs /run/tart/temporary
    overlay /run/tart/disk/helper /run/tart/helper
    overlay /run/tart/disk/image /run/tart/job
    volume /run/tart/scratch/volume/image/0 /run/tart/job/var/lib/containers
    volume /run/tart/scratch/volume/image/1 /run/tart/job/var/lib/docker
    system Helper
    system Job
    directory /run/tart/scratch/cache
    directory /run/tart/scratch/builds
    bind /run/tart/scratch/cache /run/tart/helper/cache
    bind /run/tart/scratch/cache /run/tart/job/cache
    bind /run/tart/scratch/builds /run/tart/helper/builds
    bind /run/tart/scratch/builds /run/tart/job/builds
    bind /run/tart/temporary /run/tart/helper/builds/g/p.tmp
    bind /run/tart/temporary /run/tart/job/builds/g/p.tmp
    ");
}

#[test]
fn services_have_trees_of_their_own_without_the_jobs_secrets() {
    let services = [
        image("/objects/b", &["/data", "/proc/x", "../y", "/"]),
        image("/objects/a", &[]),
        image("/objects/b", &[]),
    ];
    let steps = steps("/builds", "/cache", &services);
    let of_services: Vec<_> = steps.lines().filter(|line| line.contains("ervice")).collect();
    insta::assert_snapshot!(of_services.join("\n"), @"
    disk 3 service-0 /run/tart/disk/service-0 ro
    overlay /run/tart/disk/service-0 /run/tart/services/0
    overlay /run/tart/disk/image /run/tart/services/1
    overlay /run/tart/disk/service-0 /run/tart/services/2
    volume /run/tart/scratch/volume/service-0/0 /run/tart/services/0/data
    volume /run/tart/scratch/volume/service-0/1 /run/tart/services/0/var/lib/containers
    volume /run/tart/scratch/volume/service-0/2 /run/tart/services/0/var/lib/docker
    volume /run/tart/scratch/volume/service-1/0 /run/tart/services/1/var/lib/containers
    volume /run/tart/scratch/volume/service-1/1 /run/tart/services/1/var/lib/docker
    volume /run/tart/scratch/volume/service-2/0 /run/tart/services/2/var/lib/containers
    volume /run/tart/scratch/volume/service-2/1 /run/tart/services/2/var/lib/docker
    bind /run/tart/scratch/cache /run/tart/services/0/cache
    bind /run/tart/scratch/cache /run/tart/services/1/cache
    bind /run/tart/scratch/cache /run/tart/services/2/cache
    bind /run/tart/scratch/builds /run/tart/services/0/builds
    bind /run/tart/scratch/builds /run/tart/services/1/builds
    bind /run/tart/scratch/builds /run/tart/services/2/builds
    bind /run/tart/scratch/shared-0 /run/tart/services/0/certs/client
    bind /run/tart/scratch/shared-0 /run/tart/services/1/certs/client
    bind /run/tart/scratch/shared-0 /run/tart/services/2/certs/client
    system Service(0)
    system Service(1)
    system Service(2)
    ");
}

#[test]
fn a_cache_inside_the_builds_directory_is_not_hidden_by_it() {
    let steps = steps("/ci", "/ci/cache", &[]);
    let at = |line: &str| steps.lines().position(|l| l == line).unwrap();
    assert!(
        at("bind /run/tart/scratch/builds /run/tart/job/ci")
            < at("bind /run/tart/scratch/cache /run/tart/job/ci/cache")
    );
}

#[test]
fn one_directory_for_both_is_bound_once() {
    let steps = steps("/ci", "/ci", &[]);
    assert_eq!(steps.lines().filter(|line| line.ends_with("/run/tart/job/ci")).count(), 1, "{steps}");
}

#[test]
fn a_guest_that_waits_has_made_the_first_mounts_of_its_job() {
    let (helper, image) = (Path::new("/objects/h"), image("/objects/a", &["/data"]));
    let layout =
        Layout { helper, image: &image, services: &[], scratch: Path::new("/run/s"), scratch_fstype: "ext4" };
    let all = layout.mounts(&dirs("/builds"), "/cache", &[]);
    let with_image = early(helper, Some(&image), "ext4");
    assert_eq!(all[..with_image.len()], with_image);
    let without = early(helper, None, "ext4");
    assert!(without.iter().all(|step| all.contains(step)), "{}", shown(&without));
    assert!(!shown(&without).contains("image") && !shown(&without).contains("Job"), "{}", shown(&without));

    let sized = |serial: &str| if serial == IMAGE { 4096 } else { 0 };
    let left = not_done(all.clone(), &without, sized);
    assert!(matches!(&left[0], MountStep::Disk { disk, .. } if disk.serial == IMAGE && disk.bytes == 4096));
    insta::assert_snapshot!(shown(&not_done(all, &with_image, sized)), @"
    directory /run/tart/scratch/cache
    directory /run/tart/scratch/builds
    bind /run/tart/scratch/cache /run/tart/helper/cache
    bind /run/tart/scratch/cache /run/tart/job/cache
    bind /run/tart/scratch/builds /run/tart/helper/builds
    bind /run/tart/scratch/builds /run/tart/job/builds
    bind /run/tart/temporary /run/tart/helper/builds/g/p.tmp
    bind /run/tart/temporary /run/tart/job/builds/g/p.tmp
    ");
}
