//! Disks of root file systems: from a recipe, a tarball or a directory.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::Path,
    process::Stdio,
};

pub(crate) use crate::debootstrap::Recipe;
use crate::{
    debootstrap::Mode,
    decompress,
    error::{AssetError, IoContext, Result},
    program::{MMDEBSTRAP, TAR},
    squashfs,
    store::{Manifest, Store, StoredFile},
};

/// Role of a disk's file.
const DISK: &str = "disk";

/// Makes a disk from packages of the distribution.
pub(crate) fn build(store: &Store, recipe: &Recipe) -> Result<Manifest> {
    store.progress().step(&format!("building {}", recipe.text));
    let mode = Mode::here().ok_or(AssetError::MissingProgram { program: "newuidmap", package: "uidmap" })?;
    let mut command = MMDEBSTRAP.command(recipe.arguments(mode));
    command.stdout(Stdio::piped());
    let mut running = MMDEBSTRAP.start(store, command)?;
    let Some(tar) = running.child.stdout.take() else {
        return Err(AssetError::malformed("mmdebstrap", "it has no standard output"));
    };
    let disk = squashfs::from_tar(store, DISK, tar, None);
    // If both failed, the first in the pipe is the reason.
    running.finish()?;
    Ok(Manifest {
        kind: recipe.kind,
        name: recipe.name.to_owned(),
        files: vec![disk?],
        details: vec![("mode".into(), format!("{mode:?}").to_lowercase())],
        ..Manifest::default()
    })
}

/// Makes a disk of the user's root file system.
pub(crate) fn import(store: &Store, source: &Path) -> Result<StoredFile> {
    store.progress().step(&format!("importing {}", source.display()));
    let metadata = fs::metadata(source).at("look at", source)?;
    if metadata.is_dir() {
        return import_directory(store, source);
    }
    let file = File::open(source).at("open", source)?;
    let mut reader = decompress::reader(file).at("read", source)?;
    let start = squashfs::peek(&mut reader, 512)?;
    if !squashfs::looks_like_tar(&start) {
        return Err(AssetError::malformed(source.display().to_string(), "no tar archive"));
    }
    squashfs::from_tar(store, DISK, start.chain(reader), None)
}

fn import_directory(store: &Store, source: &Path) -> Result<StoredFile> {
    if !source.join("usr").is_dir() && !source.join("bin").exists() {
        let what = source.display().to_string();
        return Err(AssetError::malformed(what, "no root file system: neither `bin` nor `usr` is in it"));
    }
    let mut args =
        vec!["--create", "--sort=name", "--numeric-owner", "--one-file-system", "--xattrs", "--acls"];
    if !rustix::process::geteuid().is_root() {
        // The files of a user's own directory are root's in the guest.
        args.extend(["--owner=0", "--group=0"]);
    }
    let mut command = TAR.command(args);
    command.arg("--directory").arg(source).arg(".").stdout(Stdio::piped());
    let mut running = TAR.start(store, command)?;
    let Some(tar) = running.child.stdout.take() else {
        return Err(AssetError::malformed("tar", "it has no standard output"));
    };
    let disk = squashfs::from_tar(store, DISK, BufReader::new(tar), None);
    running.finish()?;
    disk
}
