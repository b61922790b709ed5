//! Where a machine's Firecracker works, and what is done there while it runs: by this process, or by the root helper.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::{
    dir::Dir,
    helped::Remote,
    jail::{self, Furnishing},
    requests,
    setting::on_thread,
};
use crate::{Identity, VmmError};

/// A socket that Firecracker listens at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Socket {
    /// Its API.
    Api,
    /// Its guest's vsock.
    Agent,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconnected {
    /// Nobody listens there, or not yet.
    #[error(transparent)]
    Absent(#[from] io::Error),
    /// Firecracker is not where it was put, and must not run a guest.
    #[error("{0}")]
    Astray(String),
}

impl From<Unconnected> for io::Error {
    fn from(error: Unconnected) -> Self {
        match error {
            Unconnected::Absent(error) => error,
            Unconnected::Astray(problem) => Self::other(problem),
        }
    }
}

/// The place of a machine.
#[derive(Debug)]
pub(super) enum Place {
    /// On this host's file system, as this process sees it.
    Here(Here),
    /// With the root helper.
    Helped(Remote),
}

impl Place {
    /// Connects to a socket of the machine's, and to no other of the host.
    pub(super) async fn connect(&self, socket: Socket) -> Result<UnixStream, Unconnected> {
        match self {
            Self::Here(here) => here.connect(socket).await,
            Self::Helped(remote) => remote.connect(socket).await,
        }
    }

    /// Puts an image under a disk; its path as Firecracker sees it.
    pub(super) async fn put_disk(
        &self,
        position: usize,
        read_only: bool,
        image: &Path,
    ) -> Result<String, VmmError> {
        let failed = |e: io::Error| VmmError::system(format!("put {} into a jail", image.display()), e);
        let file = Furnishing::disk(position, image, read_only);
        match self {
            Self::Here(Here { jail: None, .. }) => image.to_str().map(str::to_owned).ok_or_else(|| {
                let reason = io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8");
                VmmError::system(format!("tell Firecracker of {}", image.display()), reason)
            }),
            Self::Here(here) => {
                let name = file.name.to_string();
                let opened = on_thread(move || file.map(jail::open)).await?.map_err(failed)?;
                here.put(opened).await?.map_err(failed)?;
                Ok(name)
            }
            Self::Helped(remote) => {
                remote.put(&file).await.map_err(failed)?;
                Ok(file.name.to_string())
            }
        }
    }

    /// The files of the memory and the state that Firecracker has saved, once.
    pub(super) async fn take(&self) -> io::Result<[File; 2]> {
        match self {
            Self::Here(here) => here.take(),
            Self::Helped(remote) => remote.take().await,
        }
    }
}

/// A directory in which this process has started a Firecracker.
#[derive(Debug)]
pub(super) struct Here {
    dir: Dir,
    api_socket: &'static str,
    jail: Option<Jail>,
    pid: u32,
    /// It is known to be where it was put.
    settled: AtomicBool,
}

impl Here {
    pub(super) fn new(dir: Dir, api_socket: &'static str, jail: Option<Jail>, pid: u32) -> Self {
        Self { dir, api_socket, jail, pid, settled: AtomicBool::new(false) }
    }

    /// Connects to a socket. Whoever gets a connection to the API gets it of a process that is where it was put.
    pub(super) async fn connect(&self, socket: Socket) -> Result<UnixStream, Unconnected> {
        let name = match socket {
            Socket::Api => self.api_socket,
            Socket::Agent => requests::VSOCK,
        };
        let stream = self.dir.connect(name).await?;
        if socket == Socket::Api && !self.settled.load(Ordering::Relaxed) {
            // The jailer has done its work, since Firecracker listens; nothing of the guest's has run.
            if let Some(problem) = self.jail.as_ref().and_then(|jail| jail.problem(self.pid)) {
                return Err(Unconnected::Astray(problem));
            }
            self.settled.store(true, Ordering::Relaxed);
        }
        Ok(stream)
    }

    /// Puts a file into the jail, if there is one.
    pub(super) async fn put(&self, file: Furnishing<File>) -> Result<io::Result<()>, VmmError> {
        let Some(Jail { identity, .. }) = self.jail else { return Ok(Ok(())) };
        match self.dir.try_clone() {
            Ok(dir) => on_thread(move || jail::put(&dir, identity, &file)).await,
            Err(error) => Ok(Err(error)),
        }
    }

    /// What was saved.
    pub(super) fn take(&self) -> io::Result<[File; 2]> {
        // The memory's file is as large as the memory, and nobody needs its name any more.
        let [memory, state] = [requests::SAVED_MEMORY, requests::SAVED_STATE].map(|name| self.dir.take(name));
        Ok([memory?, state?])
    }
}

/// A machine's jail; removed with all in it when dropped.
#[derive(Debug)]
pub(super) struct Jail {
    pub(super) identity: Identity,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) top: PathBuf,
}

impl Jail {
    /// Why a process cannot go on: the jailer says nothing if there is no control group where it was told.
    fn problem(&self, pid: u32) -> Option<String> {
        let cgroup = self.cgroup.as_ref()?;
        let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        if members.lines().any(|member| member.parse() == Ok(pid)) {
            return None;
        }
        Some(format!("is not in its control group {}", cgroup.display()))
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.top)
            && error.kind() != io::ErrorKind::NotFound
        {
            // It is in the machine's directory, which is removed too.
            tracing::debug!(path = %self.top.display(), %error, "cannot remove a jail yet");
        }
    }
}
