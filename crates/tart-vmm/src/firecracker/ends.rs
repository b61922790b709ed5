//! The host's ends of a machine's sockets and pipes, which are made in its directory before its program is started there:
//! the directory may be that of its guest afterwards.

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
};

use serde::{Deserialize, Serialize};

use super::{dir::Dir, pages, reports, vsock};
use crate::Identity;

/// Which of them a machine needs, beside those of its log and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listeners {
    /// Its agent reports that it is up.
    pub(super) agent: bool,
    /// It is given its memory page by page.
    pub(super) memory: bool,
}

/// The ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) log: OwnedFd,
    pub(super) metrics: OwnedFd,
    pub(super) agent: Option<UnixListener>,
    pub(super) memory: Option<UnixListener>,
}

impl Ends {
    /// Makes them in a machine's directory, those of a jailed program for its user.
    pub(super) fn make(dir: &Dir, user: Option<Identity>, which: Listeners) -> io::Result<Self> {
        let listen = |wanted: bool, name: &str| wanted.then(|| dir.listen(name, user)).transpose();
        Ok(Self {
            agent: listen(which.agent, &vsock::reports())?,
            memory: listen(which.memory, pages::SOCKET)?,
            log: reports::make_pipe(dir.dir(), reports::LOG)?,
            metrics: reports::make_pipe(dir.dir(), reports::METRICS)?,
        })
    }

    /// All, to be handed on.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let listeners = [&self.agent, &self.memory].into_iter().flatten().map(|listener| listener.as_fd());
        [self.log.as_fd(), self.metrics.as_fd()].into_iter().chain(listeners).collect()
    }

    /// Those that were handed on; `None` if they are not those that were asked for.
    pub(super) fn handed(descriptors: Vec<OwnedFd>, which: Listeners) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let (log, metrics) = (descriptors.next()?, descriptors.next()?);
        let mut listener = |wanted: bool| match wanted {
            true => Some(Some(UnixListener::from(descriptors.next()?))),
            false => Some(None),
        };
        let (agent, memory) = (listener(which.agent)?, listener(which.memory)?);
        descriptors.next().is_none().then_some(Self { log, metrics, agent, memory })
    }
}
