//! Namespaces that the root helper makes for a runner without privileges.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tart_proto::time::scaled;
use tart_root_helper::{Connection, HelperError, Open, Received};
use tokio::time::timeout;

use super::{
    NAME,
    address::TAP,
    request::{Described, Given, MAX_ELEMENTS, Request},
    rules::{Element, Policy},
    space::{DnsSockets, Space},
    system::HostSide,
};
use crate::{NetError, NicLink};

/// How long the helper may take for a request. It runs a few programs for it, and has other guests.
const LIMIT: Duration = Duration::from_secs(60);

/// Most that is read of what rules have counted, in bytes.
const MAX_COUNTS: u64 = 64 << 20;

/// Where the helper is, and what for.
#[derive(Debug, Clone)]
pub(super) struct Helper {
    pub(super) socket: PathBuf,
    /// Monitors open tap devices by name.
    pub(super) named_taps: bool,
    /// Where the runner is, which is where the helper has to be.
    pub(super) side: HostSide,
}

impl Helper {
    /// What it says of the host.
    pub(super) async fn describe(&self) -> Result<Described, NetError> {
        let (given, _) = self.open().await?.call(&Request::Describe).await?;
        self.host_of(given)
    }

    /// Has it make a namespace.
    pub(super) async fn create(&self) -> Result<Space, NetError> {
        let line = self.open().await?;
        let (given, descriptors) = line.call(&Request::Create { named_tap: self.named_taps }).await?;
        let facts = self.host_of(given)?.facts;
        let Ok([udp, tcp, device]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return Err(unexpected());
        };
        let link = if self.named_taps {
            NicLink::Device { name: TAP.to_owned(), namespace: Arc::new(device) }
        } else {
            NicLink::Tap(Arc::new(device))
        };
        Ok(Space::helped(line, link, DnsSockets { udp: udp.into(), tcp: tcp.into() }, facts))
    }

    async fn open(&self) -> Result<Line, NetError> {
        let connection = Connection::open(&self.socket, Open::Network).await?;
        Ok(Line(tart_root_helper::Line::new(connection)))
    }

    /// The host of an answer, if it is that of this process: what guests do not reach is found out on one, and what
    /// Tart connects to for them is on the other.
    fn host_of(&self, given: Given) -> Result<Described, NetError> {
        let Given::Host(described) = given else { return Err(unexpected()) };
        let own = self.side.key().map_err(|e| NetError::system("identify the host's network", e))?;
        if described.namespace != own {
            let what =
                "be used with a root helper that is in another network namespace: start it in that of Tart";
            return Err(NetError::Unable { network: NAME, what: what.to_owned() });
        }
        Ok(described)
    }
}

/// One guest's namespace at the helper's. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Line(tart_root_helper::Line);

impl Line {
    pub(super) async fn rule(&self, policy: Policy) -> Result<(), NetError> {
        self.call(&Request::Rule(policy)).await.map(drop)
    }

    pub(super) async fn shape(&self, bytes: u64) -> Result<(), NetError> {
        self.call(&Request::Shape { bytes }).await.map(drop)
    }

    pub(super) async fn hold(&self, added: &[Element]) -> Result<(), NetError> {
        for some in added.chunks(MAX_ELEMENTS) {
            self.call(&Request::Hold(some.to_vec())).await?;
        }
        Ok(())
    }

    /// What `nft` says.
    pub(super) async fn list(&self) -> Result<String, NetError> {
        let (_, mut descriptors) = self.call(&Request::Counts).await?;
        let file = File::from(descriptors.pop().ok_or_else(unexpected)?);
        let mut text = String::new();
        let read = file.take(MAX_COUNTS).read_to_string(&mut text);
        read.map_err(|e| NetError::system("read what a guest's network counted", e))?;
        Ok(text)
    }

    pub(super) async fn remove(&self) -> Result<(), NetError> {
        self.call(&Request::Remove).await.map(drop)
    }

    async fn call(&self, request: &Request) -> Result<Received<Given>, NetError> {
        let Ok(received) = timeout(scaled(LIMIT), self.0.call(request, &[])).await else {
            let late = io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time");
            return Err(NetError::system("have the root helper work on a guest's network", late));
        };
        Ok(received?)
    }
}

fn unexpected() -> NetError {
    HelperError::Malformed("the answer is to another request".to_owned()).into()
}

#[cfg(test)]
mod tests;
