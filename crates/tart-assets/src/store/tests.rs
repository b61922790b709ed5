use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{
    elf::samples::elf,
    model::{AgentSource, KernelSource, Pruned},
};

struct Setup {
    dir: tempfile::TempDir,
    store: Store,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("assets")).unwrap();
    Setup { dir, store }
}

impl Setup {
    /// Another process's view of the same directory: nothing was checked yet.
    fn reopened(&self) -> Store {
        Store::open(self.store.root()).unwrap()
    }

    fn image(&self, name: &str, contents: &[u8]) -> Manifest {
        let files = vec![self.store.add_bytes("disk", contents).unwrap()];
        let name = name.to_owned();
        let manifest = Manifest { kind: Kind::Image, name, files, ..Manifest::default() };
        self.store.save(&entries::name_key(&manifest.name).unwrap(), &manifest).unwrap();
        manifest
    }

    fn object(&self, manifest: &Manifest) -> PathBuf {
        objects::path(self.store.root(), &manifest.files[0].digest)
    }
}

#[test]
fn files_are_named_after_their_content_and_read_only() {
    let setup = setup();
    let path = setup.object(&setup.image("registry/debian:12", b"abc"));
    assert!(path.ends_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
    assert_eq!(setup.reopened().image("registry/debian:12").unwrap().path, path);
}

#[test]
fn a_changed_file_is_not_handed_out() {
    let setup = setup();
    let path = setup.object(&setup.image("mine", b"abc"));
    assert!(setup.store.image("mine").is_ok());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"abd").unwrap();
    let damaged = format!("{} is damaged", path.display());
    for store in [&setup.store, &setup.reopened()] {
        assert!(store.image("mine").unwrap_err().to_string().starts_with(&damaged));
    }
    let verified = setup.store.verify(true).unwrap();
    assert_eq!(verified.damaged, [(Kind::Image, "mine".to_owned(), path.clone())]);
    assert!(!path.exists());
    assert!(setup.store.verify(false).unwrap().damaged.is_empty());
}

#[test]
fn a_missing_entry_is_built_once() {
    let setup = setup();
    let mut built = 0;
    for store in [&setup.store, &setup.reopened()] {
        let opened = store.entry(Kind::Initrd, "key", |store, _| {
            built += 1;
            let files = vec![store.add_bytes("initrd", b"cpio")?];
            Ok(Manifest { kind: Kind::Initrd, name: "6.1".into(), files, ..Manifest::default() })
        });
        assert_eq!(fs::read(opened.unwrap().path("initrd").unwrap()).unwrap(), b"cpio");
    }
    assert_eq!(built, 1);
}

#[test]
fn a_build_that_fails_leaves_nothing() {
    let setup = setup();
    let result = setup.store.entry(Kind::Initrd, "key", |store, _| {
        let _draft = store.draft()?;
        Err(AssetError::malformed("it", "no"))
    });
    assert!(result.is_err());
    assert_eq!(fs::read_dir(setup.store.temporary()).unwrap().count(), 0);
    assert!(setup.store.ls().unwrap().is_empty());
}

#[test]
fn builders_wait_for_each_other() {
    let setup = setup();
    let (store, other) = (&setup.store, setup.reopened());
    let lock = store.lock().unwrap();
    std::thread::scope(|scope| {
        let (started, has_started) = std::sync::mpsc::channel();
        let waiting = scope.spawn(move || {
            started.send(()).unwrap();
            other.lock().unwrap();
        });
        has_started.recv().unwrap();
        assert!(!waiting.is_finished());
        drop(lock);
        waiting.join().unwrap();
    });
}

#[test]
fn pruning_keeps_what_is_used_and_what_was_imported() {
    let setup = setup();
    let imported = setup.object(&setup.image("mine", b"abc"));
    let old = Manifest {
        kind: Kind::Kernel,
        name: "old".into(),
        files: vec![setup.store.add_bytes("kernel", b"elf").unwrap()],
        ..Manifest::default()
    };
    setup.store.save("old", &old).unwrap();
    let day = std::time::Duration::from_secs(86400);
    assert_eq!(setup.store.prune(day).unwrap(), Pruned::default());
    let pruned = setup.store.prune(std::time::Duration::ZERO).unwrap();
    assert_eq!(pruned, Pruned { entries: vec![(Kind::Kernel, "old".into())], files: 1, bytes: 3 });
    assert!(imported.exists());
    setup.store.remove_image("mine").unwrap();
    assert!(setup.store.remove_image("mine").is_err());
}

#[test]
fn a_description_cannot_lead_out_of_the_store() {
    let setup = setup();
    let mut manifest = setup.image("mine", b"abc");
    manifest.files[0].digest = format!("{:/<64}", "../../../etc/passwd");
    setup.store.save("named-mine", &manifest).unwrap();
    assert!(setup.store.image("mine").is_err());
    fs::write(setup.store.entry_path(Kind::Image, "named-mine"), b"{").unwrap();
    assert!(setup.store.image("mine").is_err());
}

#[test]
fn names_of_images_are_checked() {
    for name in ["", "../x", "-x", "/etc", "a b", "a\0"] {
        assert!(entries::name_key(name).is_err(), "{name:?}");
    }
    assert_ne!(entries::name_key("a/b").unwrap(), entries::name_key("a-b").unwrap());
    insta::assert_snapshot!(setup().store.image("debian:13").unwrap_err(), @"no image `debian:13`; there are: default");
}

#[test]
fn a_tarball_and_a_directory_become_images() {
    let setup = setup();
    let root = setup.dir.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/sh"), vec![7; 100_000]).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", &root).unwrap();
    let tarball = setup.dir.path().join("root.tar.zst");
    fs::write(&tarball, zstd::encode_all(&*tar.into_inner().unwrap(), 1).unwrap()).unwrap();
    for (name, source) in [("tarball", &tarball), ("directory", &root)] {
        let image = setup.store.import_rootfs(name, source).unwrap();
        assert_eq!(&fs::read(&image.path).unwrap()[..4], b"hsqs");
        let again = setup.store.import_rootfs("again", source).unwrap();
        assert_eq!(again.digest, image.digest, "the same input makes the same disk");
        for _ in 0..2 {
            assert_eq!(setup.store.image(source.to_str().unwrap()).unwrap().digest, image.digest);
        }
    }
    let junk = setup.dir.path().join("junk");
    fs::write(&junk, vec![1; 4096]).unwrap();
    let error = setup.store.import_rootfs("junk", &junk).unwrap_err().to_string();
    assert!(error.ends_with("junk cannot be used: no tar archive"), "{error}");
}

#[test]
fn a_kernel_and_an_agent_make_boot_assets() {
    let setup = setup();
    let (kernel, agent) = (setup.dir.path().join("vmlinux"), setup.dir.path().join("agent"));
    fs::write(&kernel, elf(".rodata", b"Linux version 6.1.9-fc (x)")).unwrap();
    fs::write(&agent, elf(".text", b"agent")).unwrap();
    let helper = Recipe::helper();
    let files = vec![setup.store.add_bytes("disk", b"hsqs").unwrap()];
    let manifest = Manifest { kind: Kind::Helper, name: "helper".into(), files, ..Manifest::default() };
    setup.store.save(&helper.key(), &manifest).unwrap();
    let source = KernelSource::File { kernel, modules: None };
    let request = BootRequest { kernel: source, agent: AgentSource::File(agent.clone()) };
    let assets = setup.store.boot_assets(&request).unwrap();
    assert_eq!(assets.release, "6.1.9-fc");
    assert_eq!(fs::read(&assets.helper).unwrap(), b"hsqs");
    assert_eq!(setup.reopened().boot_assets(&request).unwrap(), assets);
    fs::write(&agent, elf(".text", b"newer")).unwrap();
    let newer = setup.store.boot_assets(&request).unwrap();
    assert_ne!((&newer.initrd, &newer.digest), (&assets.initrd, &assets.digest));
}
