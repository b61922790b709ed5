use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
};

use super::*;
use crate::confine::Allowed;

const PEER: Peer = Peer { uid: 65_534, gid: 65_534 };

/// A directory that the peer can get to, with one of its own and some that are root's.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "only root can take another user's rights");
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let scene = Self(dir);
        for (name, mode, owner) in [("mine", 0o755, PEER.uid), ("public", 0o755, 0), ("private", 0o700, 0)] {
            fs::create_dir(scene.at(name)).unwrap();
            for (file, mode) in [("open", 0o644), ("closed", 0o600)] {
                scene.file(&format!("{name}/{file}"), mode, owner);
            }
            fs::set_permissions(scene.at(name), Permissions::from_mode(mode)).unwrap();
            chown(scene.at(name), Some(owner), Some(owner)).unwrap();
        }
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, mode: u32, owner: u32) {
        fs::write(self.at(name), name).unwrap();
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
        chown(self.at(name), Some(owner), Some(owner)).unwrap();
    }

    fn wanted(&self, read: &[&str], write: &[&str], own: &[&str]) -> Wanted {
        let paths = |names: &[&str]| names.iter().map(|name| self.at(name)).collect();
        Wanted {
            machine: "job-1".into(),
            program: "/bin/true".into(),
            args: Vec::new(),
            dir: self.at("mine"),
            numbers: Vec::new(),
            allowed: Allowed { read: paths(read), write: paths(write), installed: Vec::new() },
            own: paths(own),
            kvm: false,
            memory: 0,
            vcpus: 1,
            max_file: 0,
        }
    }

    fn refusal(&self, wanted: &Wanted) -> String {
        let error = Opened::open(wanted, PEER).unwrap_err();
        error.replace(&self.0.path().display().to_string(), "DIR")
    }
}

#[test]
fn a_peer_hands_on_what_it_can_open_itself() {
    let scene = Scene::new();
    let wanted = scene.wanted(
        &["mine/closed", "public", "public/open", "gone"],
        &["mine", "mine/open"],
        &["mine/open"],
    );
    let opened = Opened::open(&wanted, PEER).unwrap();
    let named: Vec<_> = opened.places.iter().filter(|place| place.from != place.path).collect();
    assert_eq!(named.len(), 5, "what is not there is left out: {named:?}");
    for place in named {
        assert_eq!(fs::metadata(&place.from).unwrap().ino(), fs::metadata(&place.path).unwrap().ino());
    }
    opened.give(Identity { uid: 70_000, gid: 70_001 }).unwrap();
    let given = fs::metadata(scene.at("mine/open")).unwrap();
    assert_eq!((given.uid(), given.gid()), (70_000, 70_001));
}

#[test]
fn what_a_peer_cannot_open_itself_it_cannot_hand_on() {
    let scene = Scene::new();
    let read = |name: &str| scene.refusal(&scene.wanted(&[name], &[], &[]));
    insta::assert_snapshot!(read("public/closed"), @"cannot open DIR/public/closed as the runner's user: Permission denied (os error 13)");
    insta::assert_snapshot!(read("private/open"), @"cannot open DIR/private/open as the runner's user: Permission denied (os error 13)");
    insta::assert_snapshot!(read("private"), @"cannot open DIR/private as the runner's user: Permission denied (os error 13)");
    let write = |name: &str| scene.refusal(&scene.wanted(&[], &[name], &[]));
    insta::assert_snapshot!(write("public/open"), @"cannot open DIR/public/open as the runner's user: Permission denied (os error 13)");
    insta::assert_snapshot!(write("public"), @"cannot open DIR/public as the runner's user: permission denied");
    // A link leads where the peer could go itself, and no further.
    symlink(scene.at("private/open"), scene.at("mine/link")).unwrap();
    insta::assert_snapshot!(read("mine/link"), @"cannot open DIR/mine/link as the runner's user: Permission denied (os error 13)");
    let device = |path: &str| {
        let mut wanted = scene.wanted(&[], &[], &[]);
        wanted.allowed.write.push(path.into());
        scene.refusal(&wanted)
    };
    insta::assert_snapshot!(device("/dev/tty"), @"cannot open /dev/tty as the runner's user: it is neither a file nor a directory");
}

#[test]
fn only_files_of_the_peers_alone_become_the_machines() {
    let scene = Scene::new();
    let own = |name: &str| scene.refusal(&scene.wanted(&[], &[], &[name]));
    insta::assert_snapshot!(own("public/open"), @"DIR/public/open is no file that is the runner's alone");
    insta::assert_snapshot!(own("mine"), @"DIR/mine is no file that is the runner's alone");
    fs::hard_link(scene.at("mine/open"), scene.at("mine/other")).unwrap();
    insta::assert_snapshot!(own("mine/open"), @"DIR/mine/open is no file that is the runner's alone");
    insta::assert_snapshot!(own("gone"), @"DIR/gone is no file that is the runner's alone");
    let elsewhere = Wanted { dir: scene.at("public"), ..scene.wanted(&[], &[], &[]) };
    insta::assert_snapshot!(scene.refusal(&elsewhere), @"DIR/public is no directory of the runner's user");
}
