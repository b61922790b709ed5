use std::time::Duration;

use super::*;
use crate::DiskSpec;

fn spec() -> MachineSpec {
    let disk = |path: Option<&str>, read_only, serial: &str| DiskSpec {
        path: path.map(PathBuf::from),
        read_only,
        serial: serial.into(),
    };
    MachineSpec {
        id: "job-1".into(),
        run_dir: "/run/tart/job-1".into(),
        kernel: "/assets/vmlinux".into(),
        initrd: "/assets/initrd".into(),
        extra_kernel_args: Vec::new(),
        vcpus: 1,
        memory_bytes: 512 << 20,
        disks: vec![
            disk(Some("/assets/helper"), true, "helper"),
            disk(Some("/run/tart/job-1/scratch"), false, "scratch"),
            disk(None, true, "service-0"),
        ],
        nic: None,
        boot_limit: Duration::from_secs(1),
        later_disk: None,
        later_images: Vec::new(),
        identity: Some(Identity { uid: 60_001, gid: 60_002 }),
        cgroup: None,
        origin: crate::Origin::Boot,
    }
}

fn jailer() -> Jailer {
    Jailer::new("/opt/jailer".into(), "/opt/firecracker-v1.16.1".into()).unwrap()
}

fn shown(plan: &JailPlan) -> String {
    let words: Vec<_> = plan.arguments.iter().map(|word| word.to_string_lossy()).collect();
    let files = plan.files.iter().map(|file| format!("{} = {:?}\n", file.name, file.source));
    format!("{}\n{}\n{}", plan.root.display(), words.join(" "), files.collect::<String>())
}

fn paths(plan: JailPlan) -> Vec<Option<PathBuf>> {
    plan.inside.disks.into_iter().map(|disk| disk.path).collect()
}

#[test]
fn a_jail_holds_what_the_machine_needs_under_names_of_its_own() {
    let plan = plan(&jailer(), &spec(), Some(Path::new("tart/job-1")), None, 20 << 30).unwrap();
    insta::assert_snapshot!(shown(&plan), @r#"
    /run/tart/job-1/firecracker-v1.16.1/job-1/root
    --id job-1 --exec-file /opt/firecracker-v1.16.1 --uid 60001 --gid 60002 --chroot-base-dir /run/tart/job-1 --cgroup-version 2 --parent-cgroup tart/job-1 --resource-limit fsize=21474836480
    kernel = Shared("/assets/vmlinux")
    initrd = Shared("/assets/initrd")
    disk0 = Shared("/assets/helper")
    disk1 = Own("/run/tart/job-1/scratch")
    disk2 = Empty { writable: false }
    "#);
    assert_eq!((&*plan.inside.kernel, &*plan.inside.initrd), (Path::new("kernel"), Path::new("initrd")));
    assert_eq!(paths(plan), ["disk0", "disk1", "disk2"].map(|path| Some(path.into())));
}

#[test]
fn a_saved_machine_finds_its_memory_and_its_disks_again() {
    let file = |name, path| Furnishing::shared(name, Path::new(path));
    let saved = Some(vec![file(MEMORY, "/r/snapshot.x/memory"), file(STATE, "/r/snapshot.x/state")]);
    let plan = plan(&jailer(), &spec(), None, saved, 0).unwrap();
    insta::assert_snapshot!(shown(&plan), @r#"
    /run/tart/job-1/firecracker-v1.16.1/job-1/root
    --id job-1 --exec-file /opt/firecracker-v1.16.1 --uid 60001 --gid 60002 --chroot-base-dir /run/tart/job-1 --resource-limit fsize=65536
    snapshot.memory = Shared("/r/snapshot.x/memory")
    snapshot.state = Shared("/r/snapshot.x/state")
    disk0 = Shared("/assets/helper")
    disk1 = Own("/run/tart/job-1/scratch")
    disk2 = Empty { writable: false }
    "#);
    assert_eq!(paths(plan), [Some("disk0".into()), Some("disk1".into()), None]);
}

#[test]
fn nobody_is_jailed_as_root_or_as_nobody_in_particular() {
    let refused = |identity| {
        plan(&jailer(), &MachineSpec { identity, ..spec() }, None, None, 0).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refused(None), @r#"virtual machine `job-1` cannot be jailed: it has no user of its own; or set `jailer = "none"`"#);
    for (uid, gid) in [(0, 1), (1, 0)] {
        assert!(refused(Some(Identity { uid, gid })).contains("is root"));
    }
    insta::assert_snapshot!(Jailer::new("/opt/jailer".into(), "/opt/fc".into()).unwrap_err(), @r#"cannot use `/opt/fc`: the jailer runs only programs with `firecracker` in their names: rename it, or set `jailer = "none"`"#);
}

#[test]
fn a_control_group_is_named_from_where_they_are_mounted() {
    let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                  cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
    let below = |path: &str| below_mount(mounts, Path::new(path));
    assert_eq!(below("/sys/fs/cgroup/tart/job-1"), Some("tart/job-1".into()));
    for other in ["/sys/fs/cgroup", "/tmp/group", "relative"] {
        assert_eq!(below(other), None, "{other}");
    }
    assert_eq!(below_mount("", Path::new("/sys/fs/cgroup/tart")), None);
}
