//! The merge compared with what others make of the same layers: umoci unpacks the image, and tar2sqfs and rdsquashfs
//! take the archive through a squashfs.
#![cfg(feature = "slow-tests")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tart_oci::{Limits, archive, index, merge, parse_platform};
use tart_test_registry::{Compression, Files, ImageBuilder};

/// Files of the squashfs test.
const MANY: usize = 100_000;

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The layers of the image `one` of an OCI layout, as one archive.
fn merged(layout: &Path, to: &Path) {
    let platform = parse_platform("linux/amd64").unwrap();
    let image = archive::open(layout, &platform, layout).unwrap().unwrap().remove(0);
    let limits = Limits::default();
    let indexes =
        image.layers.iter().enumerate().map(|(at, layer)| index(layer, at, &limits).unwrap()).collect();
    let plan = merge(indexes, &limits).unwrap();
    plan.write(&image.layers, &mut fs::File::create(to).unwrap()).unwrap();
}

/// What can be compared of a tree: kind, mode, owner, content or target or device, links, attributes.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let mut entries: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            let content = if kind.is_dir() {
                left.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("device {}", metadata.rdev())
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                contents(&path)
            };
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let mut text = format!("{:o} {}:{} {content}", metadata.mode(), metadata.uid(), metadata.gid());
            if kind.is_file() {
                text += &format!(" {}", metadata.mtime());
                let attributes = run(Command::new("getfattr")
                    .args(["-dm", "-", "--absolute-names", "-e", "hex"])
                    .arg(&path));
                text.extend(attributes.lines().skip(1));
            }
            found.insert(relative.clone(), text);
            if kind.is_file() && metadata.nlink() > 1 {
                inodes.entry(metadata.ino()).or_insert_with(|| relative.clone());
                let first = inodes[&metadata.ino()].clone();
                found.get_mut(&relative).unwrap().push_str(&format!(" same as {}", first.display()));
            }
        }
    }
    found
}

/// Size and a digest of a file.
fn contents(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let mut hasher = tart_oci::Hasher::default();
    hasher.update(&bytes);
    format!("{} bytes {}", bytes.len(), hasher.finish())
}

fn special(kind: tar::EntryType, path: &str, device: (u32, u32)) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(path).unwrap();
    header.set_mode(0o620);
    header.set_uid(1);
    header.set_gid(5);
    header.set_device_major(device.0).unwrap();
    header.set_device_minor(device.1).unwrap();
    header
}

/// A capability as `setcap cap_net_raw=ep` writes it, with a line feed in it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn with_attribute(mut tar: Vec<u8>) -> Vec<u8> {
    // The end mark goes, and more entries follow.
    tar.truncate(tar.len() - 1024);
    let mut builder = tar::Builder::new(tar);
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.security.capability", CAPABILITY),
            ("SCHILY.xattr.user.note", b"a note".as_slice()),
        ])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o4755);
    header.set_size(4);
    header.set_mtime(1_700_000_000);
    builder.append_data(&mut header, "bin/ping", &b"ping"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn umoci_makes_the_same_of_an_image() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let base = Files::new()
        .directory("bin/", 0o755)
        .directory("etc/", 0o700)
        .directory("var/lib/", 0o1777)
        .owned_file("etc/motd", 0o640, (1000, 2_000_000_000), "lower")
        .file("etc/gone", 0o644, "gone")
        .file("var/lib/a", 0o600, "a")
        .file("var/lib/b", 0o600, "b")
        .hard_link("etc/linked", "etc/motd")
        .hard_link("var/linked", "etc/motd")
        .symlink("lib", "var/lib")
        .entry(special(tar::EntryType::Char, "null", (1, 3)), &[])
        .entry(special(tar::EntryType::Block, "disk", (7, 200)), &[])
        .entry(special(tar::EntryType::Fifo, "pipe", (0, 0)), &[])
        .tar();
    let top = Files::new()
        .file("lib/through-the-link", 0o644, "c")
        .whiteout("etc/gone")
        .file("etc/motd", 0o600, "upper")
        .directory("etc/", 0o750)
        .file("var/lib/.wh..wh..opq", 0o644, "")
        .hard_link("var/again", "var/linked")
        .symlink("bin/dangling", "/nowhere")
        .tar();
    ImageBuilder::new()
        .layer(with_attribute(base), Compression::Gzip)
        .layer(top, Compression::Gzip)
        .config("Env", json!([]))
        .write(&layout, "one")
        .unwrap();

    let bundle = directory.path().join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:one", layout.display()))
        .arg(&bundle));
    let archive = directory.path().join("merged.tar");
    merged(&layout, &archive);
    let ours = directory.path().join("ours");
    fs::create_dir(&ours).unwrap();
    let mut tar = Command::new("tar");
    run(tar
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
        .arg(&archive)
        .arg("-C")
        .arg(&ours));
    assert_eq!(listing(&ours), listing(&bundle.join("rootfs")));
}

#[test]
fn a_squashfs_has_everything_of_a_large_image() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let mut files = Files::new().directory("many/", 0o755);
    for number in 0..MANY {
        files = files.file(&format!("many/{}/{number}", number % 100), 0o644, number.to_string());
    }
    let special_files = Files::new()
        .owned_file("owned", 0o2755, (4_000_000_000, 3_000_000), "x")
        .file("huge", 0o644, vec![0; 64 << 20])
        .hard_link("huge-too", "huge")
        .file(&format!("{}/name", "deep/".repeat(18)), 0o644, "deep")
        .entry(special(tar::EntryType::Char, "null", (1, 3)), &[])
        .entry(special(tar::EntryType::Fifo, "pipe", (0, 0)), &[]);
    ImageBuilder::new()
        .layer(files.tar(), Compression::Gzip)
        .layer(with_attribute(special_files.tar()), Compression::Zstd)
        .write(&layout, "one")
        .unwrap();
    let archive = directory.path().join("merged.tar");
    merged(&layout, &archive);
    let disk = directory.path().join("disk.squashfs");
    let mut tar2sqfs = Command::new("tar2sqfs");
    tar2sqfs.args(["--quiet", "--no-skip", "--compressor", "lz4"]).arg(&disk);
    run(tar2sqfs.stdin(fs::File::open(&archive).unwrap()));

    let list = run(Command::new("rdsquashfs").arg("--describe").arg(&disk));
    assert_eq!(
        list.lines().filter(|line| line.starts_with("file /many/") || line.starts_with("file many/")).count(),
        MANY
    );
    let back = directory.path().join("back.tar");
    run(Command::new("sqfs2tar").arg(&disk).stdout(fs::File::create(&back).unwrap()));
    let (found, expected) = (extracted(&back, "found"), extracted(&archive, "expected"));
    assert_eq!(found, expected);
    assert!(found[Path::new("bin/ping")].contains("security.capability=0x0100000200200a"), "{found:#?}");
}

/// The files of an archive but for the many.
fn extracted(archive: &Path, name: &str) -> BTreeMap<PathBuf, String> {
    let root = archive.with_file_name(name);
    fs::create_dir(&root).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--exclude=many", "-xpf"]).arg(archive);
    run(tar.arg("-C").arg(&root));
    listing(&root)
}
