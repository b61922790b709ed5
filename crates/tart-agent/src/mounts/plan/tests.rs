use tart_proto::message::{Disk, FailureKind};

use super::*;

fn plan(step: &MountStep) -> Result<Vec<Action>, Failure> {
    actions(step, &Trees::guest(), Path::new("/run/tart/etc"), Some("/dev/vdb"), false)
}

fn only_mount(step: &MountStep) -> MountPlan {
    let mut mounts = plan(step).unwrap().into_iter().filter_map(|action| match action {
        Action::Mount(mount) => Some(mount),
        _ => None,
    });
    let mount = mounts.next().unwrap();
    assert!(mounts.next().is_none());
    mount
}

fn disk(fstype: &str, read_only: bool, options: &str) -> MountStep {
    MountStep::Disk {
        disk: Disk { serial: "x".into(), position: 0, bytes: 0 },
        target: "/run/tart/x".into(),
        fstype: fstype.into(),
        read_only,
        options: options.into(),
    }
}

#[test]
fn a_scratch_disk_writes_no_more_than_it_must() {
    let mount = only_mount(&disk("ext4", false, "data=writeback"));
    assert_eq!((mount.source.as_str(), mount.flags), ("/dev/vdb", MountFlags::NOATIME));
    assert_eq!(mount.data, "data=writeback,noinit_itable");
    assert_eq!(only_mount(&disk("ext4", false, "init_itable=0")).data, "init_itable=0");
    assert_eq!(only_mount(&disk("ext4", false, "")).data, "noinit_itable");
}

#[test]
fn a_read_only_disk_is_mounted_so_with_its_own_options() {
    let mount = only_mount(&disk("squashfs", true, ""));
    assert_eq!((mount.flags, mount.data.as_str()), (MountFlags::RDONLY, ""));
}

#[test]
fn separators_in_the_paths_of_an_overlay_are_escaped() {
    let mount = only_mount(&MountStep::Overlay {
        lower: vec!["/l,1".into(), "/l:2".into()],
        upper: "/u\\".into(),
        work: "/w".into(),
        target: "/t".into(),
    });
    assert_eq!(mount.data, "lowerdir=/l\\,1:/l\\:2,upperdir=/u\\\\,workdir=/w");
}

#[test]
fn a_tmpfs_is_limited_only_if_asked() {
    let tmpfs = |size_bytes| MountStep::Tmpfs { target: "/t".into(), mode: 0o1777, size_bytes };
    assert_eq!(only_mount(&tmpfs(0)).data, "mode=1777");
    assert_eq!(only_mount(&tmpfs(4096)).data, "mode=1777,size=4096");
}

#[test]
fn what_the_kernel_could_not_take_is_refused() {
    let overlay = |lower: Vec<String>| MountStep::Overlay {
        lower,
        upper: "/u".into(),
        work: "/w".into(),
        target: "/t".into(),
    };
    for step in [
        overlay(vec![]),
        overlay(vec!["/layer".repeat(1000)]),
        overlay(vec!["relative".into()]),
        MountStep::System { root: Root::Agent },
        MountStep::Directory { path: "x".into(), mode: 0 },
    ] {
        assert_eq!(plan(&step).unwrap_err().kind, FailureKind::Invalid, "{step:?}");
    }
}

#[test]
fn only_a_read_only_tree_gets_a_new_run() {
    let has_run = |read_only| {
        let step = MountStep::System { root: Root::Helper };
        let actions = actions(&step, &Trees::guest(), Path::new("/e"), None, read_only).unwrap();
        actions.iter().any(|a| matches!(a, Action::Mount(m) if m.target == "/run/tart/helper/run"))
    };
    assert!(has_run(true));
    assert!(!has_run(false));
}

#[test]
fn devices_come_after_the_dev_they_are_in_and_before_nothing_that_hides_them() {
    let actions = plan(&MountStep::System { root: Root::Job }).unwrap();
    let place = |wanted: &str| {
        actions.iter().position(|action| match action {
            Action::Mount(mount) => mount.target == wanted,
            Action::Node { path, .. } | Action::Link { path, .. } => path == wanted,
            _ => false,
        })
    };
    let order =
        ["/run/tart/job/dev", "/run/tart/job/dev/null", "/run/tart/job/dev/ptmx", "/run/tart/job/dev/pts"];
    let places: Vec<usize> = order.iter().map(|path| place(path).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
}
