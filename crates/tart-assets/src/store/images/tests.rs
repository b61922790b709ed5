use std::process::Command;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn digest(text: &str) -> String {
    format!("sha256:{}", crate::store::digest(text.as_bytes()))
}

/// An image with one file of this text.
fn add(store: &Store, text: &str) -> PulledImage {
    let image = NewImage { manifest: digest(text), id: digest("config"), ..NewImage::default() };
    let write = |out: &mut dyn Write| -> Result<()> {
        let mut builder = tar::Builder::new(out);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "etc/motd", text.as_bytes()).unwrap();
        builder.finish().unwrap();
        Ok(())
    };
    store.add_pulled(image, write).unwrap()
}

fn add_layer(store: &Store, text: &str) -> String {
    let digest = digest(text);
    fs::write(store.partial_layer(&digest).unwrap(), text).unwrap();
    store.add_layer(&digest).unwrap();
    digest
}

/// Makes an entry look as if it was used that many hours ago.
fn age(store: &Store, kind: Kind, digest: &str, hours: u64) {
    let file = File::open(store.entry_path(kind, digits(digest).unwrap())).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
}

fn names_in(store: &Store, directory: &str) -> usize {
    fs::read_dir(store.root().join(directory)).unwrap().count()
}

#[test]
fn an_image_is_found_by_its_manifest_and_its_names() {
    let (_directory, store) = store();
    assert_eq!(store.pulled(&digest("a")).unwrap(), None);
    let added = add(&store, "a");
    assert_eq!(store.pulled(&digest("a")).unwrap().as_ref(), Some(&added));
    let name = ImageName {
        name: "registry/a:1".to_owned(),
        platform: "linux/amd64".to_owned(),
        manifest: digest("a"),
    };
    store.set_reference(&name).unwrap();
    assert_eq!(store.reference("registry/a:1", "linux/amd64").unwrap(), Some(digest("a")));
    assert_eq!(store.reference("registry/a:1", "linux/arm64").unwrap(), None);
    assert_eq!(store.references().unwrap(), [name]);
}

#[test]
fn a_disk_that_fails_halfway_leaves_nothing() {
    let (_directory, store) = store();
    let image = NewImage { manifest: digest("a"), ..NewImage::default() };
    let failed = store.add_pulled(image, |out| {
        out.write_all(&[0; 100]).unwrap();
        Err(AssetError::malformed("layer 2", "it ends too early"))
    });
    insta::assert_snapshot!(failed.unwrap_err(), @"layer 2 cannot be used: it ends too early");
    assert_eq!(
        (names_in(&store, "objects"), names_in(&store, "tmp"), names_in(&store, "entries/pulled")),
        (0, 0, 0)
    );
}

#[test]
fn a_digest_cannot_lead_out_of_the_store() {
    let (_directory, store) = store();
    for hostile in ["sha256:../../etc/passwd", "sha512:00", "", "sha256:ABCDEF"] {
        assert!(store.partial_layer(hostile).is_err(), "{hostile}");
        assert!(store.pulled(hostile).is_err(), "{hostile}");
    }
}

#[test]
fn layers_go_first_then_what_was_not_used_for_longest() {
    let (_directory, store) = store();
    let (old, new) = (add(&store, "old"), add(&store, "new"));
    let layer = add_layer(&store, "layer");
    age(&store, Kind::Pulled, &old.manifest, 3);
    age(&store, Kind::Pulled, &new.manifest, 2);
    let all = store.pulled_bytes().unwrap();

    let first = store.evict(all - 1, &[]).unwrap();
    assert_eq!((first.images.len(), first.layers), (0, 1));
    assert_eq!(store.layer(&layer).unwrap(), None);

    let second = store.evict(new.size, &[]).unwrap();
    assert_eq!(second.images, std::slice::from_ref(&old.manifest));
    assert!(!old.disk.path.exists() && new.disk.path.exists());

    assert_eq!(store.evict(0, std::slice::from_ref(&new.manifest)).unwrap().images, [""; 0]);
    assert!(new.disk.path.exists(), "what the caller needs stays");
}

#[test]
fn an_image_in_use_stays() {
    let (_directory, store) = store();
    let image = add(&store, "a");
    let lease = store.lease(&image.disk).unwrap().unwrap();
    assert!(store.is_leased(&image.disk));
    assert_eq!(store.evict(0, &[]).unwrap().images, [""; 0]);
    assert!(!store.remove_pulled(&image.manifest).unwrap());
    age(&store, Kind::Pulled, &image.manifest, 1000);
    store.prune(Duration::ZERO).unwrap();
    assert!(image.disk.path.exists());

    drop(lease);
    assert_eq!(store.evict(0, &[]).unwrap().images, std::slice::from_ref(&image.manifest));
    assert!(store.lease(&image.disk).unwrap().is_none(), "a removed image cannot be used");
}

#[test]
fn an_image_that_another_process_uses_stays() {
    let (_directory, store) = store();
    let image = add(&store, "a");
    let mut user = Command::new("flock")
        .args(["--shared", &image.disk.path.display().to_string(), "sh", "-c", "echo have it; read end"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 7];
    io::Read::read_exact(user.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert!(!store.remove_pulled(&image.manifest).unwrap());
    user.kill().unwrap();
    drop(user.stdin.take());
    user.wait().unwrap();
    // Its child sees the end of its input.
    io::Read::read_to_end(user.stdout.as_mut().unwrap(), &mut Vec::new()).unwrap();
    assert!(store.remove_pulled(&image.manifest).unwrap());
}

#[test]
fn images_with_the_same_files_share_a_disk_until_both_are_gone() {
    let (_directory, store) = store();
    let one = add(&store, "a");
    let same = NewImage { manifest: digest("other"), id: digest("config"), ..NewImage::default() };
    let bytes = fs::read(&one.disk.path).unwrap();
    let mut manifest = store.read_entry(Kind::Pulled, digits(&one.manifest).unwrap()).unwrap().unwrap();
    manifest.name = same.id;
    store.save(digits(&same.manifest).unwrap(), &manifest).unwrap();

    assert!(store.remove_pulled(&one.manifest).unwrap());
    let other = store.pulled(&same.manifest).unwrap().unwrap();
    assert_eq!(fs::read(&other.disk.path).unwrap(), bytes);
    assert!(store.remove_pulled(&same.manifest).unwrap());
    assert!(!other.disk.path.exists());
}

#[test]
fn one_process_fetches_a_digest_at_a_time() {
    let (_directory, store) = store();
    let held = store.lock_digest(&digest("a"), || panic!("nobody else has it")).unwrap();
    let (waiting, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| store.lock_digest(&digest("a"), || waiting.send(()).unwrap()).unwrap());
        waits.recv().unwrap();
        assert!(!other.is_finished());
        drop(held);
        other.join().unwrap();
    });
    store.lock_digest(&digest("b"), || panic!("nobody else has it")).unwrap();
}
