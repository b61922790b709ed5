//! Starting a monitor by the root helper.

use std::{os::fd::BorrowedFd, path::Path};

use tart_root_helper::{Connection, HelperError, Open};

use super::{Begun, Wanted};
use crate::{VmmError, process::Process};

/// Asks for a monitor; the last descriptor is its standard error.
pub(super) async fn start(
    socket: &Path,
    wanted: &Wanted,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Process, VmmError> {
    let ask = async || -> Result<Process, HelperError> {
        let connection = Connection::open(socket, Open::Monitor).await?;
        let (begun, _) = connection.call::<Begun>(wanted, descriptors).await?;
        Ok(Process::helped(begun.pid, connection))
    };
    ask().await.map_err(|source| VmmError::Helper { id: wanted.machine.clone(), source })
}
