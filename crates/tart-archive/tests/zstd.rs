//! The forms with zstd, read back by the programs that people use.

mod support;

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{same, select, tree};
use tart_archive::*;

fn tar_of(selection: &Selection, level: Level) -> Vec<u8> {
    let mut archive = Vec::new();
    write_tar_zstd(selection, level, &mut archive).unwrap();
    archive
}

/// A tar in zstd of GNU tar, made in a directory.
fn gnu_tar(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").arg("-cf-").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    zstd::encode_all(output.stdout.as_slice(), 3).unwrap()
}

fn never(_: &mut dyn Read) -> Result<File, ArchiveError> {
    panic!("a tar is taken apart as it comes")
}

#[test]
fn gnu_tar_reads_our_tars() {
    let files = tree();
    let long = "long/".to_owned() + &"n".repeat(200);
    fs::create_dir(files.path().join("long")).unwrap();
    fs::write(files.path().join(&long), "deep").unwrap();
    for level in [Level::Fastest, Level::Default, Level::Slowest] {
        let target = tempfile::tempdir().unwrap();
        let archive = tar_of(&select(files.path(), &["out", "long"], &[]), level);
        let mut tar = Command::new("tar")
            .args(["-x", "-f-", "-C"])
            .arg(target.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut plain = zstd::Decoder::new(archive.as_slice()).unwrap();
        std::io::copy(&mut plain, &mut tar.stdin.take().unwrap()).unwrap();
        assert!(tar.wait().unwrap().success());
        assert!(same(&files.path().join("out"), &target.path().join("out")));
        assert!(same(&files.path().join("long"), &target.path().join("long")));
    }
}

#[test]
fn tars_come_back_with_permissions_and_times() {
    let files = tree();
    let made = tar_of(&select(files.path(), &["out"], &[]), Level::Default);
    for archive in [made, gnu_tar(files.path(), &["out"])] {
        let target = tempfile::tempdir().unwrap();
        let done = extract(Cursor::new(archive), target.path(), never).unwrap();
        assert_eq!(done.entries, 8);
        assert!(same(&files.path().join("out"), &target.path().join("out")));
        let of = |root: &Path| fs::metadata(root.join("out/sub/run me.sh")).unwrap();
        assert_eq!(of(target.path()).permissions().mode() & 0o777, 0o755);
        assert_eq!(of(target.path()).mtime(), of(files.path()).mtime());
    }
}

#[test]
fn zips_with_zstd_come_back_and_are_marked_for_old_programs() {
    let files = tree();
    for level in [Level::Fastest, Level::Default] {
        let mut archive = Vec::new();
        let packing = Packing { method: Method::Zstd, level, ..Packing::default() };
        write_zip(&select(files.path(), &["out"], &[]), &packing, &mut archive).unwrap();
        let target = tempfile::tempdir().unwrap();
        extract_zip(Cursor::new(&archive), target.path()).unwrap();
        assert!(same(&files.path().join("out"), &target.path().join("out")));
        let path = target.path().join("a.zip");
        fs::write(&path, &archive).unwrap();
        let listed = Command::new("zipinfo").arg("-v").arg(&path).arg("out/a.txt").output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("6.3"), "{listed}");
    }
}

#[test]
fn no_tar_leads_out_of_its_directory() {
    let outer = tempfile::tempdir().unwrap();
    let target = outer.path().join("build");
    fs::create_dir(&target).unwrap();
    fs::write(outer.path().join("x"), "x").unwrap();
    for transform in ["s,^,../,", "s,^,/,", "s,^,a/../../,"] {
        let archive = gnu_tar(outer.path(), &["-P", &format!("--transform={transform}"), "x"]);
        let result = extract(Cursor::new(archive), &target, never);
        assert!(matches!(result, Err(ArchiveError::Outside { .. })), "{transform}: {result:?}");
    }
    fs::hard_link(outer.path().join("x"), outer.path().join("y")).unwrap();
    let result = extract(Cursor::new(gnu_tar(outer.path(), &["x", "y"])), &target, never);
    assert!(result.unwrap_err().to_string().ends_with("y is a hard link"));
}

#[test]
fn damaged_tars_are_errors() {
    let files = tree();
    let archive = tar_of(&select(files.path(), &["out"], &[]), Level::Default);
    for position in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[position] ^= 0x55;
        let target = tempfile::tempdir().unwrap();
        // An error or not, but no panic.
        drop(extract_tar_zstd(damaged.as_slice(), target.path()));
    }
    let target = tempfile::tempdir().unwrap();
    assert!(extract_tar_zstd(&archive[..archive.len() / 2], target.path()).is_err());
    let gzip = extract(Cursor::new([0x1f, 0x8b, 8, 0]), target.path(), never);
    assert!(gzip.unwrap_err().to_string().contains("gzip"));
}

#[test]
fn zeros_become_holes_again() {
    let files = tempfile::tempdir().unwrap();
    let content = [vec![b'a'; 5], vec![0; 10 << 20], vec![b'b'; 5], vec![0; 3 << 20]].concat();
    fs::write(files.path().join("x"), &content).unwrap();
    let target = tempfile::tempdir().unwrap();
    let archive = tar_of(&select(files.path(), &["x"], &[]), Level::Default);
    let done = extract(Cursor::new(archive), target.path(), never).unwrap();
    assert_eq!(done.bytes, content.len() as u64);
    assert!(fs::read(target.path().join("x")).unwrap() == content);
    let blocks = fs::metadata(target.path().join("x")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
}
