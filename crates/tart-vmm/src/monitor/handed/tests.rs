use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, chown},
};

use super::*;
use crate::confine::Allowed;

const PEER: Peer = Peer { uid: 65_534, gid: 65_534 };

/// A directory of the peer's with a file of its own, and one that is root's.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "only root can give files away");
        let scene = Self(tempfile::tempdir().unwrap());
        fs::create_dir(scene.at("mine")).unwrap();
        for (file, owner) in [("mine/scratch", PEER.uid), ("image", 0)] {
            fs::write(scene.at(file), file).unwrap();
            chown(scene.at(file), Some(owner), Some(owner)).unwrap();
        }
        chown(scene.at("mine"), Some(PEER.uid), None).unwrap();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn wanted(&self, read: &[&str], own: &[&str]) -> Wanted {
        let paths = |names: &[&str]| names.iter().map(|name| self.at(name)).collect::<Vec<_>>();
        Wanted {
            machine: "job-1".into(),
            program: "/bin/true".into(),
            args: Vec::new(),
            dir: self.at("mine"),
            numbers: Vec::new(),
            allowed: Allowed {
                read: paths(read),
                write: [paths(&["mine"]), paths(own)].concat(),
                installed: Vec::new(),
            },
            own: paths(own),
            kvm: false,
            memory: 0,
            vcpus: 1,
            bandwidth: None,
            max_file: 0,
        }
    }

    fn refusal(&self, wanted: &Wanted, files: Vec<OwnedFd>) -> String {
        let error = Handed::new(wanted, files, PEER).unwrap_err();
        error.replace(&self.0.path().display().to_string(), "DIR")
    }

    /// What is said of a machine whose files are all handed on.
    fn refused(&self, mut wanted: Wanted) -> String {
        let files = open(&mut wanted).unwrap();
        self.refusal(&wanted, files)
    }
}

#[test]
fn what_is_handed_on_is_found_by_its_paths_and_given_away() {
    let scene = Scene::new();
    let mut wanted = scene.wanted(&["image", "gone"], &["mine/scratch"]);
    let files = open(&mut wanted).unwrap();
    let handed = Handed::new(&wanted, files, PEER).unwrap();
    let named: Vec<_> = handed.places.iter().filter(|place| place.from != place.path).collect();
    let accesses: Vec<_> = named.iter().map(|place| place.access).collect();
    assert_eq!(accesses, [PlaceAccess::Read, PlaceAccess::Write, PlaceAccess::Write], "{named:?}");
    for place in named {
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&place.from), inode(&place.path));
    }
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&handed.dir().unwrap()), inode(&scene.at("mine")), "its disk is limited");
    handed.give(Identity { uid: 70_000, gid: 70_001 }).unwrap();
    let given = fs::metadata(scene.at("mine/scratch")).unwrap();
    assert_eq!((given.uid(), given.gid()), (70_000, 70_001));
}

#[test]
fn what_is_of_mounts_of_another_namespace_is_found_again() {
    let scene = Scene::new();
    let mut wanted = scene.wanted(&["image"], &["mine/scratch"]);
    // As a service of systemd opens them.
    let open_elsewhere = || {
        #[expect(unsafe_code, reason = "descriptors that threads share could be unshared by it")]
        // SAFETY: the flag is not about descriptors.
        unsafe {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS).unwrap();
        }
        open(&mut wanted).unwrap()
    };
    let files = std::thread::scope(|scope| scope.spawn(open_elsewhere).join().unwrap());
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let bound = |file: &OwnedFd| open_tree(CWD, path_of(file), copy);
    assert_eq!(bound(&files[0]).unwrap_err(), Errno::INVAL, "they are of this namespace");
    let handed = Handed::new(&wanted, files, PEER).unwrap();
    for (file, name) in handed.files.iter().zip(["mine", "image", "mine", "mine/scratch"]) {
        bound(file).unwrap();
        assert_eq!(fstat(file).unwrap().st_ino, fs::metadata(scene.at(name)).unwrap().ino(), "{name}");
    }
    handed.give(Identity { uid: 70_000, gid: 70_001 }).unwrap();
    assert_eq!(fs::metadata(scene.at("mine/scratch")).unwrap().uid(), 70_000);
}

#[test]
fn what_is_not_the_peers_is_not_given_away() {
    let scene = Scene::new();
    insta::assert_snapshot!(scene.refused(scene.wanted(&[], &["image"])), @"DIR/image is no file that is the runner's alone");
    insta::assert_snapshot!(scene.refused(scene.wanted(&[], &["mine"])), @"DIR/mine is no file that is the runner's alone");
    let unnamed = Wanted { own: vec![scene.at("image")], ..scene.wanted(&[], &["mine/scratch"]) };
    insta::assert_snapshot!(scene.refused(unnamed), @"DIR/image is no file that is the runner's alone");
    let elsewhere = Wanted { dir: scene.0.path().to_owned(), ..scene.wanted(&[], &[]) };
    insta::assert_snapshot!(scene.refused(elsewhere), @"DIR is no directory of the runner's user");
    fs::hard_link(scene.at("mine/scratch"), scene.at("mine/other")).unwrap();
    insta::assert_snapshot!(scene.refused(scene.wanted(&[], &["mine/scratch"])), @"DIR/mine/scratch is no file that is the runner's alone");
}

#[test]
fn what_does_not_fit_and_devices_are_refused() {
    let scene = Scene::new();
    let mut wanted = scene.wanted(&["image"], &["mine/scratch"]);
    let mut files = open(&mut wanted).unwrap();
    files.pop();
    insta::assert_snapshot!(scene.refusal(&wanted, files), @"paths and descriptors of files do not fit");
    insta::assert_snapshot!(scene.refusal(&wanted, Vec::new()), @"paths and descriptors of files do not fit");
    // The name of a file is no proof of what is behind the descriptor.
    let mut files = open(&mut wanted).unwrap();
    files[1] = File::open("/dev/null").unwrap().into();
    insta::assert_snapshot!(scene.refusal(&wanted, files), @"DIR/image is neither a file nor a directory");
    let mut files = open(&mut wanted).unwrap();
    files[3] = File::open(scene.at("image")).unwrap().into();
    insta::assert_snapshot!(scene.refusal(&wanted, files), @"DIR/mine/scratch is no file that is the runner's alone");
}
