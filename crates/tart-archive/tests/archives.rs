//! Archives of real files, read back by the programs that people use.

mod support;

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{same, select, tree};
use tart_archive::*;

fn zip_of(selection: &Selection, level: Level) -> Vec<u8> {
    let mut archive = Vec::new();
    write_zip(selection, &Packing { level, ..Packing::default() }, &mut archive).unwrap();
    archive
}

fn shown(selection: &Selection) -> Vec<String> {
    selection.paths().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

#[test]
fn directories_patterns_and_exclusions_choose_files() {
    let files = tree();
    let mut selection = select(files.path(), &[], &["**/*.sh"]);
    assert_eq!(selection.add("out").unwrap(), 7);
    assert_eq!(selection.excluded(), 1);
    assert_eq!(selection.add("missing").unwrap(), 0);
    assert_eq!(shown(&select(files.path(), &["out/**/*.txt", "o*r"], &[])), ["other", "out/a.txt"]);
    assert_eq!(shown(&select(files.path(), &["**/empty*"], &[])), ["out/empty.bin", "out/sub/empty"]);
    let relative = |path: &str| selection.relative(path);
    assert_eq!(relative("./out//x/../a"), Some("out/a".to_owned()));
    assert_eq!(relative("../x"), None);
    assert_eq!(relative("/etc"), None);
    assert_eq!(relative(files.path().join("out").to_str().unwrap()), Some("out".to_owned()));
}

#[test]
fn more_files_than_the_limit_are_an_error() {
    let files = tree();
    let mut selection = Selection::new(files.path(), Vec::new(), Limits { paths: 3, text: 1000 });
    assert!(matches!(selection.add("out"), Err(ArchiveError::TooMany { .. })));
}

#[test]
fn unzip_and_python_read_our_zips() {
    let files = tree();
    for level in [Level::Fastest, Level::Default, Level::Slowest] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        fs::write(&path, zip_of(&select(files.path(), &["out"], &[]), level)).unwrap();
        let mut unzip = Command::new("unzip");
        // It writes names as this says.
        unzip.env("LC_ALL", "C.UTF-8").arg("-q").arg(&path).arg("-d").arg(directory.path());
        assert!(unzip.status().unwrap().success());
        assert!(same(&files.path().join("out"), &directory.path().join("out")));
        let made = fs::metadata(directory.path().join("out/sub/run me.sh")).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o755);
        assert_eq!(made.mtime(), fs::metadata(files.path().join("out/sub/run me.sh")).unwrap().mtime());
        let python = Command::new("python3").args(["-m", "zipfile", "-t"]).arg(&path).output().unwrap();
        assert!(python.status.success(), "{python:?}");
    }
}

#[test]
fn what_is_archived_comes_back() {
    let files = tree();
    let archive = zip_of(&select(files.path(), &["out"], &[]), Level::Default);
    let target = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let done = extract_zip(Cursor::new(&archive), target.path()).unwrap();
        assert_eq!(done.entries, 8);
    }
    assert!(same(&files.path().join("out"), &target.path().join("out")));
    assert_eq!(
        fs::metadata(target.path().join("out/sub/run me.sh")).unwrap().permissions().mode() & 0o777,
        0o755
    );
}

#[test]
fn info_zips_archives_are_extracted() {
    let files = tree();
    let archive =
        Command::new("zip").args(["-qry", "-", "out"]).current_dir(files.path()).output().unwrap().stdout;
    let target = tempfile::tempdir().unwrap();
    extract_zip(Cursor::new(archive), target.path()).unwrap();
    assert_eq!(fs::read_link(target.path().join("out/link")).unwrap(), Path::new("a.txt"));
}

/// A zip made by python, which refuses no name. `entries`: name, whether it is a link, content.
fn hostile(entries: &[(&str, bool, &str)]) -> Vec<u8> {
    let program = "import io, sys, zipfile\nargs = sys.argv[1:]\n\
        b = io.BytesIO()\nz = zipfile.ZipFile(b, 'w')\n\
        for name, link, text in zip(args[::3], args[1::3], args[2::3]):\n\
        \x20   i = zipfile.ZipInfo(name); i.create_system = 3\n\
        \x20   i.external_attr = ((0o120777 if link == '1' else 0o100644) << 16)\n\
        \x20   z.writestr(i, text)\nz.close()\nsys.stdout.buffer.write(b.getvalue())";
    let mut python = Command::new("python3");
    python.args(["-c", program]);
    for (name, link, text) in entries {
        python.args([*name, if *link { "1" } else { "0" }, text]);
    }
    let output = python.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn no_archive_leads_out_of_its_directory() {
    let outer = tempfile::tempdir().unwrap();
    let target = outer.path().join("build");
    fs::create_dir(&target).unwrap();
    symlink("..", target.join("up")).unwrap();
    symlink(outer.path(), target.join("absolute")).unwrap();
    for name in ["../escaped", "a/../../escaped", "/escaped", "up/escaped", "absolute/escaped"] {
        let result = extract_zip(Cursor::new(hostile(&[(name, false, "x")])), &target);
        assert!(matches!(result, Err(ArchiveError::Outside { .. })), "{name}: {result:?}");
    }
    // A link of the archive is made last, and a file that goes through it is written to a real directory.
    let archive = hostile(&[("door", true, ".."), ("door/escaped", false, "x")]);
    assert!(extract_zip(Cursor::new(archive), &target).is_err());
    // A file replaces a link instead of writing through it.
    fs::write(outer.path().join("victim"), "whole").unwrap();
    symlink("../victim", target.join("file")).unwrap();
    extract_zip(Cursor::new(hostile(&[("file", false, "x")])), &target).unwrap();
    assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"whole");
    assert!(!outer.path().join("escaped").exists());
}

#[test]
fn damaged_archives_are_errors() {
    let target = tempfile::tempdir().unwrap();
    assert!(extract_zip(Cursor::new(b"no zip at all"), target.path()).is_err());
    let files = tree();
    let archive = zip_of(&select(files.path(), &["out"], &[]), Level::Default);
    for position in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[position] ^= 0x55;
        let target = tempfile::tempdir().unwrap();
        // An error or not, but no panic.
        drop(extract_zip(Cursor::new(damaged), target.path()));
    }
}

#[test]
fn gunzip_reads_all_members_and_their_headers_have_the_paths() {
    let files = tree();
    let mut archive = Vec::new();
    write_gzip(&select(files.path(), &["out/a.txt", "other"], &[]), Level::Default, &mut archive).unwrap();
    let mut gunzip = Command::new("gunzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gunzip.stdin.take().unwrap().write_all(&archive).unwrap();
    let text = gunzip.wait_with_output().unwrap().stdout;
    assert_eq!(text, format!("not chosen{}", "hello\n".repeat(1000)).as_bytes());
    let decoder = flate2::read::GzDecoder::new(archive.as_slice());
    let header = decoder.header().unwrap();
    assert_eq!(header.filename(), Some(b"other".as_slice()));
    assert_eq!(header.comment(), Some(b"other".as_slice()));
    let result = write_gzip(&select(files.path(), &["out"], &[]), Level::Default, &mut Vec::new());
    assert!(matches!(result, Err(ArchiveError::NotRegular { .. })));
}

#[test]
fn raw_is_the_one_file_as_it_is() {
    let files = tree();
    let mut raw = Vec::new();
    write_raw(&select(files.path(), &["other"], &[]), &mut raw).unwrap();
    assert_eq!(raw, b"not chosen");
    let result = write_raw(&select(files.path(), &["out"], &[]), &mut raw);
    assert!(matches!(result, Err(ArchiveError::NotOne { count: 8 })));
}

#[test]
fn many_and_large_files_get_zip64() {
    let files = tempfile::tempdir().unwrap();
    for number in 0..66_000 {
        fs::create_dir(files.path().join(number.to_string())).unwrap();
    }
    // Sparse, and beyond 32 bits.
    File::create(files.path().join("large")).unwrap().set_len((4 << 30) + 5).unwrap();
    fs::write(files.path().join("z"), "behind it").unwrap();
    let path = files.path().with_extension("zip");
    let out = File::create(&path).unwrap();
    let packing = Packing { level: Level::Fast, ..Packing::default() };
    write_zip(&select(files.path(), &["*"], &[]), &packing, out).unwrap();
    let listed = Command::new("unzip").args(["-Z", "-h", "-t"]).arg(&path).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("66002"), "{listed}");
    let z = Command::new("unzip").arg("-p").arg(&path).arg("z").output().unwrap();
    assert_eq!(z.stdout, b"behind it");
    let tested = Command::new("unzip").arg("-tq").arg(&path).arg("large").output().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(tested.status.success(), "{tested:?}");
}
