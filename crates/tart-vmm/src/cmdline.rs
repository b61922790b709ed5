//! The kernel's command line. Pure.

use crate::{Acceleration, VmmError};

/// Longest command line that an x86 kernel takes, with its final zero.
const MAX_LEN: usize = 2048;

/// What Firecracker adds to it: `pci=off`, and for each of at most 17 devices up to 36 bytes that say where it is. It refuses
/// a device that has no room there.
const FIRECRACKER_ADDS: usize = 8 + 17 * 36;

/// The kernel's number of the feature `cx16`, which older kernels do not know by name.
const CX16: u32 = 4 * 32 + 13;

/// Timer interrupts per second of distribution kernels.
const HZ: u64 = 250;

/// What the driver sets itself, or what would keep the guest from starting. Names that end in a dot stand for all
/// that begin so.
const RESERVED: &[(&str, &str)] = &[
    ("tart.", "it is Tart's own"),
    ("console", "the console is where Tart sees why a guest does not start"),
    ("init", "the agent is the first process"),
    ("rdinit", "the agent is the first process"),
    ("root", "the guest starts from its initramfs"),
    ("initrd", "the driver gives the initramfs"),
    ("noinitrd", "the guest starts from its initramfs"),
    ("panic", "a guest that panics must end"),
    ("reboot", "it decides whether the machine ends when the guest does"),
    ("nomodule", "the agent loads the drivers of the guest's devices"),
    ("module_blacklist", "the agent loads the drivers of the guest's devices"),
    ("tsc_early_khz", "it depends on the host"),
    ("lpj", "it depends on the host"),
    ("maxcpus", "the agent starts the processors; set `vcpus` instead"),
    ("nosmp", "the agent starts the processors; set `vcpus` instead"),
    ("virtio_mmio.device", "the driver gives the devices"),
];

/// The command line of a guest on QEMU. `tsc_khz` is the frequency of the host's time stamp counter, which an
/// emulated processor passes through.
pub(crate) fn qemu(
    acceleration: Acceleration,
    tsc_khz: u64,
    vcpus: u32,
    extra: &[String],
) -> Result<String, VmmError> {
    let mut words: Vec<String> = [
        "console=ttyS0",
        "quiet",
        // Warnings and panics are what a boot that fails is explained with.
        "loglevel=5",
        "panic=-1",
        // Asks no firmware and no keyboard controller, either of which takes time.
        "reboot=t",
        "random.trust_cpu=on",
        // Otherwise a watchdog, which a busy host delays, ends the use of the fast clock.
        "tsc=reliable",
        "no_timer_check",
        "tart.transport=virtio-serial",
    ]
    .map(str::to_owned)
    .into();
    match acceleration {
        Acceleration::Kvm => {}
        Acceleration::Tcg => {
            // A busy host delays the timer that the kernel calibrates its clock against, and then it hangs.
            words.push(format!("tsc_early_khz={tsc_khz}"));
            words.push(format!("lpj={}", tsc_khz * 1000 / HZ));
            // The emulator is no processor that speculates.
            words.push("mitigations=off".to_owned());
            // QEMU 7.2 leaves nonsense in the flags after cmpxchg16b, and an interrupt just then takes it back into the
            // kernel, which panics. Only the kernel is told not to use it: programs find what they are built for.
            words.push(format!("clearcpuid={CX16}"));
            if vcpus > 1 {
                // While the kernel starts, it patches code that its other processors run, which the emulator does not
                // always survive. The agent starts them when that is over.
                words.push("maxcpus=1".to_owned());
            }
        }
    }
    with_extra(words, extra, MAX_LEN)
}

/// The command line of a guest on Firecracker.
pub(crate) fn firecracker(extra: &[String]) -> Result<String, VmmError> {
    let words = [
        "console=ttyS0",
        "quiet",
        // As on QEMU.
        "loglevel=5",
        "panic=-1",
        // The keyboard controller's reset is what ends Firecracker; looking for keyboards takes time.
        "reboot=k",
        "i8042.noaux",
        "i8042.nomux",
        "i8042.dumbkbd",
        "pci=off",
        "swiotlb=noforce",
        "random.trust_cpu=on",
        "tsc=reliable",
        "no_timer_check",
        "tart.transport=vsock",
    ];
    with_extra(words.map(str::to_owned).into(), extra, MAX_LEN - FIRECRACKER_ADDS)
}

/// `max` is the first length that is too long.
fn with_extra(mut words: Vec<String>, extra: &[String], max: usize) -> Result<String, VmmError> {
    for word in extra {
        check(word)?;
        words.push(word.clone());
    }
    let line = words.join(" ");
    if line.len() < max {
        Ok(line)
    } else {
        let word = extra.last().cloned().unwrap_or_default();
        let reason = if max == MAX_LEN {
            "the kernel takes at most 2047 bytes of arguments"
        } else {
            "the kernel takes at most 2047 bytes of arguments, and Firecracker adds up to 620"
        };
        Err(VmmError::KernelArgument { word, reason })
    }
}

fn check(word: &str) -> Result<(), VmmError> {
    let refuse = |reason| Err(VmmError::KernelArgument { word: word.to_owned(), reason });
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_graphic()) || word.contains('"') {
        return refuse("it is no word of printable characters without quotes");
    }
    if word == "--" {
        return refuse("what follows it would be arguments of the agent");
    }
    // The kernel takes hyphens and underscores in names for the same.
    let name = word.split('=').next().unwrap_or_default().replace('-', "_");
    let hit = RESERVED.iter().find(|(reserved, _)| {
        if reserved.ends_with('.') { name.starts_with(reserved) } else { name == *reserved }
    });
    hit.map_or(Ok(()), |(_, reason)| refuse(reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(word: &str) -> String {
        check(word).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_depends_on_the_acceleration() {
        insta::assert_snapshot!(qemu(Acceleration::Tcg, 2_900_000, 2, &["mem_sleep_default=s2idle".into()]).unwrap(), @"console=ttyS0 quiet loglevel=5 panic=-1 reboot=t random.trust_cpu=on tsc=reliable no_timer_check tart.transport=virtio-serial tsc_early_khz=2900000 lpj=11600000 mitigations=off clearcpuid=141 maxcpus=1 mem_sleep_default=s2idle");
        insta::assert_snapshot!(qemu(Acceleration::Kvm, 2_900_000, 2, &[]).unwrap(), @"console=ttyS0 quiet loglevel=5 panic=-1 reboot=t random.trust_cpu=on tsc=reliable no_timer_check tart.transport=virtio-serial");
    }

    #[test]
    fn a_guest_on_firecracker_resets_by_the_keyboard_controller() {
        insta::assert_snapshot!(firecracker(&["audit=0".into()]).unwrap(), @"console=ttyS0 quiet loglevel=5 panic=-1 reboot=k i8042.noaux i8042.nomux i8042.dumbkbd pci=off swiotlb=noforce random.trust_cpu=on tsc=reliable no_timer_check tart.transport=vsock audit=0");
        assert!(firecracker(&["reboot=t".into()]).is_err());
    }

    #[test]
    fn words_that_would_break_the_start_are_refused() {
        insta::assert_snapshot!(refused("init=/bin/sh"), @"kernel argument `init=/bin/sh` cannot be set: the agent is the first process");
        insta::assert_snapshot!(refused("tart.transport=vsock"), @"kernel argument `tart.transport=vsock` cannot be set: it is Tart's own");
        insta::assert_snapshot!(refused("tsc-early-khz=1"), @"kernel argument `tsc-early-khz=1` cannot be set: it depends on the host");
        insta::assert_snapshot!(refused("--"), @"kernel argument `--` cannot be set: what follows it would be arguments of the agent");
        insta::assert_snapshot!(refused("a\nb"), @"
        kernel argument `a
        b` cannot be set: it is no word of printable characters without quotes
        ");
        assert!(check("systemd.unified_cgroup_hierarchy=1").is_ok());
        assert!(check("initcall_debug").is_ok());
    }

    #[test]
    fn a_line_too_long_for_the_kernel_is_refused() {
        let words = vec!["a".repeat(1000), "b".repeat(1000)];
        assert!(qemu(Acceleration::Tcg, 1, 1, &words).is_err());
        let words = ["a".repeat(1250)];
        assert!(qemu(Acceleration::Tcg, 1, 1, &words).is_ok());
        let error = firecracker(&words).unwrap_err().to_string();
        assert!(error.ends_with("and Firecracker adds up to 620"), "{error}");
    }

    proptest! {
        #[test]
        fn accepted_words_stay_one_word(word in ".{0,30}") {
            if let Ok(line) = qemu(Acceleration::Tcg, 1, 1, std::slice::from_ref(&word)) {
                prop_assert_eq!(line.split_ascii_whitespace().next_back(), Some(word.as_str()));
            }
        }
    }
}
