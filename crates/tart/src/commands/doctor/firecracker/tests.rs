use std::fmt::Write as _;

use super::super::facts::{Cgroup, Cpu, User};
use super::*;

fn program(name: &str, said: &str) -> Program {
    Program { path: format!("/opt/{name}").into(), said: Ok(said.into()) }
}

/// A host that has everything.
fn good() -> Facts {
    let device = Device::Present { mode: 0o20660, uid: 0, gid: 106 };
    Facts {
        cpu: Cpu { vmx: true, ..Cpu::default() },
        kvm_modules: vec!["kvm_intel".into()],
        kvm: device,
        kvm_open: None,
        user: User { name: "root".into(), uid: 0, gids: vec![0] },
        helper: None,
        firecracker: program("firecracker", "Firecracker v1.16.1\n"),
        jailer: program("jailer", "Jailer v1.16.1\n"),
        uids: 1_879_048_192..1_879_052_288,
        nft: program("nft", "nftables v1.0.6 (Lester Gooch #5)\n"),
        tun: device,
        forwarding: Forwarding::Possible,
        cgroup: Cgroup { unified: true, controllers: CONTROLLERS.map(str::to_owned).into(), writable: true },
        huge_pages: (0, 0),
        transparent_pages: true,
        userfaultfd: true,
        swap: 0,
        ksm: false,
        smt: false,
        taken_uids: vec![("root".into(), 0..1), ("someone".into(), 100_000..165_536)],
    }
}

fn wanted() -> Wanted {
    Wanted { network: NetworkMode::Netns, huge_pages: HugePages::None, memory: 1 << 30 }
}

fn render(facts: &Facts, wanted: Wanted) -> String {
    findings(facts, wanted).iter().map(Check::render).collect()
}

/// Only what is not well.
fn problems(facts: &Facts, wanted: Wanted) -> String {
    findings(facts, wanted).iter().filter(|check| !check.is_ok()).map(Check::render).collect()
}

#[test]
fn a_host_that_lacks_nothing_is_told_what_was_looked_at() {
    insta::assert_snapshot!(render(&good(), wanted()), @"
    ok    cpu        Intel's virtualization (vmx)
    ok    modules    kvm_intel
    ok    kvm        /dev/kvm is there
    ok    access     /dev/kvm is for root, by its mode
    ok    monitor    Firecracker 1.16.1 (/opt/firecracker)
    ok    jailer     jailer 1.16.1 (/opt/jailer)
    ok    tun        /dev/net/tun is there
    ok    forward    off, and switched on for guests' devices while they run
    ok    nft        nftables v1.0.6 (Lester Gooch #5)
    ok    cgroup     version 2 with memory, pids, cpu, io
    ok    uffd       memory can be served page by page
    ok    swap       none
    ok    ksm        off
    ok    smt        off
    ok    uids       1879048192 to 1879052287 are free for machines
    ");
}

#[test]
fn a_virtual_machine_without_virtualization_is_told_what_comes_first() {
    let facts = Facts {
        cpu: Cpu { virtual_machine: true, ..Cpu::default() },
        kvm_modules: Vec::new(),
        kvm: Device::Missing,
        kvm_open: Some(Err("No such file or directory".into())),
        ..good()
    };
    insta::assert_snapshot!(problems(&facts, wanted()), @"
    fail  cpu        this is a virtual machine whose processor has neither vmx nor svm
                     why: Firecracker runs guests on the processor itself; it cannot emulate one
                     fix: switch nested virtualization on where this machine runs, such as `options kvm_intel nested=1` in its host's /etc/modprobe.d, or take a machine that has it (bare metal, in most clouds)
    wait  modules    not looked at yet: first comes `cpu`
    wait  kvm        not looked at yet: first comes `modules`
    wait  access     not looked at yet: first comes `kvm`
    ");
    let facts = Facts { cpu: Cpu::default(), ..facts };
    insta::assert_snapshot!(cpu(&facts).render(), @"
    fail  cpu        the processor shows neither vmx nor svm
                     why: Firecracker runs guests on the processor itself; it cannot emulate one
                     fix: switch VT-x or SVM on in the firmware's settings, then start this host again
    ");
}

#[test]
fn a_new_installation_is_led_through_all_steps() {
    let missing = |name: &str| Program {
        path: name.into(),
        said: Err("No such file or directory (os error 2)".into()),
    };
    let facts = Facts {
        kvm_modules: Vec::new(),
        kvm: Device::Missing,
        firecracker: missing("firecracker"),
        jailer: missing("jailer"),
        nft: missing("nft"),
        tun: Device::Missing,
        forwarding: Forwarding::Fixed,
        cgroup: Cgroup { unified: true, controllers: vec!["cpu".into(), "pids".into()], writable: false },
        user: User { name: "tart".into(), uid: 990, gids: vec![980] },
        userfaultfd: false,
        swap: 4 << 30,
        ksm: true,
        smt: true,
        taken_uids: vec![("containers".into(), 1_879_048_192..1_879_052_288)],
        ..good()
    };
    insta::assert_snapshot!(problems(&facts, wanted()), @r#"
    fail  modules    kvm_intel is not loaded
                     why: it is the part of the kernel that gives Firecracker the processor's virtualization
                     fix: modprobe kvm_intel && echo kvm_intel >/etc/modules-load.d/kvm.conf
    wait  kvm        not looked at yet: first comes `modules`
    wait  access     not looked at yet: first comes `kvm`
    fail  monitor    firecracker does not run: No such file or directory (os error 2)
                     why: it is the program that runs guests
                     fix: install a release of Firecracker (1.16.1 or later is best), and set `firecracker` or TART_FIRECRACKER to its path
    warn  jailer     jailer does not run
                     why: it gives each machine a user and a root directory of its own, should a guest break out of Firecracker
                     fix: install the `jailer` of the same release beside `firecracker`
    fail  tun        there is no /dev/net/tun
                     why: guests' network devices are made by it; `mode = "relay"` needs none
                     fix: modprobe tun && echo tun >/etc/modules-load.d/tun.conf (in a container: `--device /dev/net/tun`)
    fail  forward    packets are not forwarded, and the settings cannot be written
                     why: packets of guests go through this host
                     fix: sysctl --write net.ipv4.ip_forward=1, or run the service where /proc/sys/net can be written (as root; in a container: `--privileged`)
    fail  nft        `nft` does not run: No such file or directory (os error 2)
                     why: it keeps guests from the host, from each other and from private networks
                     fix: apt-get install nftables
    warn  cgroup     this process has no controllers memory, io
                     why: nothing else bounds what the monitors of guests take of the host
                     fix: run `tart` by its unit (tart.service), or this by `systemd-run --pipe --property='Delegate=memory pids cpu io'`
    warn  uffd       memory cannot be served page by page by tart
                     why: guests start from a snapshot by it that have huge pages or `snapshot_memory = "uffd"`; they boot without
                     fix: setfacl --modify u:tart:rw /dev/userfaultfd (on kernels before 6.1: sysctl --write vm.unprivileged_userfaultfd=1)
    warn  swap       4.0 GiB of it
                     why: guests' memory, with secrets of jobs, could be written to a disk, and guests get slow
                     fix: swapoff --all, and remove it from /etc/fstab
    warn  ksm        equal pages of guests are merged
                     why: a guest can find out by time what others have in memory
                     fix: echo 2 >/sys/kernel/mm/ksm/run
    warn  smt        two threads share a core
                     why: a guest may learn of what another does on the same core
                     fix: echo off >/sys/devices/system/cpu/smt/control (`nosmt` on the kernel's command line), if jobs do not trust each other
    warn  uids       containers has 1879048192 to 1879052287 of the users of machines
                     why: a jailed machine could touch what belongs to that account
                     fix: give it others in /etc/passwd or /etc/subuid (`usermod --del-subuids`)
    "#);
}

#[test]
fn permissions_of_the_device_are_those_of_the_services_user() {
    let user = User { name: "tart".into(), uid: 990, gids: vec![980] };
    let mut facts = Facts { user, ..good() };
    insta::assert_snapshot!(access(&facts).render(), @"
    fail  access     /dev/kvm (mode 660, group 106) is not for tart
                     why: the service could not make guests
                     fix: usermod --append --groups 106 tart, then start the service (or log in) again
    ");
    facts.user.gids.push(106);
    insta::assert_snapshot!(access(&facts).render(), @"ok    access     /dev/kvm is for tart, by its mode");
    // The mode is not all that can forbid it.
    facts.kvm_open = Some(Err("Operation not permitted (os error 1)".into()));
    insta::assert_snapshot!(access(&facts).render(), @"
    fail  access     tart cannot open /dev/kvm: Operation not permitted (os error 1)
                     why: the service could not make guests
                     fix: look for what else forbids it: a container's list of devices, or AppArmor (`dmesg`)
    ");
    // Nor all that can allow it.
    facts = Facts { kvm: Device::Present { mode: 0o20600, uid: 0, gid: 0 }, kvm_open: Some(Ok(())), ..facts };
    insta::assert_snapshot!(access(&facts).render(), @"ok    access     tart can open /dev/kvm");
    facts.kvm_open = None;
    insta::assert_snapshot!(access(&facts).render(), @r#"
    fail  access     /dev/kvm (mode 600, group 0) is not for tart
                     why: the service could not make guests
                     fix: echo 'KERNEL=="kvm", GROUP="kvm", MODE="0660"' >/etc/udev/rules.d/65-kvm.rules && udevadm control --reload && udevadm trigger --name-match=kvm
    "#);
}

#[test]
fn programs_that_do_not_go_together_are_named() {
    let mut text = String::new();
    for (firecracker, jailer) in [
        ("Firecracker v1.6.0", "Jailer v1.6.0"),
        ("nonsense", "x"),
        ("Firecracker v1.16.1", "Jailer v1.15.0"),
    ] {
        let facts = Facts {
            firecracker: program("firecracker", firecracker),
            jailer: program("jailer", jailer),
            ..good()
        };
        write!(text, "{}", problems(&facts, wanted())).unwrap();
    }
    insta::assert_snapshot!(text, @"
    fail  monitor    /opt/firecracker: it is Firecracker 1.6.0, which is older than 1.7.0
                     why: it is the program that runs guests
                     fix: install a release of Firecracker (1.16.1 or later is best), and set `firecracker` or TART_FIRECRACKER to its path
    fail  monitor    /opt/firecracker tells no version
                     why: it is the program that runs guests
                     fix: install a release of Firecracker (1.16.1 or later is best), and set `firecracker` or TART_FIRECRACKER to its path
    warn  jailer     /opt/jailer does not run
                     why: it gives each machine a user and a root directory of its own, should a guest break out of Firecracker
                     fix: install the `jailer` of the same release beside `firecracker`
    warn  jailer     /opt/jailer is 1.15.0, and Firecracker is 1.16.1
                     why: only those of one release are made for each other
                     fix: install the `jailer` of the same release beside `firecracker`
    ");
}

#[test]
fn what_the_configuration_does_not_use_is_not_asked_for() {
    let facts = Facts { tun: Device::Missing, forwarding: Forwarding::Fixed, ..good() };
    assert_eq!(problems(&facts, Wanted { network: NetworkMode::Relay, ..wanted() }), "");
    let user = User { name: "tart".into(), uid: 990, gids: vec![106] };
    let unprivileged = Facts { user, ..facts.clone() };
    assert!(
        !problems(&unprivileged, Wanted { network: NetworkMode::Auto, ..wanted() }).contains("/dev/net/tun")
    );
    assert!(problems(&facts, wanted()).contains("/dev/net/tun"));
}

#[test]
fn with_a_root_helper_the_service_needs_no_right() {
    let user = User { name: "tart".into(), uid: 990, gids: vec![980] };
    let facts = Facts {
        user,
        helper: Some("/run/tart/root-helper.sock".into()),
        kvm_open: Some(Err("Permission denied".into())),
        forwarding: Forwarding::Fixed,
        cgroup: Cgroup { unified: true, controllers: Vec::new(), writable: false },
        ..good()
    };
    assert_eq!(problems(&facts, wanted()), "");
    let auto = Wanted { network: NetworkMode::Auto, ..wanted() };
    let text = render(&facts, auto);
    let told: String =
        text.lines().filter(|line| line.contains("helper")).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!(told, @"
    ok    access     /dev/kvm is for the root helper (/run/tart/root-helper.sock)
    ok    jailer     jailer 1.16.1 (/opt/jailer), started by the root helper
    ok    forward    off, and switched on for guests' devices by the root helper
    ok    cgroup     divided by the root helper
    ");
    let without =
        Facts { jailer: Program { said: Err("gone".into()), ..facts.jailer.clone() }, ..facts.clone() };
    insta::assert_snapshot!(problems(&without, auto), @"
    fail  jailer     /opt/jailer does not run
                     why: it gives each machine a user and a root directory of its own, should a guest break out of Firecracker
                     fix: install the `jailer` of the same release beside `firecracker`
    ");
    let none = Program {
        path: "firecracker".into(),
        said: Err("the root helper: it does not start Firecracker".into()),
    };
    insta::assert_snapshot!(monitor(&Facts { firecracker: none, ..facts.clone() }).render(), @"
    fail  monitor    firecracker does not run: the root helper: it does not start Firecracker
                     why: it is the program that runs guests
                     fix: install a release of Firecracker (1.16.1 or later is best), and start `tart root-helper` with `--firecracker` and its path
    ");
    let alone = Facts { helper: None, kvm_open: Some(Ok(())), ..facts };
    insta::assert_snapshot!(jailer(&alone).render(), @"
    warn  jailer     jailer 1.16.1 (/opt/jailer) is for root only, and the service runs as tart
                     why: it gives each machine a user and a root directory of its own, should a guest break out of Firecracker
                     fix: systemctl enable --now tart-root-helper, or run the service as root (tart-root.service)
    ");
}

#[test]
fn huge_pages_are_counted_if_guests_have_them() {
    let two = Wanted { huge_pages: HugePages::TwoMib, ..wanted() };
    let transparent = Wanted { huge_pages: HugePages::Transparent, ..wanted() };
    let facts = Facts { huge_pages: (300, 100), transparent_pages: false, ..good() };
    insta::assert_snapshot!(problems(&facts, two) + &problems(&facts, transparent), @r#"
    fail  hugepages  100 free, and a guest takes 512
                     why: the configuration has `huge_pages = "2M"`
                     fix: sysctl --write vm.nr_hugepages=712 (more for more guests at once), also in /etc/sysctl.d
    fail  hugepages  transparent ones are off
                     why: the configuration has `huge_pages = "transparent"`
                     fix: echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
    "#);
    let facts = Facts { huge_pages: (600, 512), ..good() };
    assert_eq!(problems(&facts, two) + &problems(&facts, transparent), "");
}

#[test]
fn a_hypervisor_may_give_kvm_without_the_processors_flags() {
    let facts =
        Facts { cpu: Cpu { virtual_machine: true, ..Cpu::default() }, kvm_modules: Vec::new(), ..good() };
    insta::assert_snapshot!(problems(&facts, wanted()), @"
    warn  cpu        neither vmx nor svm, though there is a /dev/kvm: a hypervisor may provide it (PVM)
                     why: Firecracker runs guests on the processor itself; it cannot emulate one
                     fix: none is needed if a guest boots, which is tried at the end
    ");
}
