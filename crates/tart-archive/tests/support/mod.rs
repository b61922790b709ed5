//! Files to archive.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tart_archive::*;

/// Files, directories and a link.
pub(crate) fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("out/sub/empty")).unwrap();
    fs::write(root.join("out/a.txt"), "hello\n".repeat(1000)).unwrap();
    fs::write(root.join("out/sub/run me.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("out/sub/run me.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("out/sub/\u{fc}ml\u{e4}ut -x"), "odd").unwrap();
    fs::write(root.join("out/empty.bin"), "").unwrap();
    symlink("a.txt", root.join("out/link")).unwrap();
    fs::write(root.join("other"), "not chosen").unwrap();
    directory
}

/// A selection of paths.
pub(crate) fn select(root: &Path, paths: &[&str], exclude: &[&str]) -> Selection {
    let exclude = exclude.iter().map(|text| Pattern::new(text).unwrap()).collect();
    let mut selection = Selection::new(root, exclude, Limits::default());
    for path in paths {
        selection.add(path).unwrap();
    }
    selection
}

/// Whether two trees are the same.
pub(crate) fn same(one: &Path, other: &Path) -> bool {
    Command::new("diff").arg("-r").arg("--no-dereference").arg(one).arg(other).status().unwrap().success()
}
