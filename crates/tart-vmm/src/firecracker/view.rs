//! A machine as its Firecracker sees it: under which paths it finds what it is given.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
};

use super::{
    jail::{self, Furnishing, Name},
    pages,
    requests::{Backend, Saved},
};
use crate::{MachineSpec, Origin, VmmError};

/// What is seen, and what has to be given for that.
#[derive(Debug)]
pub(super) struct View {
    /// The machine with paths as Firecracker sees them.
    pub(super) spec: MachineSpec,
    /// What it goes on from.
    pub(super) saved: Option<Saved>,
    /// Open files that it inherits, without a jail.
    pub(super) inherited: Vec<Arc<OwnedFd>>,
    /// The files of its jail, if it has one.
    pub(super) files: Vec<Furnishing>,
}

impl View {
    /// That of a machine without a jail. `serves` says that saved memory is served page by page.
    pub(super) fn free(spec: &MachineSpec, serves: bool) -> Result<Self, VmmError> {
        let mut inherited = Vec::new();
        let saved = match &spec.origin {
            Origin::Boot | Origin::Template => None,
            Origin::Snapshot(snapshot) => {
                let state = snapshot.state().map_err(|e| VmmError::system("open a saved machine", e))?;
                let mut give = |file: Arc<OwnedFd>| {
                    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                    inherited.push(file);
                    path
                };
                let memory = if serves {
                    Backend::Uffd(pages::SOCKET.to_owned())
                } else {
                    Backend::File(give(snapshot.memory()))
                };
                Some(Saved { memory, state: give(Arc::new(state)) })
            }
        };
        Ok(Self { spec: spec.clone(), saved, inherited, files: Vec::new() })
    }

    /// That of a jailed machine. Blocks.
    pub(super) fn jailed(spec: &MachineSpec, serves: bool) -> Result<Self, VmmError> {
        let (saved, files) = match &spec.origin {
            Origin::Boot | Origin::Template => (None, None),
            Origin::Snapshot(snapshot) => {
                // Beside the machine's directory, since they outlive the machine.
                let [memory, state] = snapshot.files(spec.run_dir.parent().unwrap_or(&spec.run_dir))?;
                let mut files = vec![Furnishing::shared(Name::State, &state)];
                let memory = if serves {
                    Backend::Uffd(pages::SOCKET.to_owned())
                } else {
                    files.insert(0, Furnishing::shared(Name::Memory, &memory));
                    Backend::File(Name::Memory.to_string())
                };
                (Some(Saved { memory, state: Name::State.to_string() }), Some(files))
            }
        };
        let (spec, files) = jail::furnish(spec, files);
        Ok(Self { spec, saved, inherited: Vec::new(), files })
    }

    /// Whether its memory is served page by page.
    pub(super) fn is_served(&self) -> bool {
        matches!(self.saved, Some(Saved { memory: Backend::Uffd(_), .. }))
    }
}
