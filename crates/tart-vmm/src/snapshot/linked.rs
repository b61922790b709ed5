//! A snapshot as files with names, for monitors that inherit nothing.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tempfile::TempDir;

use super::{
    Snapshot,
    files::{MEMORY, STATE},
};
use crate::VmmError;

/// How the name of their directory begins; no machine has a name with a dot.
const PREFIX: &str = "snapshot.";

/// The files, made once and removed with the last owner of the snapshot.
#[derive(Debug, Clone, Default)]
pub(super) struct Linked(Arc<Mutex<Option<TempDir>>>);

impl Snapshot {
    /// Files of the memory and the state, which are the same for all who ask. Only root can change them, and nobody
    /// does; they can be linked elsewhere. They are below `dir` at first. Blocks.
    ///
    /// # Errors
    /// [`VmmError::System`].
    pub(crate) fn files(&self, dir: &Path) -> Result<[PathBuf; 2], VmmError> {
        let mut linked = self.linked.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed =
            |e: io::Error| VmmError::system(format!("make files of a saved machine in {}", dir.display()), e);
        let place = match linked.take() {
            Some(place) => place,
            None => {
                let place = tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir).map_err(failed)?;
                self.write(place.path())?;
                for name in [MEMORY, STATE] {
                    let protected = Permissions::from_mode(0o444);
                    fs::set_permissions(place.path().join(name), protected).map_err(failed)?;
                }
                place
            }
        };
        let paths = [MEMORY, STATE].map(|name| place.path().join(name));
        *linked = Some(place);
        Ok(paths)
    }
}
