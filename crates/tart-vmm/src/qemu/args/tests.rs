use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use tart_net::{Nic, NicLink};

use super::*;

fn spec() -> MachineSpec {
    let disk = |name: &str, read_only| DiskSpec {
        path: Some(format!("/var/lib/tart/{name}, with comma").into()),
        read_only,
        serial: name.into(),
    };
    MachineSpec {
        id: "job-42".into(),
        run_dir: "/run/tart/job-42".into(),
        kernel: "/assets/bzImage".into(),
        initrd: "/assets/initrd".into(),
        extra_kernel_args: vec![],
        vcpus: 2,
        memory_bytes: (1 << 30) + 1,
        disks: vec![disk("helper", true), disk("scratch", false)],
        nic: None,
        boot_limit: Duration::from_secs(120),
        later_disk: None,
        later_images: Vec::new(),
        identity: None,
        cgroup: None,
        origin: crate::Origin::Boot,
    }
}

const FDS: Inherited = Inherited { qmp: 11, console: 12, agent: 13, nic: Some(14), memory: None };

fn shown(spec: &MachineSpec, acceleration: Acceleration) -> String {
    let args = arguments(spec, acceleration, "console=ttyS0 quiet", FDS).unwrap();
    let mut text = String::new();
    for arg in args {
        let arg = arg.into_string().unwrap();
        text.push_str(if arg.starts_with('-') && !text.is_empty() { "\n" } else { " " });
        text.push_str(&arg);
    }
    text
}

#[test]
fn an_emulated_machine_has_what_its_specification_says() {
    insta::assert_snapshot!(shown(&spec(), Acceleration::Tcg), @r#"
     -nodefaults
    -no-user-config
    -name tart-job-42
    -display none
    -no-reboot
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
    -machine microvm,acpi=on,rtc=on,x-option-roms=off,auto-kernel-cmdline=off,dump-guest-core=off,mem-merge=off,pit=on,pic=on
    -accel tcg,thread=multi,tb-size=256
    -cpu max,la57=off
    -global virtio-mmio.force-legacy=false
    -m 1025M
    -smp 2
    -kernel /assets/bzImage
    -initrd /assets/initrd
    -append console=ttyS0 quiet
    -chardev socket,id=qmp,fd=11
    -mon chardev=qmp,mode=control
    -chardev socket,id=console,fd=12
    -serial chardev:console
    -chardev socket,id=agent,fd=13,server=on,wait=off
    -device virtio-serial-device,max_ports=2
    -device virtserialport,chardev=agent,name=tart.agent
    -object rng-builtin,id=rng
    -device virtio-rng-device,rng=rng
    -blockdev {"cache":{"no-flush":false},"discard":"ignore","driver":"raw","file":{"aio":"threads","cache":{"no-flush":false},"discard":"ignore","driver":"file","filename":"/var/lib/tart/helper, with comma","read-only":true},"node-name":"disk0","read-only":true}
    -device virtio-blk-device,id=blk0,drive=disk0,serial=helper
    -blockdev {"cache":{"no-flush":true},"discard":"unmap","driver":"raw","file":{"aio":"threads","cache":{"no-flush":true},"discard":"unmap","driver":"file","filename":"/var/lib/tart/scratch, with comma","read-only":false},"node-name":"disk1","read-only":false}
    -device virtio-blk-device,id=blk1,drive=disk1,serial=scratch
    "#);
}

#[test]
fn a_machine_with_kvm_needs_no_old_timers() {
    let text = shown(&MachineSpec { disks: vec![], ..spec() }, Acceleration::Kvm);
    let differing: Vec<_> =
        text.lines().filter(|line| ["-mach", "-acc", "-cpu"].iter().any(|p| line.starts_with(p))).collect();
    insta::assert_snapshot!(differing.join("\n"), @"
    -machine microvm,acpi=on,rtc=on,x-option-roms=off,auto-kernel-cmdline=off,dump-guest-core=off,mem-merge=off,pit=off,pic=off
    -accel kvm
    -cpu host
    ");
}

#[test]
fn a_network_device_is_an_inherited_descriptor() {
    let fd: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
    let nic = |link| Some(Nic { mac: "02:00:00:00:00:01".into(), link });
    let lines = |nic| {
        let text = shown(&MachineSpec { nic, ..spec() }, Acceleration::Tcg);
        text.lines().filter(|line| line.contains("nic")).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(lines(nic(NicLink::Stream(fd.clone()))), @"
    -netdev stream,id=nic,server=off,addr.type=fd,addr.str=14
    -device virtio-net-device,netdev=nic,mac=02:00:00:00:00:01
    ");
    insta::assert_snapshot!(lines(nic(NicLink::Tap(fd.clone()))), @"
    -netdev tap,id=nic,fd=14
    -device virtio-net-device,netdev=nic,mac=02:00:00:00:00:01
    ");
    assert_eq!(lines(None), "");
    let odd = Nic { mac: "02:00:00:00:00:01,script=x".into(), link: NicLink::Tap(fd) };
    assert!(arguments(&MachineSpec { nic: Some(odd), ..spec() }, Acceleration::Tcg, "", FDS).is_err());
}

#[test]
fn specifications_that_break_a_rule_are_refused() {
    let refused = |spec: MachineSpec| spec.check().unwrap_err().to_string();
    insta::assert_snapshot!(refused(MachineSpec { id: "a,b".into(), ..spec() }), @"machine `a,b` cannot be started: `a,b` is no machine name of at most 40 lower case letters, digits and hyphens");
    insta::assert_snapshot!(refused(MachineSpec { vcpus: 0, ..spec() }), @"machine `job-42` cannot be started: it has no processor");
    insta::assert_snapshot!(refused(MachineSpec { memory_bytes: 1000, ..spec() }), @"machine `job-42` cannot be started: 1000 bytes of memory are less than the 96 MiB that a guest needs");
    let disk = DiskSpec { serial: "a,b".into(), path: Some("/x".into()), read_only: true };
    insta::assert_snapshot!(refused(MachineSpec { disks: vec![disk], ..spec() }), @"machine `job-42` cannot be started: `a,b` is no disk serial of at most 20 letters, digits, - and _");
    assert!(spec().check().is_ok());
}
