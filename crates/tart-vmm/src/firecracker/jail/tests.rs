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

fn inmate<'a>(spec: &'a MachineSpec, cgroup: Option<&'a Path>, max_file: u64) -> Inmate<'a> {
    Inmate { id: &spec.id, dir: &spec.run_dir, identity: spec.identity.unwrap(), cgroup, max_file }
}

fn shown(plan: &JailPlan) -> String {
    let words: Vec<_> = plan.arguments.iter().map(|word| word.to_string_lossy()).collect();
    format!("{}\n{}", plan.root.display(), words.join(" "))
}

fn listed(files: &[Furnishing]) -> String {
    files.iter().map(|file| format!("{} = {:?}\n", file.name, file.source)).collect()
}

fn paths(inside: MachineSpec) -> Vec<Option<PathBuf>> {
    inside.disks.into_iter().map(|disk| disk.path).collect()
}

#[test]
fn a_jail_holds_what_the_machine_needs_under_names_of_its_own() {
    let spec = spec();
    let plan = plan(&jailer(), &inmate(&spec, Some(Path::new("tart/job-1")), 20 << 30)).unwrap();
    insta::assert_snapshot!(shown(&plan), @r#"
    /run/tart/job-1/firecracker-v1.16.1/job-1/root
    --id job-1 --exec-file /opt/firecracker-v1.16.1 --uid 60001 --gid 60002 --chroot-base-dir /run/tart/job-1 --cgroup-version 2 --parent-cgroup tart/job-1 --resource-limit fsize=21474836480
    "#);
    let (inside, files) = furnish(&spec, None);
    insta::assert_snapshot!(listed(&files), @r#"
    kernel = Shared("/assets/vmlinux")
    initrd = Shared("/assets/initrd")
    disk0 = Shared("/assets/helper")
    disk1 = Own("/run/tart/job-1/scratch")
    disk2 = Empty { writable: false }
    "#);
    assert_eq!((&*inside.kernel, &*inside.initrd), (Path::new("kernel"), Path::new("initrd")));
    assert_eq!(paths(inside), ["disk0", "disk1", "disk2"].map(|path| Some(path.into())));
}

#[test]
fn a_saved_machine_finds_its_memory_and_its_disks_again() {
    let spec = spec();
    let plan = plan(&jailer(), &inmate(&spec, None, 0)).unwrap();
    insta::assert_snapshot!(shown(&plan), @r#"
    /run/tart/job-1/firecracker-v1.16.1/job-1/root
    --id job-1 --exec-file /opt/firecracker-v1.16.1 --uid 60001 --gid 60002 --chroot-base-dir /run/tart/job-1 --resource-limit fsize=65536
    "#);
    let file = |name, path| Furnishing::shared(name, Path::new(path));
    let saved = vec![file(Name::Memory, "/r/snapshot.x/memory"), file(Name::State, "/r/snapshot.x/state")];
    let (inside, files) = furnish(&spec, Some(saved));
    insta::assert_snapshot!(listed(&files), @r#"
    snapshot.memory = Shared("/r/snapshot.x/memory")
    snapshot.state = Shared("/r/snapshot.x/state")
    disk0 = Shared("/assets/helper")
    disk1 = Own("/run/tart/job-1/scratch")
    disk2 = Empty { writable: false }
    "#);
    assert_eq!(paths(inside), [Some("disk0".into()), Some("disk1".into()), None]);
}

#[test]
fn nobody_is_jailed_as_root() {
    let spec = spec();
    for (uid, gid) in [(0, 1), (1, 0)] {
        let inmate = Inmate { identity: Identity { uid, gid }, ..inmate(&spec, None, 0) };
        assert!(plan(&jailer(), &inmate).unwrap_err().to_string().contains("is root"));
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
