//! Whether Firecracker may have its memory served: not everybody may make a userfaultfd.

use std::fs;

use rustix::{
    fs::{Mode, OFlags},
    mm::UserfaultfdFlags,
};

/// The device, since Linux 6.1: who may open it may make one. The jailer makes it in every jail of a host that has it.
const DEVICE: &str = "/dev/userfaultfd";

/// Where the jailer looks for the device's number.
const NUMBERS: &str = "/proc/misc";

/// Whether everybody may.
const FOR_ALL: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// Why memory cannot be served, and what to do about it.
pub(in crate::firecracker) fn problem(jailed: bool) -> Option<String> {
    let for_all = fs::read_to_string(FOR_ALL).is_ok_and(|value| value.trim() == "1");
    let jails_have = || jailer_finds(&fs::read_to_string(NUMBERS).unwrap_or_default());
    if for_all || if jailed { jails_have() } else { may_make() } {
        return None;
    }
    Some(explain(jailed))
}

/// Whether the jailer finds the device's number. The kernel has it in three columns, and the jailer takes what is before
/// the first space: numbers of two digits, which are rare, it does not see.
fn jailer_finds(numbers: &str) -> bool {
    let mut words = numbers.lines().filter_map(|line| line.split_once(' '));
    words.any(|(number, name)| !number.is_empty() && name == "userfaultfd")
}

fn may_make() -> bool {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    #[expect(
        unsafe_code,
        reason = "rustix marks the call unsafe because of what its descriptor could be used for"
    )]
    // SAFETY: the descriptor is closed at once.
    let made = || unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC) };
    device.is_ok() || made().is_ok()
}

fn explain(jailed: bool) -> String {
    if jailed {
        format!("there is no {DEVICE} for jails (Linux 6.1): `sysctl --write vm.unprivileged_userfaultfd=1`")
    } else {
        format!(
            "this user may not open {DEVICE}: `setfacl --modify u:USER:rw {DEVICE}`, or before Linux 6.1 `sysctl --write \
             vm.unprivileged_userfaultfd=1`"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_looked_for_as_the_jailer_does() {
        assert!(jailer_finds("232 kvm\n126 userfaultfd\n"));
        assert!(!jailer_finds(" 58 userfaultfd\n") && !jailer_finds("126 other\n") && !jailer_finds(""));
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        insta::assert_snapshot!(explain(true), @"there is no /dev/userfaultfd for jails (Linux 6.1): `sysctl --write vm.unprivileged_userfaultfd=1`");
        insta::assert_snapshot!(explain(false), @"this user may not open /dev/userfaultfd: `setfacl --modify u:USER:rw /dev/userfaultfd`, or before Linux 6.1 `sysctl --write vm.unprivileged_userfaultfd=1`");
    }
}
