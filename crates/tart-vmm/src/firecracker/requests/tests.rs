use std::{sync::Arc, time::Duration};

use tart_net::{Nic, NicLink};

use super::*;
use crate::{DiskSpec, firecracker::version::Version};

fn spec() -> MachineSpec {
    let disk = |name: &str, read_only| DiskSpec {
        path: Some(format!("/d/{name}").into()),
        read_only,
        serial: name.into(),
    };
    MachineSpec {
        id: "job-1".into(),
        run_dir: "/run/m".into(),
        kernel: "/k/vmlinux".into(),
        initrd: "/k/initrd".into(),
        extra_kernel_args: Vec::new(),
        vcpus: 2,
        memory_bytes: 512 << 20,
        disks: vec![disk("helper", true), disk("scratch", false)],
        nic: Some(Nic {
            mac: "02:00:00:00:00:01".into(),
            link: NicLink::Device {
                name: "tap0".into(),
                namespace: Arc::new(std::fs::File::open("/proc/self/ns/net").unwrap().into()),
            },
        }),
        boot_limit: Duration::from_secs(1),
        later_disk: None,
        later_images: Vec::new(),
        identity: None,
        cgroup: None,
        origin: crate::Origin::Boot,
    }
}

fn shown(tuning: &FirecrackerTuning, version: &str) -> String {
    let features = Version::parse(version).unwrap().features();
    let requests = before_start(&spec(), "console=ttyS0", Some("tap0"), tuning, features).unwrap();
    let line = |request: &Request| format!("{} {} {}", request.method, request.path, request.body);
    requests.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_old_version_is_asked_for_what_it_knows() {
    insta::assert_snapshot!(shown(&FirecrackerTuning::default(), "1.7.0"), @r#"
    PUT /machine-config {"mem_size_mib":512,"smt":false,"vcpu_count":2}
    PUT /boot-source {"boot_args":"console=ttyS0","initrd_path":"/k/initrd","kernel_image_path":"/k/vmlinux"}
    PUT /drives/disk0 {"cache_type":"Unsafe","drive_id":"disk0","io_engine":"Sync","is_read_only":true,"is_root_device":false,"path_on_host":"/d/helper"}
    PUT /drives/disk1 {"cache_type":"Unsafe","drive_id":"disk1","io_engine":"Sync","is_read_only":false,"is_root_device":false,"path_on_host":"/d/scratch"}
    PUT /network-interfaces/nic {"guest_mac":"02:00:00:00:00:01","host_dev_name":"tap0","iface_id":"nic"}
    PUT /vsock {"guest_cid":3,"uds_path":"agent.vsock"}
    PUT /entropy {}
    "#);
}

#[test]
fn everything_that_can_be_tuned_is_said_to_a_version_that_knows_it() {
    let tuning = FirecrackerTuning {
        snapshot_memory: SnapshotMemory::File,
        huge_pages: HugePages::Transparent,
        cpu_template: Some("T2".into()),
        cpu_config: Some(json!({ "cpuid_modifiers": [] })),
        balloon: true,
        disk_bandwidth: Some(Bucket { size: 1000, refill_ms: 100 }),
        network_bandwidth: Some(Bucket { size: 2000, refill_ms: 1000 }),
    };
    let lines = shown(&tuning, "1.17.0");
    let interesting = ["/serial", "/machine", "/cpu", "disk1", "/network", "/balloon"];
    let lines: Vec<_> =
        lines.lines().filter(|line| interesting.iter().any(|word| line.contains(word))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    PUT /serial {"rate_limiter":{"refill_time":1000,"size":1048576}}
    PUT /machine-config {"cpu_template":"T2","huge_pages":"Transparent","mem_size_mib":512,"smt":false,"vcpu_count":2}
    PUT /cpu-config {"cpuid_modifiers":[]}
    PUT /drives/disk1 {"cache_type":"Unsafe","drive_id":"disk1","io_engine":"Sync","is_read_only":false,"is_root_device":false,"path_on_host":"/d/scratch","rate_limiter":{"bandwidth":{"refill_time":100,"size":1000}}}
    PUT /network-interfaces/nic {"guest_mac":"02:00:00:00:00:01","host_dev_name":"tap0","iface_id":"nic","rx_rate_limiter":{"bandwidth":{"refill_time":1000,"size":2000}},"tx_rate_limiter":{"bandwidth":{"refill_time":1000,"size":2000}}}
    PUT /balloon {"amount_mib":0,"deflate_on_oom":true,"free_page_reporting":true,"stats_polling_interval_s":0}
    "#);
    let tuning = FirecrackerTuning { balloon: true, ..FirecrackerTuning::default() };
    let older = shown(&tuning, "1.13.0");
    assert!(older.contains("PUT /balloon") && !older.contains("free_page_reporting"), "{older}");
}

#[test]
fn what_a_version_cannot_do_is_refused_before_it_is_asked() {
    let features = Version::parse("1.16.1").unwrap().features();
    let refused = |spec: &MachineSpec, huge_pages| {
        let tuning = FirecrackerTuning { huge_pages, ..FirecrackerTuning::default() };
        before_start(spec, "", None, &tuning, features).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refused(&spec(), HugePages::Transparent), @"machine `job-1` cannot be started: transparent huge pages need Firecracker 1.17");
    let odd = MachineSpec { memory_bytes: 513 << 20, ..spec() };
    insta::assert_snapshot!(refused(&odd, HugePages::TwoMib), @"machine `job-1` cannot be started: memory of huge pages is a multiple of 2 MiB");
    let tuning = FirecrackerTuning { huge_pages: HugePages::Transparent, ..FirecrackerTuning::default() };
    let newer = Version::parse("1.17.0").unwrap().features();
    let problem = before_start(&odd, "", None, &tuning, newer).unwrap_err().to_string();
    assert!(problem.contains("a multiple of 2 MiB"), "{problem}");
    let many = MachineSpec { vcpus: 33, ..spec() };
    insta::assert_snapshot!(refused(&many, HugePages::None), @"machine `job-1` cannot be started: Firecracker gives a guest at most 32 processors");
    let disks = vec![spec().disks[0].clone(); 14];
    insta::assert_snapshot!(refused(&MachineSpec { disks, ..spec() }, HugePages::None), @"machine `job-1` cannot be started: it has 14 disks, and Firecracker has interrupts for 13: use fewer services");
}

#[test]
fn all_virtio_devices_are_counted() {
    let tuning = FirecrackerTuning { balloon: true, ..FirecrackerTuning::default() };
    assert_eq!(devices(&spec(), &tuning), 6);
    assert_eq!(devices(&MachineSpec { nic: None, ..spec() }, &FirecrackerTuning::default()), 4);
}

fn listed(requests: &[Request]) -> String {
    let line = |request: &Request| format!("{} {} {}", request.method, request.path, request.body);
    requests.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_machine_is_saved_while_it_is_paused() {
    insta::assert_snapshot!(listed(&save()), @r#"
    PATCH /vm {"state":"Paused"}
    PUT /snapshot/create {"mem_file_path":"saved.memory","snapshot_path":"saved.state","snapshot_type":"Full"}
    "#);
}

#[test]
fn a_machine_that_goes_on_gets_its_images_before_it_runs() {
    let features = |version: &str| Version::parse(version).unwrap().features();
    let mut spec = spec();
    spec.disks.push(DiskSpec { path: None, read_only: true, serial: "service-0".into() });
    let saved = Saved { memory: Backend::File("/m".into()), state: "/s".into() };
    let shown = |version| listed(&restore(&spec, Some("tap0"), &saved, features(version)).unwrap());
    insta::assert_snapshot!(shown("1.16.1"), @r#"
    PUT /serial {"rate_limiter":{"refill_time":1000,"size":1048576}}
    PUT /snapshot/load {"mem_backend":{"backend_path":"/m","backend_type":"File"},"network_overrides":[{"host_dev_name":"tap0","iface_id":"nic"}],"resume_vm":false,"snapshot_path":"/s"}
    PATCH /drives/disk0 {"drive_id":"disk0","path_on_host":"/d/helper"}
    PATCH /drives/disk1 {"drive_id":"disk1","path_on_host":"/d/scratch"}
    PATCH /vm {"state":"Resumed"}
    "#);
    let old = shown("1.13.1");
    assert!(!shown("1.7.0").contains("network_overrides") && old.starts_with("PUT /snapshot/load"), "{old}");
    let saved = Saved { memory: Backend::Uffd("memory.sock".into()), ..saved };
    let served = listed(&restore(&spec, None, &saved, features("1.17.0")).unwrap());
    insta::assert_snapshot!(served.lines().nth(1).unwrap(), @r#"PUT /snapshot/load {"mem_backend":{"backend_path":"memory.sock","backend_type":"Uffd"},"resume_vm":false,"snapshot_path":"/s"}"#);
}
