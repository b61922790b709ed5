//! The helper as the guest runs it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tart_archive::{Format, Purpose, Request, Statement};

fn helper(verb: &str, directory: &Path, input: &[u8]) -> Output {
    let mut helper = Command::new(env!("CARGO_BIN_EXE_tart-helper"))
        .arg(verb)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    helper.stdin.take().unwrap().write_all(input).unwrap();
    helper.wait_with_output().unwrap()
}

#[test]
fn untracked_files_go_through_a_pipe_into_another_directory() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let init = Command::new("git").args(["init", "-q"]).current_dir(from.path()).status().unwrap();
    assert!(init.success());
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/new\nline"), "content").unwrap();
    let root = from.path().to_str().unwrap().to_owned();
    let request = Request { root, untracked: true, ..Request::default() };
    let archive = helper("archive", from.path(), &request.encode());
    assert_eq!(String::from_utf8_lossy(&archive.stderr), "untracked: found 1 files\n");
    assert!(archive.status.success());
    assert!(helper("extract", to.path(), &archive.stdout).status.success());
    assert_eq!(fs::read(to.path().join("d/new\nline")).unwrap(), b"content");
}

#[test]
fn nothing_that_matches_is_told_from_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap().to_owned();
    let request = Request { root, paths: vec!["none".to_owned()], ..Request::default() };
    let output = helper("archive", directory.path(), &request.encode());
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let output = helper("extract", directory.path(), b"no zip");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("ERROR: the archive cannot be read"));
}

#[test]
fn a_cache_that_is_what_it_was_is_not_archived_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("deps")).unwrap();
    fs::write(from.path().join("deps/x"), "content").unwrap();
    let request = |root: &Path, known: &str| Request {
        root: root.to_str().unwrap().to_owned(),
        paths: vec!["deps/".to_owned()],
        purpose: Purpose::Cache,
        known: known.to_owned(),
        ..Request::default()
    };
    for format in [Format::Zip, Format::TarZstd] {
        let made = helper("archive", from.path(), &Request { format, ..request(from.path(), "") }.encode());
        let extracted = helper("extract-cache", to.path(), &made.stdout);
        let known = String::from_utf8(extracted.stdout).unwrap();
        let again = || helper("archive", to.path(), &request(to.path(), known.trim_end()).encode());
        let same = again();
        assert_eq!((same.status.code(), same.stdout.len()), (Some(3), 0), "{same:?}");
        assert!(String::from_utf8_lossy(&same.stderr).ends_with("Archive is up to date!\n"), "{same:?}");
        fs::write(to.path().join("deps/y"), "new").unwrap();
        assert_eq!(again().status.code(), Some(0));
        fs::remove_file(to.path().join("deps/y")).unwrap();
    }
}

#[test]
fn a_zip_says_what_is_in_it() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("out")).unwrap();
    fs::write(from.path().join("out/x"), "content").unwrap();
    fs::write(from.path().join("all-metadata.json"), "forged").unwrap();
    let request = Request {
        root: from.path().to_str().unwrap().to_owned(),
        paths: vec!["*".to_owned()],
        statement: Statement { name: "all-metadata.json".to_owned(), text: "{\"_type\":\"t\"}".to_owned() },
        ..Request::default()
    };
    let made = helper("archive", from.path(), &request.encode());
    assert!(helper("extract", to.path(), &made.stdout).status.success());
    assert_eq!(fs::read(to.path().join("out/x")).unwrap(), b"content");
    insta::assert_snapshot!(fs::read_to_string(to.path().join("all-metadata.json")).unwrap(), @r#"
    {"subject":[
    {"name":"out/x","digest":{"sha256":"ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"}}],
    "_type":"t"}
    "#);
}
