//! Starting a monitor by the root helper.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use tart_root_helper::{Connection, HelperError, Open};

use super::{Begun, Wanted, handed};
use crate::{VmmError, process::Process};

/// Asks for a monitor. With its descriptors and its standard error go the files that it may open.
pub(super) async fn start(
    socket: &Path,
    mut wanted: Wanted,
    descriptors: &[Arc<OwnedFd>],
    stderr: &OwnedFd,
) -> Result<Process, VmmError> {
    let files = handed::open(&mut wanted).map_err(|e| VmmError::system("open the files of a machine", e))?;
    let inherited = descriptors.iter().map(AsFd::as_fd).chain([stderr.as_fd()]);
    let all: Vec<_> = inherited.chain(files.iter().map(AsFd::as_fd)).collect();
    let ask = async || -> Result<Process, HelperError> {
        let connection = Connection::open(socket, Open::Monitor).await?;
        let (begun, _) = connection.call::<Begun>(&wanted, &all).await?;
        Ok(Process::helped(begun.pid, connection))
    };
    ask().await.map_err(|source| VmmError::Helper { id: wanted.machine.clone(), source })
}
