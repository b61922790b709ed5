use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use proptest::prelude::*;
use rustix::fs::{Mode, open as open_file};

use super::*;
use crate::firecracker::{ends::Listeners, place::Socket};

const PEER: Peer = Peer { uid: 65_534, gid: 65_534 };

fn file(name: Name, source: Source<()>) -> Furnishing<()> {
    Furnishing { name, source }
}

fn wanted() -> Wanted {
    Wanted {
        machine: "job-1".into(),
        version: "1.16.1".into(),
        files: vec![
            file(Name::Kernel, Source::Shared(())),
            file(Name::Initrd, Source::Shared(())),
            file(Name::Disk(0), Source::Shared(())),
            file(Name::Disk(1), Source::Own(())),
            file(Name::Disk(2), Source::Empty { writable: false }),
        ],
        listeners: Listeners { agent: true, memory: false },
        has_namespace: true,
        memory: 1 << 30,
        vcpus: 2,
        bandwidth: Some(1 << 20),
        max_file: 1 << 30,
    }
}

/// Console, standard error, namespace, four files.
const DESCRIPTORS: usize = 7;

fn refusal(change: impl FnOnce(&mut Wanted)) -> String {
    let mut wanted = wanted();
    change(&mut wanted);
    check(&wanted, DESCRIPTORS, "1.16.1").unwrap_err().to_string()
}

#[test]
fn a_machine_is_what_it_should_be() {
    assert_eq!(check(&wanted(), DESCRIPTORS, "1.16.1"), Ok(()));
    insta::assert_snapshot!(refusal(|w| w.machine = "../up".into()), @"machine `../up` cannot be started: `../up` is no machine name of at most 40 lower case letters, digits and hyphens");
    insta::assert_snapshot!(refusal(|w| w.version = "1.16.0".into()), @"the runner drives Firecracker 1.16.0, and the root helper has 1.16.1: start Tart again");
    insta::assert_snapshot!(refusal(|w| w.memory = 0), @"0 is no size of this machine");
    insta::assert_snapshot!(refusal(|w| w.bandwidth = Some(0)), @"0 is no size of this machine");
    insta::assert_snapshot!(refusal(|w| w.vcpus = 0), @"0 is no size of this machine");
    insta::assert_snapshot!(refusal(|w| w.max_file = u64::MAX), @"18446744073709551615 is no size of this machine");
    insta::assert_snapshot!(refusal(|w| w.has_namespace = false), @"7 descriptors came, and 6 are needed");
    insta::assert_snapshot!(refusal(|w| w.files.truncate(3)), @"7 descriptors came, and 6 are needed");
}

#[test]
fn files_are_those_of_a_machine_each_once() {
    insta::assert_snapshot!(refusal(|w| w.files[4].name = Name::Disk(0)), @"its files do not make a machine: one is there twice");
    insta::assert_snapshot!(refusal(|w| w.files[4].name = Name::Disk(9)), @"its files do not make a machine: its disks are too many, or some are left out");
    let many = (0..=u8::try_from(MAX_DISKS).unwrap()).map(|n| file(Name::Disk(n), Source::Shared(())));
    insta::assert_snapshot!(refusal(|w| w.files = many.collect()), @"its files do not make a machine: its disks are too many, or some are left out");
    insta::assert_snapshot!(refusal(|w| w.files[0].name = Name::State), @"its files do not make a machine: it has neither a kernel with its initramfs nor a saved state");
    insta::assert_snapshot!(refusal(|w| w.listeners.memory = true), @"its files do not make a machine: its memory is nowhere, or in two places");
    insta::assert_snapshot!(refusal(|w| w.files[0].source = Source::Own(())), @"kernel cannot be of that kind");
    insta::assert_snapshot!(refusal(|w| w.files[1].source = Source::Empty { writable: true }), @"initrd cannot be of that kind");

    let restored = |memory: Option<Name>, served| {
        let mut wanted = wanted();
        let saved = [Some(Name::State), memory].into_iter().flatten();
        let saved: Vec<_> = saved.map(|name| file(name, Source::Shared(()))).collect();
        let descriptors = DESCRIPTORS - 2 + saved.len();
        wanted.files.splice(..2, saved);
        wanted.listeners.memory = served;
        check(&wanted, descriptors, "1.16.1")
    };
    assert_eq!(restored(Some(Name::Memory), false), Ok(()));
    assert_eq!(restored(None, true), Ok(()));
    for (memory, served) in [(Some(Name::Memory), true), (None, false)] {
        assert!(matches!(restored(memory, served), Err(Refusal::Files(_))));
    }
}

#[test]
fn names_are_none_of_the_runners_choice() {
    let read = |text: &str| serde_json::from_str::<Furnishing<()>>(text);
    assert!(read(r#"{"name":"kernel","source":{"shared":null}}"#).is_ok());
    for wrong in [
        r#"{"name":"../../etc/shadow","source":{"shared":null}}"#,
        r#"{"name":{"disk":256},"source":{"shared":null}}"#,
        r#"{"name":{"disk":"0/.."},"source":{"shared":null}}"#,
        r#"{"name":"kernel","source":{"shared":"/etc/shadow"}}"#,
        r#"{"name":"kernel","source":{"shared":null},"path":"/etc/shadow"}"#,
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

/// A directory with a file of the peer's and one that is root's.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "only root can give files away");
        let scene = Self(tempfile::tempdir().unwrap());
        for (name, owner) in [("scratch", PEER.uid), ("secret", 0)] {
            fs::write(scene.at(name), name).unwrap();
            fs::set_permissions(scene.at(name), fs::Permissions::from_mode(0o600)).unwrap();
            chown(scene.at(name), Some(owner), Some(owner)).unwrap();
        }
        scene
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

fn handed(path: &Path, flags: OFlags, source: Source<()>) -> Result<Furnishing<File>, String> {
    let descriptor = open_file(path, flags, Mode::empty()).unwrap();
    check_file(&file(Name::Disk(0), source), descriptor, PEER).map_err(|refusal| refusal.to_string())
}

fn refused(path: &Path, flags: OFlags, source: Source<()>) -> String {
    handed(path, flags, source).unwrap_err()
}

#[test]
fn what_the_runner_could_not_read_or_write_is_not_handed_on() {
    let scene = Scene::new();
    let (shared, own) = (Source::Shared(()), Source::Own(()));
    assert!(handed(&scene.at("scratch"), OFlags::RDWR, own.clone()).is_ok());
    assert!(handed(&scene.at("secret"), OFlags::RDONLY, shared.clone()).is_ok(), "it was opened");
    // Anybody can open the path of a file that may not be read.
    insta::assert_snapshot!(refused(&scene.at("secret"), OFlags::PATH, shared.clone()), @"disk0: its descriptor is not open for reading");
    insta::assert_snapshot!(refused(&scene.at("scratch"), OFlags::WRONLY, own.clone()), @"disk0: its descriptor is not open for reading");
    insta::assert_snapshot!(refused(&scene.at("scratch"), OFlags::RDONLY, own), @"disk0: its descriptor is not open for reading and writing");
    insta::assert_snapshot!(refused(scene.0.path(), OFlags::RDONLY, shared.clone()), @"disk0: it is no file");
    insta::assert_snapshot!(refused(Path::new("/dev/zero"), OFlags::RDONLY, shared.clone()), @"disk0: it is no file");
    insta::assert_snapshot!(refused(Path::new("/proc/self/environ"), OFlags::RDONLY, shared.clone()), @"disk0: it is a file of the kernel's");
    insta::assert_snapshot!(refused(Path::new("/sys/kernel/notes"), OFlags::RDONLY, shared), @"disk0: it is a file of the kernel's");
}

#[test]
fn what_is_not_the_runners_alone_does_not_become_the_machines() {
    let scene = Scene::new();
    insta::assert_snapshot!(refused(&scene.at("secret"), OFlags::RDWR, Source::Own(())), @"disk0: it is no file that is the runner's alone");
    fs::hard_link(scene.at("scratch"), scene.at("other")).unwrap();
    insta::assert_snapshot!(refused(&scene.at("scratch"), OFlags::RDWR, Source::Own(())), @"disk0: it is no file that is the runner's alone");
}

#[test]
fn a_disk_gets_its_image_once_and_a_machine_is_saved_once() {
    let mut admission = Admission::new(&wanted());
    let put = |name, source| Request::Put(file(name, source));
    let image = put(Name::Disk(2), Source::Shared(()));
    assert_eq!(admission.admit(&image, 1), Ok(()));
    assert_eq!(admission.admit(&image, 0), Err(Refusal::Descriptors { given: 0, needed: 1 }));
    assert_eq!(admission.admit(&Request::Take, 1), Err(Refusal::Descriptors { given: 1, needed: 0 }));
    for name in [Name::Kernel, Name::Disk(0), Name::Disk(1), Name::Disk(9)] {
        assert_eq!(admission.admit(&put(name, Source::Shared(())), 1), Err(Refusal::NoEmpty(name)));
    }
    // A disk that cannot be written to becomes nobody's own, nor is it emptied.
    for source in [Source::Own(()), Source::Empty { writable: false }] {
        assert_eq!(admission.admit(&put(Name::Disk(2), source), 1), Err(Refusal::Kind(Name::Disk(2))));
    }
    admission.done(&image);
    assert_eq!(admission.admit(&image, 1), Err(Refusal::NoEmpty(Name::Disk(2))));

    assert_eq!(admission.admit(&Request::Take, 0), Ok(()));
    admission.done(&Request::Take);
    assert_eq!(admission.admit(&Request::Take, 0), Err(Refusal::NotSaved));
    assert_eq!(admission.admit(&Request::Connect(Socket::Api), 0), Ok(()));
}

proptest! {
    #[test]
    fn whatever_is_asked_for_is_answered(
        text in ".{0,40}",
        sizes in any::<(u64, u32, Option<u64>, u64)>(),
        disks in prop::collection::vec(any::<u8>(), 0..40),
        descriptors in 0_usize..200,
    ) {
        let files = disks.into_iter().map(|disk| file(Name::Disk(disk), Source::Own(()))).collect();
        let (memory, vcpus, bandwidth, max_file) = sizes;
        let wanted = Wanted { machine: text, memory, vcpus, bandwidth, max_file, files, ..wanted() };
        prop_assert!(check(&wanted, descriptors, "1.16.1").is_err(), "it has no kernel");
    }
}
