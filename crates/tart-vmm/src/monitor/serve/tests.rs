use proptest::prelude::*;

use super::*;
use crate::confine::Allowed;

fn wanted() -> Wanted {
    Wanted {
        machine: "job-1".into(),
        program: "/usr/bin/qemu-system-x86_64".into(),
        args: vec!["-nodefaults".into()],
        dir: "/var/lib/tart/run/job-1".into(),
        numbers: vec![100, 101],
        allowed: Allowed { read: vec!["/assets/kernel".into()], ..Allowed::default() },
        own: vec!["/var/lib/tart/run/job-1/scratch".into()],
        kvm: false,
        memory: 1 << 30,
        vcpus: 2,
        bandwidth: Some(1 << 20),
        max_file: 1 << 30,
    }
}

fn refusal(change: impl FnOnce(&mut Wanted)) -> String {
    let mut wanted = wanted();
    change(&mut wanted);
    check(&wanted, 3, &["/usr/bin/qemu-system-x86_64".into()]).unwrap_err()
}

#[test]
fn a_runner_gets_programs_and_paths_that_are_as_they_should_be() {
    assert_eq!(check(&wanted(), 3, &["/usr/bin/qemu-system-x86_64".into()]), Ok(()));
    insta::assert_snapshot!(refusal(|w| w.program = "/bin/sh".into()), @"/bin/sh is none of the programs that it may run");
    insta::assert_snapshot!(refusal(|w| w.machine = "../up".into()), @"machine `../up` cannot be started: `../up` is no machine name of at most 40 lower case letters, digits and hyphens");
    insta::assert_snapshot!(refusal(|w| w.args = vec!["x".repeat(MAX_ARGUMENT + 1)]), @"there are too many arguments, or too long ones");
    insta::assert_snapshot!(refusal(|w| w.args = vec![String::new(); MAX_ARGUMENTS + 1]), @"there are too many arguments, or too long ones");
    insta::assert_snapshot!(refusal(|w| w.args = vec!["a\0b".into()]), @"there are too many arguments, or too long ones");
    insta::assert_snapshot!(refusal(|w| w.numbers = vec![100, 101, 102]), @"descriptors and their numbers do not fit");
    insta::assert_snapshot!(refusal(|w| w.numbers = vec![100, 100]), @"descriptors and their numbers do not fit");
    insta::assert_snapshot!(refusal(|w| w.numbers = vec![100, 2]), @"2 is no number of a descriptor");
    insta::assert_snapshot!(refusal(|w| w.dir = "run/job-1".into()), @"`run/job-1` is no plain absolute path");
    insta::assert_snapshot!(refusal(|w| w.allowed.read.push("/assets/../etc".into())), @"`/assets/../etc` is no plain absolute path");
    insta::assert_snapshot!(refusal(|w| w.own.push("./x".into())), @"`./x` is no plain absolute path");
    insta::assert_snapshot!(refusal(|w| w.bandwidth = Some(0)), @"0 bytes in a second are no bandwidth; it is from 1 to 17592186044416");
    insta::assert_snapshot!(refusal(|w| w.bandwidth = Some(u64::MAX)), @"18446744073709551615 bytes in a second are no bandwidth; it is from 1 to 17592186044416");
    insta::assert_snapshot!(refusal(|w| w.allowed.write = vec!["/x".into(); MAX_PATHS]), @"there are too many paths");
}

#[test]
fn disks_are_limited_as_the_runner_says_where_the_machines_directory_is() {
    let dir = PathBuf::from("/proc/self/fd/7");
    let limited = limits(&wanted(), Some(dir.clone()));
    assert_eq!(
        (limited.memory, limited.processors, limited.bandwidth),
        (1 << 30, 3, Some((1 << 20, dir.clone())))
    );
    assert_eq!(limits(&Wanted { bandwidth: None, ..wanted() }, Some(dir)).bandwidth, None);
}

proptest! {
    #[test]
    fn whatever_is_asked_for_is_answered(text in ".{0,40}", numbers in proptest::collection::vec(any::<i32>(), 0..20)) {
        let wanted = Wanted {
            program: text.clone().into(),
            machine: text.clone(),
            dir: text.clone().into(),
            own: vec![text.into()],
            numbers,
            ..wanted()
        };
        prop_assert!(check(&wanted, 3, &["/usr/bin/qemu-system-x86_64".into()]).is_err());
    }
}
