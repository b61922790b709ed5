//! A snapshot in files with names, for monitors that inherit nothing.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Contents, Snapshot,
    files::{MEMORY, STATE},
};
use crate::VmmError;

/// How the name of their directory begins; no machine has a name with a dot.
const PREFIX: &str = "snapshot.";

impl Snapshot {
    /// Files of the memory and the state, which can be linked elsewhere. The first call moves the snapshot there, into a
    /// directory below `dir` that is gone with its last owner; others get the same. Only root can write to them, and nobody
    /// does. Blocks.
    ///
    /// # Errors
    /// [`VmmError::System`].
    pub(crate) fn files(&self, dir: &Path) -> Result<[PathBuf; 2], VmmError> {
        let mut contents = self.contents();
        let failed =
            |e: io::Error| VmmError::system(format!("make files of a saved machine in {}", dir.display()), e);
        if contents.dir.is_none() {
            let place = tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir).map_err(failed)?;
            self.write_from(&contents, place.path())?;
            let open = |name: &str| {
                let file = File::open(place.path().join(name))?;
                file.set_permissions(Permissions::from_mode(0o444))?;
                Ok(Arc::new(file.into()))
            };
            let (memory, state) = (open(MEMORY).map_err(failed)?, open(STATE).map_err(failed)?);
            *contents = Contents { memory, state, dir: Some(place) };
        }
        let place = contents.dir.as_ref().map(|place| place.path().to_owned()).unwrap_or_default();
        Ok([MEMORY, STATE].map(|name| place.join(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::snapshot::Unsealed;

    #[test]
    fn a_snapshot_moves_to_files_once_and_stays_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let unsealed = Unsealed::create(8 << 20).unwrap();
        rustix::io::pwrite(&unsealed.memory, b"page", 5 << 20).unwrap();
        rustix::io::pwrite(&unsealed.state, b"state", 0).unwrap();
        let snapshot = unsealed.seal().unwrap();
        let other = snapshot.clone();
        let [memory, state] = snapshot.files(dir.path()).unwrap();
        assert_eq!(other.files(Path::new("/gone")).unwrap(), [memory.clone(), state.clone()]);
        assert_eq!(fs::read(&state).unwrap(), b"state");
        let about = fs::metadata(&memory).unwrap();
        assert_eq!((about.len(), about.permissions().mode() & 0o777), (8 << 20, 0o444));
        let mut page = [0; 4];
        rustix::io::pread(&*other.memory(), &mut page, 5 << 20).unwrap();
        assert_eq!(&page, b"page");
        assert!(rustix::io::pwrite(&*other.memory(), b"evil", 0).is_err(), "it is open for reading only");
        drop((snapshot, other));
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
