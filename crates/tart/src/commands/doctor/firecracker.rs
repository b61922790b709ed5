//! What a host lacks for Firecracker, in the order in which it is to be corrected. Pure: facts in, findings out.

use std::ops::Range;

use tart_config::{HugePages, MicroVm, NetworkMode};

use super::check::Check;
use super::facts::{Device, Facts, Forwarding, Program};
use crate::output::bytes;

/// Controllers that bound what a machine takes of the host.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// Bytes of a huge page.
const HUGE_PAGE: u64 = 2 << 20;

/// What the configuration wants of the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    network: NetworkMode,
    huge_pages: HugePages,
    /// Bytes of a guest's memory.
    memory: u64,
}

impl Wanted {
    pub(super) fn of(config: &MicroVm) -> Self {
        Self { network: config.network.mode, huge_pages: config.huge_pages, memory: config.memory.bytes() }
    }

    /// Firecracker's guests have a tap device in a namespace, which only root makes, unless it is the relay or nothing.
    fn taps(self, facts: &Facts) -> bool {
        match self.network {
            NetworkMode::Auto => facts.user.uid == 0 || facts.helper.is_some(),
            mode => mode == NetworkMode::Netns,
        }
    }
}

/// All findings, each of which is tested anew when the doctor runs again.
pub(super) fn findings(facts: &Facts, wanted: Wanted) -> Vec<Check> {
    let mut checks = vec![cpu(facts), modules(facts), device(facts), access(facts), monitor(facts)];
    checks.push(jailer(facts));
    if wanted.taps(facts) {
        checks.extend([tun(facts), forwarding(facts), nft(&facts.nft)]);
    }
    checks.push(cgroup(facts));
    checks.extend(huge_pages(facts, wanted));
    checks.extend([userfaultfd(facts), swap(facts.swap), ksm(facts.ksm), smt(facts.smt), uids(facts)]);
    checks
}

fn cpu(facts: &Facts) -> Check {
    const WHAT: &str = "cpu";
    let why = "Firecracker runs guests on the processor itself; it cannot emulate one";
    let cpu = &facts.cpu;
    match (cpu.vmx, cpu.svm) {
        (true, _) => Check::ok(WHAT, "Intel's virtualization (vmx)"),
        (_, true) => Check::ok(WHAT, "AMD's virtualization (svm)"),
        _ if facts.kvm.exists() => {
            let text = "neither vmx nor svm, though there is a /dev/kvm: a hypervisor may provide it (PVM)";
            Check::warn(WHAT, text, "none is needed if a guest boots, which is tried at the end").because(why)
        }
        _ if cpu.virtual_machine => {
            let fix = "switch nested virtualization on where this machine runs, such as \
                       `options kvm_intel nested=1` in its host's /etc/modprobe.d, or take a machine that has it \
                       (bare metal, in most clouds)";
            Check::fail(WHAT, "this is a virtual machine whose processor has neither vmx nor svm", fix)
                .because(why)
        }
        _ => {
            let fix = "switch VT-x or SVM on in the firmware's settings, then start this host again";
            Check::fail(WHAT, "the processor shows neither vmx nor svm", fix).because(why)
        }
    }
}

fn modules(facts: &Facts) -> Check {
    const WHAT: &str = "modules";
    let module = match (facts.cpu.vmx, facts.cpu.svm) {
        (true, _) => "kvm_intel",
        (_, true) => "kvm_amd",
        _ if facts.kvm.exists() => return Check::ok(WHAT, "KVM is in the kernel"),
        _ => return Check::wait(WHAT, "cpu"),
    };
    if !facts.kvm_modules.is_empty() {
        return Check::ok(WHAT, facts.kvm_modules.join(", "));
    }
    if facts.kvm.exists() {
        return Check::ok(WHAT, "KVM is in the kernel");
    }
    let fix = format!("modprobe {module} && echo {module} >/etc/modules-load.d/kvm.conf");
    Check::fail(WHAT, format!("{module} is not loaded"), fix)
        .because("it is the part of the kernel that gives Firecracker the processor's virtualization")
}

fn device(facts: &Facts) -> Check {
    const WHAT: &str = "kvm";
    let why = "Firecracker makes guests by this device";
    match facts.kvm {
        Device::Present { .. } => Check::ok(WHAT, "/dev/kvm is there"),
        Device::Other => {
            let fix = "rm -rf /dev/kvm && udevadm trigger --name-match=kvm";
            Check::fail(WHAT, "/dev/kvm is no device", fix).because(why)
        }
        Device::Missing if facts.kvm_modules.is_empty() => Check::wait(WHAT, "modules"),
        Device::Missing => {
            let fix =
                "give the container the device (`--device /dev/kvm`), or `udevadm trigger --name-match=kvm`";
            Check::fail(WHAT, "there is no /dev/kvm, though its module is loaded", fix).because(why)
        }
    }
}

fn access(facts: &Facts) -> Check {
    const WHAT: &str = "access";
    let Device::Present { mode, gid, .. } = facts.kvm else { return Check::wait(WHAT, "kvm") };
    if let Some(helper) = &facts.helper {
        return Check::ok(WHAT, format!("/dev/kvm is for the root helper ({})", helper.display()));
    }
    let user = &facts.user.name;
    let why = "the service could not make guests";
    match &facts.kvm_open {
        Some(Ok(())) => return Check::ok(WHAT, format!("{user} can open /dev/kvm")),
        // Permissions say why, unless they are not the reason.
        Some(Err(error)) if facts.kvm.is_for(&facts.user) => {
            let fix = "look for what else forbids it: a container's list of devices, or AppArmor (`dmesg`)";
            return Check::fail(WHAT, format!("{user} cannot open /dev/kvm: {error}"), fix).because(why);
        }
        None if facts.kvm.is_for(&facts.user) => {
            return Check::ok(WHAT, format!("/dev/kvm is for {user}, by its mode"));
        }
        _ => {}
    }
    let text = format!("/dev/kvm (mode {:o}, group {gid}) is not for {user}", mode & 0o777);
    let fix = if gid == 0 || mode & 0o060 != 0o060 {
        "echo 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\"' >/etc/udev/rules.d/65-kvm.rules && udevadm control \
         --reload && udevadm trigger --name-match=kvm"
            .to_owned()
    } else {
        format!("usermod --append --groups {gid} {user}, then start the service (or log in) again")
    };
    Check::fail(WHAT, text, fix).because(why)
}

/// That Firecracker is there, and a version that Tart drives.
fn monitor(facts: &Facts) -> Check {
    const WHAT: &str = "monitor";
    let program = &facts.firecracker;
    let name = program.path.display();
    let fix = if facts.helper.is_some() {
        "install a release of Firecracker (1.16.1 or later is best), and start `tart root-helper` with `--firecracker` and \
         its path"
    } else {
        "install a release of Firecracker (1.16.1 or later is best), and set `firecracker` or TART_FIRECRACKER to its path"
    };
    let why = "it is the program that runs guests";
    let said = match &program.said {
        Ok(said) => said,
        Err(error) => return Check::fail(WHAT, format!("{name} does not run: {error}"), fix).because(why),
    };
    let Some(version) = tart_vmm::Version::parse(said) else {
        return Check::fail(WHAT, format!("{name} tells no version"), fix).because(why);
    };
    match version.problem() {
        Some(problem) => Check::fail(WHAT, format!("{name}: {problem}"), fix).because(why),
        None => Check::ok(WHAT, format!("Firecracker {version} ({name})")),
    }
}

fn jailer(facts: &Facts) -> Check {
    const WHAT: &str = "jailer";
    let name = facts.jailer.path.display();
    let fix = "install the `jailer` of the same release beside `firecracker`";
    let why = "it gives each machine a user and a root directory of its own, should a guest break out of Firecracker";
    // The root helper starts Firecracker in jails only.
    let lack = if facts.helper.is_some() { Check::fail } else { Check::warn };
    let version = |program: &Program| tart_vmm::Version::parse(program.said.as_deref().ok()?);
    match (version(&facts.jailer), version(&facts.firecracker)) {
        (None, _) => lack(WHAT, format!("{name} does not run"), fix.to_owned()).because(why),
        (Some(own), Some(other)) if own != other => {
            let text = format!("{name} is {own}, and Firecracker is {other}");
            lack(WHAT, text, fix.to_owned()).because("only those of one release are made for each other")
        }
        (Some(own), _) if facts.helper.is_some() => {
            Check::ok(WHAT, format!("jailer {own} ({name}), started by the root helper"))
        }
        (Some(own), _) if facts.user.uid != 0 => {
            let text = format!(
                "jailer {own} ({name}) is for root only, and the service runs as {}",
                facts.user.name
            );
            let fix =
                "systemctl enable --now tart-root-helper, or run the service as root (tart-root.service)";
            Check::warn(WHAT, text, fix).because(why)
        }
        (Some(own), _) => Check::ok(WHAT, format!("jailer {own} ({name})")),
    }
}

fn tun(facts: &Facts) -> Check {
    const WHAT: &str = "tun";
    if facts.tun.exists() {
        return Check::ok(WHAT, "/dev/net/tun is there");
    }
    let fix =
        "modprobe tun && echo tun >/etc/modules-load.d/tun.conf (in a container: `--device /dev/net/tun`)";
    Check::fail(WHAT, "there is no /dev/net/tun", fix)
        .because("guests' network devices are made by it; `mode = \"relay\"` needs none")
}

fn forwarding(facts: &Facts) -> Check {
    const WHAT: &str = "forward";
    match facts.forwarding {
        Forwarding::On => Check::ok(WHAT, "this host forwards packets"),
        Forwarding::Possible => Check::ok(WHAT, "off, and switched on for guests' devices while they run"),
        Forwarding::Fixed if facts.helper.is_some() => {
            Check::ok(WHAT, "off, and switched on for guests' devices by the root helper")
        }
        Forwarding::Fixed => {
            let fix = "sysctl --write net.ipv4.ip_forward=1, or run the service where /proc/sys/net can be written \
                       (as root; in a container: `--privileged`)";
            Check::fail(WHAT, "packets are not forwarded, and the settings cannot be written", fix)
                .because("packets of guests go through this host")
        }
    }
}

fn nft(program: &Program) -> Check {
    const WHAT: &str = "nft";
    match &program.said {
        Ok(said) => Check::ok(WHAT, said.lines().next().unwrap_or("nft").to_owned()),
        Err(error) => Check::fail(WHAT, format!("`nft` does not run: {error}"), "apt-get install nftables")
            .because("it keeps guests from the host, from each other and from private networks"),
    }
}

fn cgroup(facts: &Facts) -> Check {
    const WHAT: &str = "cgroup";
    if facts.helper.is_some() {
        return Check::ok(WHAT, "divided by the root helper");
    }
    let cgroup = &facts.cgroup;
    let why = "nothing else bounds what the monitors of guests take of the host";
    if !cgroup.unified {
        let fix = "boot with `systemd.unified_cgroup_hierarchy=1` on the kernel's command line";
        return Check::warn(WHAT, "control groups of version 2 are not mounted", fix).because(why);
    }
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !cgroup.controllers.iter().any(|controller| controller == name))
        .collect();
    let fix = "run `tart` by its unit (tart.service), or this by `systemd-run --pipe --property='Delegate=memory pids cpu io'`";
    if !missing.is_empty() {
        let text = format!("this process has no controllers {}", missing.join(", "));
        return Check::warn(WHAT, text, fix).because(why);
    }
    if !cgroup.writable {
        return Check::warn(WHAT, "the control group of this process is not its own", fix).because(why);
    }
    Check::ok(WHAT, format!("version 2 with {}", CONTROLLERS.join(", ")))
}

fn huge_pages(facts: &Facts, wanted: Wanted) -> Option<Check> {
    const WHAT: &str = "hugepages";
    let (all, free) = facts.huge_pages;
    match wanted.huge_pages {
        HugePages::None => None,
        HugePages::Transparent if facts.transparent_pages => Some(Check::ok(WHAT, "transparent ones are on")),
        HugePages::Transparent => {
            let fix = "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled";
            let check = Check::fail(WHAT, "transparent ones are off", fix);
            Some(check.because("the configuration has `huge_pages = \"transparent\"`"))
        }
        HugePages::TwoMib => {
            let needed = wanted.memory.div_ceil(HUGE_PAGE);
            if free >= needed {
                return Some(Check::ok(WHAT, format!("{free} free, of which a guest takes {needed}")));
            }
            let total = all.saturating_sub(free).saturating_add(needed);
            let fix = format!(
                "sysctl --write vm.nr_hugepages={total} (more for more guests at once), also in /etc/sysctl.d"
            );
            let text = format!("{free} free, and a guest takes {needed}");
            Some(Check::fail(WHAT, text, fix).because("the configuration has `huge_pages = \"2M\"`"))
        }
    }
}

fn userfaultfd(facts: &Facts) -> Check {
    const WHAT: &str = "uffd";
    if facts.userfaultfd {
        return Check::ok(WHAT, "memory can be served page by page");
    }
    let fix = format!(
        "setfacl --modify u:{}:rw /dev/userfaultfd (on kernels before 6.1: sysctl --write vm.unprivileged_userfaultfd=1)",
        facts.user.name
    );
    Check::warn(WHAT, format!("memory cannot be served page by page by {}", facts.user.name), fix)
        .because("guests start from a snapshot by it that have huge pages or `snapshot_memory = \"uffd\"`; they boot without")
}

fn swap(swap: u64) -> Check {
    const WHAT: &str = "swap";
    if swap == 0 {
        return Check::ok(WHAT, "none");
    }
    Check::warn(WHAT, format!("{} of it", bytes(swap)), "swapoff --all, and remove it from /etc/fstab")
        .because("guests' memory, with secrets of jobs, could be written to a disk, and guests get slow")
}

fn ksm(on: bool) -> Check {
    const WHAT: &str = "ksm";
    if !on {
        return Check::ok(WHAT, "off");
    }
    Check::warn(WHAT, "equal pages of guests are merged", "echo 2 >/sys/kernel/mm/ksm/run")
        .because("a guest can find out by time what others have in memory")
}

fn smt(on: bool) -> Check {
    const WHAT: &str = "smt";
    if !on {
        return Check::ok(WHAT, "off");
    }
    let fix = "echo off >/sys/devices/system/cpu/smt/control (`nosmt` on the kernel's command line), if jobs do not \
               trust each other";
    Check::warn(WHAT, "two threads share a core", fix)
        .because("a guest may learn of what another does on the same core")
}

fn uids(facts: &Facts) -> Check {
    const WHAT: &str = "uids";
    let Range { start, end } = facts.uids.clone();
    if start == end {
        return Check::warn(WHAT, "`uid_count` is 0", "remove `uid_count = 0` from the configuration")
            .because("all monitors run as the service's own user");
    }
    let overlaps = |taken: &Range<u64>| taken.start < end && start < taken.end;
    match facts.taken_uids.iter().find(|(_, range)| overlaps(range)) {
        None => Check::ok(WHAT, format!("{start} to {} are free for machines", end - 1)),
        Some((name, range)) => {
            let text = format!("{name} has {} to {} of the users of machines", range.start, range.end - 1);
            Check::warn(WHAT, text, "give it others in /etc/passwd or /etc/subuid (`usermod --del-subuids`)")
                .because("a jailed machine could touch what belongs to that account")
        }
    }
}

#[cfg(test)]
mod tests;
