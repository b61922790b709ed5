//! Jailed Firecrackers by the root helper, for a runner that is not root.

mod admit;
mod request;
mod serve;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tart_proto::time::scaled;
use tart_root_helper::{Connection, HelperError, Line, Open, Received};
use tokio::{net::UnixStream, time::timeout};

use super::{
    FirecrackerOptions, OWN_MEMORY,
    ends::Ends,
    jail::{Furnishing, Source},
    place::{Socket, Unconnected},
    setting::{Started, on_thread},
    starter::Order,
    version::Version,
};
use crate::{
    MachineSpec, VmmError,
    monitor::Begun,
    process::{Namespace, Process},
};
use request::{Described, Given, Opening, Request, Wanted};
pub use serve::{IsLent, JailServer, JailServerOptions, serve_jail};

/// How long the helper may take to say what it has, or to connect.
const LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to put a file into a jail, which it may have to copy.
const COPY_LIMIT: Duration = Duration::from_secs(600);

/// What a root helper jails machines with.
#[derive(Debug, Clone)]
pub struct HelperPrograms {
    /// Firecracker.
    pub firecracker: PathBuf,
    /// Its version, which is that of the jailer.
    pub version: Version,
    /// The jailer.
    pub jailer: PathBuf,
    /// Why no guest can run, if there is a reason: [`crate::kvm_problem`], as the helper sees it.
    pub problem: Option<String>,
}

impl HelperPrograms {
    /// Asks the helper behind a socket.
    ///
    /// # Errors
    /// [`VmmError::NoHelper`] if it cannot be asked, or has none.
    pub async fn ask(socket: &Path) -> Result<Self, VmmError> {
        let unusable = |source| VmmError::NoHelper { source };
        let ask = async {
            let connection = Connection::open(socket, Open::Jail).await?;
            connection.call::<Described>(&Opening::Describe, &[]).await
        };
        let (described, _) = timed(LIMIT, ask).await.map_err(unusable)?;
        let Described { firecracker, jailer, version, problem } = described;
        let unknown = || unusable(HelperError::Malformed(format!("`{version}` is no version")));
        let version = Version::parse(&version).ok_or_else(unknown)?;
        Ok(Self { firecracker, version, jailer, problem })
    }

    /// Refuses options that name others.
    fn check(&self, options: &FirecrackerOptions) -> Result<(), VmmError> {
        for (named, has, option) in [
            (&options.binary, &self.firecracker, "--firecracker"),
            (&options.jailer, &self.jailer, "--jailer"),
        ] {
            if let Some(named) = named
                && is_other(named, has)
            {
                let reason = format!(
                    "the root helper has {}: start `tart root-helper` with `{option} {}`, or leave the path out of the \
                     configuration",
                    has.display(),
                    named.display()
                );
                return Err(VmmError::Program { program: named.clone(), reason });
            }
        }
        Ok(())
    }
}

/// A helper that has Firecracker and its jailer.
#[derive(Debug)]
pub(super) struct Helper {
    socket: PathBuf,
    pub(super) programs: HelperPrograms,
}

impl Helper {
    /// Asks a helper what it has, which has to be what the options name, if they do.
    pub(super) async fn find(socket: PathBuf, options: &FirecrackerOptions) -> Result<Self, VmmError> {
        let programs = HelperPrograms::ask(&socket).await?;
        programs.check(options)?;
        Ok(Self { socket, programs })
    }

    /// Has a machine started. With the request go the files that its jail is given.
    pub(super) async fn start(&self, order: Order<'_>) -> Result<Started<Remote>, VmmError> {
        let MachineSpec { id, memory_bytes, vcpus, .. } = order.spec;
        let failed = |source| VmmError::Helper { id: id.clone(), source };
        let files = order.view.files;
        let wanted = Wanted {
            machine: id.clone(),
            version: self.programs.version.to_string(),
            files: files.iter().map(unnamed).collect(),
            listeners: order.surroundings.listeners,
            has_namespace: matches!(order.surroundings.network, Namespace::Of(_)),
            memory: memory_bytes.saturating_add(OWN_MEMORY),
            vcpus: *vcpus,
            bandwidth: order.bandwidth,
            max_file: order.max_file,
        };
        let open_all = move || files.iter().filter_map(open).collect::<Result<Vec<_>, VmmError>>();
        let opened = on_thread(open_all).await??;
        let surroundings = &order.surroundings;
        let namespace = match &surroundings.network {
            Namespace::Of(namespace) => Some(namespace.as_fd()),
            Namespace::Runner | Namespace::Empty => None,
        };
        let descriptors: Vec<BorrowedFd<'_>> = [surroundings.console.as_fd(), surroundings.said.as_fd()]
            .into_iter()
            .chain(namespace)
            .chain(opened.iter().map(File::as_fd))
            .collect();
        let listeners = wanted.listeners;
        let ask = async {
            let connection = Connection::open(&self.socket, Open::Jail).await?;
            let (begun, given) = connection.call::<Begun>(&Opening::Start(wanted), &descriptors).await?;
            // From here on, to be dropped is the machine's end.
            let process = Process::helped(begun.pid, connection);
            let mut given = given.into_iter();
            let line = given.next().ok_or_else(unexpected)?;
            let place = Remote(Line::new(Connection::handed(line)?));
            let ends = Ends::handed(given.collect(), listeners).ok_or_else(unexpected)?;
            Ok(Started { process, place, ends })
        };
        timed(COPY_LIMIT, ask).await.map_err(failed)
    }
}

/// The place of a machine that the helper has started, which is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Remote(Line);

impl Remote {
    pub(super) async fn connect(&self, socket: Socket) -> Result<UnixStream, Unconnected> {
        let (given, descriptors) =
            self.call(LIMIT, &Request::Connect(socket), &[]).await.map_err(io_error)?;
        match (given, <[OwnedFd; 1]>::try_from(descriptors)) {
            (Given::Done, Ok([stream])) => {
                let stream = StdUnixStream::from(stream);
                stream.set_nonblocking(true)?;
                Ok(UnixStream::from_std(stream)?)
            }
            (Given::Absent(problem), _) => Err(io::Error::new(io::ErrorKind::NotFound, problem).into()),
            (Given::Astray(problem), _) => Err(Unconnected::Astray(problem)),
            (Given::Done, Err(_)) => Err(io_error(unexpected()).into()),
        }
    }

    pub(super) async fn put(&self, file: &Furnishing) -> io::Result<()> {
        let request = Request::Put(unnamed(file));
        let file = file.clone();
        let opened = on_thread(move || open(&file).transpose()).await.map_err(io::Error::other)?;
        let opened = opened.map_err(io::Error::other)?;
        let descriptors: Vec<_> = opened.iter().map(File::as_fd).collect();
        match self.call(COPY_LIMIT, &request, &descriptors).await.map_err(io_error)? {
            (Given::Done, _) => Ok(()),
            _ => Err(io_error(unexpected())),
        }
    }

    pub(super) async fn take(&self) -> io::Result<[File; 2]> {
        let (given, descriptors) = self.call(LIMIT, &Request::Take, &[]).await.map_err(io_error)?;
        match (given, <[OwnedFd; 2]>::try_from(descriptors)) {
            (Given::Done, Ok(files)) => Ok(files.map(File::from)),
            _ => Err(io_error(unexpected())),
        }
    }

    async fn call(
        &self,
        limit: Duration,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Received<Given>, HelperError> {
        timed(limit, self.0.call(request, descriptors)).await
    }
}

async fn timed<T>(
    limit: Duration,
    ask: impl Future<Output = Result<T, HelperError>>,
) -> Result<T, HelperError> {
    let late = |_| HelperError::Broken(io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time"));
    timeout(scaled(limit), ask).await.map_err(late)?
}

/// A file as it is named to the helper, which is given what it is but no path.
fn unnamed(file: &Furnishing) -> Furnishing<()> {
    let Ok(unnamed) = file.map(|_| Ok::<_, std::convert::Infallible>(()));
    unnamed
}

/// Opens what is handed on: for writing what becomes the machine's.
fn open(file: &Furnishing) -> Option<Result<File, VmmError>> {
    let path = file.file()?;
    let opened = File::options().read(true).write(matches!(file.source, Source::Own(_))).open(path);
    Some(opened.map_err(|e| VmmError::system(format!("open {}", path.display()), e)))
}

/// Whether a program is another than that with this path. One by its name alone may be any.
fn is_other(named: &Path, has: &Path) -> bool {
    let is_path = named.components().count() > 1;
    is_path && named != has && named.canonicalize().ok().as_deref() != Some(has)
}

fn unexpected() -> HelperError {
    HelperError::Malformed("the answer is to another request".to_owned())
}

fn io_error(error: HelperError) -> io::Error {
    io::Error::other(error)
}
