//! The root helper's side: jailed Firecrackers for a runner without privileges.
//!
//! The runner gets no more than Firecracker in a jail, as a user that no other process has, with files that the runner has
//! opened itself. All jails are in a directory that only root can change, so no path that the helper follows leads
//! anywhere else.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tart_root_helper::{Answer, Connection, HelperError, Peer};

use super::{
    admit::{self, Admission, Refusal},
    request::{Described, Given, Opening, Request, Wanted},
};
use crate::{
    Guard, Isolation, Limits, MachineDir, RunDir, VmmError,
    firecracker::{
        ends::Ends,
        find_programs,
        jail::{self, Furnishing, Jailer},
        kvm,
        place::{Here, Unconnected},
        setting::{Setting, Started, Subject, Surroundings, on_thread},
        version::Version,
    },
    monitor::{Begun, describe, end_of, tell},
    process::{Launcher, Namespace, Process},
    reap, run_dir,
};

/// Bytes of a machine's name that are in that of its directory.
const MAX_NAME: usize = 24;

/// With what a [`JailServer`] works.
#[derive(Debug, Clone)]
pub struct JailServerOptions {
    /// Firecracker; that of the search path without it.
    pub firecracker: Option<PathBuf>,
    /// Its jailer; the one that is installed with it without it.
    pub jailer: Option<PathBuf>,
    /// Where jails are made. Only root may be able to change this directory and those above.
    pub dir: PathBuf,
}

/// Tells whether a descriptor is a network namespace that a machine may be started in.
pub type IsLent = Box<dyn Fn(BorrowedFd<'_>) -> bool + Send + Sync>;

/// Starts Firecrackers for the runner at the other end of connections: [`serve_jail`].
pub struct JailServer {
    isolation: Arc<Isolation>,
    launcher: Arc<Launcher>,
    jailer: Arc<Jailer>,
    version: Version,
    is_lent: IsLent,
    /// Of machines so far, which gives their directories names.
    started: AtomicU64,
    /// The kernel does not kill jailed machines with the helper.
    _guard: Guard,
    run_dir: RunDir,
}

impl fmt::Debug for JailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, jailer, run_dir, .. } = self;
        f.debug_struct("JailServer")
            .field("version", version)
            .field("jailer", jailer)
            .field("run_dir", run_dir)
            .finish_non_exhaustive()
    }
}

impl JailServer {
    /// Prepares the directory, in which it removes what a helper that was killed has left.
    ///
    /// # Errors
    /// [`VmmError`] if a program is missing, if both are not of one release, or if there can be no jail in that directory.
    pub async fn start(
        options: JailServerOptions,
        isolation: Arc<Isolation>,
        is_lent: IsLent,
    ) -> Result<Self, VmmError> {
        if let Some(reason) = isolation.no_jails() {
            let reason = io::Error::new(io::ErrorKind::PermissionDenied, reason);
            return Err(VmmError::system("jail machines", reason));
        }
        let (version, jailer) = find_programs(options.firecracker.as_deref(), options.jailer).await?;
        let launcher =
            Launcher::start().map_err(|e| VmmError::system("start a thread for virtual machines", e))?;
        let dir = options.dir;
        let (run_dir, guard) = on_thread(move || prepare(&dir)).await??;
        Ok(Self {
            isolation,
            launcher,
            jailer: Arc::new(jailer),
            version,
            is_lent,
            started: AtomicU64::new(0),
            _guard: guard,
            run_dir,
        })
    }

    /// What it starts, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Jailer { program, exec_file, .. } = &*self.jailer;
        format!("Firecracker {} ({}), jailed by {}", self.version, exec_file.display(), program.display())
    }

    fn described(&self) -> Described {
        Described {
            firecracker: self.jailer.exec_file.clone(),
            jailer: self.jailer.program.clone(),
            version: self.version.to_string(),
            problem: kvm::problem(),
        }
    }

    /// A directory for a machine, which has a user and perhaps a control group then.
    fn place(&self, wanted: &Wanted) -> Result<MachineDir, VmmError> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = wanted.machine.get(..MAX_NAME).unwrap_or(&wanted.machine);
        let mut dir = self.run_dir.machine(&format!("{name}-{number}"))?;
        let bandwidth = wanted.bandwidth.map(|bytes| (bytes, dir.path().to_owned()));
        dir.confine(&self.isolation, &Limits { bandwidth, ..Limits::of(wanted.memory, 0, wanted.vcpus) })?;
        Ok(dir)
    }

    async fn begin(
        &self,
        wanted: Wanted,
        descriptors: Vec<OwnedFd>,
        peer: Peer,
    ) -> Result<(Held, Ends), String> {
        admit::check(&wanted, descriptors.len(), &self.version.to_string()).map_err(|e| e.to_string())?;
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| "a descriptor is missing".to_owned());
        let (console, said) = (next()?, next()?);
        let network = if wanted.has_namespace {
            let namespace = next()?;
            if !(self.is_lent)(namespace.as_fd()) {
                return Err(Refusal::Namespace.to_string());
            }
            Namespace::Of(Arc::new(namespace))
        } else {
            Namespace::Empty
        };
        let files = wanted.files.iter().map(|file| match file.file() {
            Some(()) => admit::check_file(file, next()?, peer).map_err(|e| e.to_string()),
            None => file.map(|()| Err("it has no file".to_owned())),
        });
        let files = files.collect::<Result<Vec<Furnishing<File>>, String>>()?;

        let dir = self.place(&wanted).map_err(|error| describe(&error))?;
        let (jailer, id, max_file) = (self.jailer.clone(), wanted.machine.clone(), wanted.max_file);
        let prepare = move || {
            let subject = Subject { id: &id, dir: dir.path(), max_file };
            let held = (dir.identity(), dir.cgroup());
            let setting = Setting::jailed(&jailer, subject, held, &files, File::try_clone);
            setting.map(|setting| (setting, dir))
        };
        let prepared = on_thread(prepare).await.and_then(|prepared| prepared);
        let (setting, dir) = prepared.map_err(|error| describe(&error))?;
        let subject = Subject { id: &wanted.machine, dir: dir.path(), max_file };
        let surroundings = Surroundings { console, said, network, listeners: wanted.listeners };
        let started = setting.launch(&self.launcher, subject, surroundings).await;
        let Started { process, place, ends } = started.map_err(|error| describe(&error))?;
        run_dir::record(dir.path(), process.pid())
            .map_err(|error| format!("cannot record the process of {}: {error}", wanted.machine))?;
        Ok((Held { process, place, _dir: dir }, ends))
    }
}

/// Makes the directory of jails.
fn prepare(dir: &Path) -> Result<(RunDir, Guard), VmmError> {
    let failed = |e: io::Error| VmmError::system(format!("make jails in {}", dir.display()), e);
    let make = || {
        DirBuilder::new().recursive(true).create(dir.parent().unwrap_or(dir))?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        dir.canonicalize()
    };
    let dir = make().map_err(failed)?;
    if let Some(reason) = exposed(&dir).map_err(failed)?.or_else(|| jail::refuse_mount(&dir)) {
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, reason)));
    }
    let reaped = reap(&dir)?;
    for problem in &reaped.problems {
        tracing::warn!(problem, "What an earlier root helper left cannot be removed");
    }
    let run_dir = RunDir::create(&dir)?;
    let guard = Guard::start(&run_dir)?;
    Ok((run_dir, guard))
}

/// Why a directory is not safe, whose path has no symbolic links: somebody else could put another in its place, or in that of
/// one above.
fn exposed(dir: &Path) -> io::Result<Option<String>> {
    for (level, path) in dir.ancestors().enumerate() {
        let about = fs::symlink_metadata(path)?;
        let others_write = about.mode() & 0o022 != 0;
        // In a directory like /tmp only the owner can do so.
        let is_sticky = about.mode() & 0o1000 != 0 && level > 0;
        if about.uid() != 0 || others_write && !is_sticky {
            let fix = "choose one by `--jails` that, as all above it, belongs to root and that nobody else writes to";
            return Ok(Some(format!("others than root can change {}: {fix}", path.display())));
        }
    }
    Ok(None)
}

/// A machine that runs. In this order: its process is killed before its jail, its control group and its directory are removed
/// and others may have its user.
#[derive(Debug)]
struct Held {
    process: Process,
    place: Here,
    _dir: MachineDir,
}

/// Serves one connection, which is about one machine: starts it, does what is asked about it, kills it when the connection
/// closes, tells its end, and removes what is left of it.
///
/// # Errors
/// If the connection breaks or says what is none of this.
pub async fn serve_jail(server: &JailServer, connection: &Connection, peer: Peer) -> Result<(), HelperError> {
    let (opening, descriptors) = connection.receive::<Opening>().await?;
    let wanted = match opening {
        Opening::Describe => return connection.send(&Answer::Ok(server.described()), &[]).await,
        Opening::Start(wanted) => wanted,
    };
    let (machine, admission) = (wanted.machine.clone(), Admission::new(&wanted));
    let (held, ends) = match server.begin(wanted, descriptors, peer).await {
        Ok(begun) => begun,
        Err(refusal) => {
            tracing::warn!(machine, refusal, "A machine was not started");
            return connection.send(&Answer::<Begun>::Err(refusal), &[]).await;
        }
    };
    let (line, far) = Connection::pair()?;
    let life = async {
        let given: Vec<_> = std::iter::once(far.as_fd()).chain(ends.descriptors()).collect();
        let begun = connection.send(&Answer::Ok(Begun { pid: held.process.pid() }), &given).await;
        drop(given);
        // The runner has the only ones now: what it closes is closed.
        drop((far, ends));
        if begun.is_err() {
            held.process.kill();
        }
        tell(connection, end_of(&held.process, connection).await).await
    };
    let (lived, ()) = tokio::join!(life, carry_out(line, &held, admission, peer));
    // Nobody else may have its user before it is gone.
    let _removed = on_thread(move || drop(held)).await;
    lived
}

/// Until the runner needs the jail no more.
async fn carry_out(line: Connection, held: &Held, mut admission: Admission, peer: Peer) {
    // Whatever breaks is the end of it, which the runner sees as the line is dropped.
    while let Ok((request, descriptors)) = line.receive::<Request>().await {
        let outcome = match admission.admit(&request, descriptors.len()) {
            Ok(()) => work(&held.place, &request, descriptors, peer).await,
            Err(refusal) => Err(refusal.to_string()),
        };
        let (answer, given) = match outcome {
            Ok((given, descriptors)) => {
                match given {
                    Given::Done => admission.done(&request),
                    Given::Astray(_) => held.process.kill(),
                    Given::Absent(_) => {}
                }
                (Answer::Ok(given), descriptors)
            }
            Err(refusal) => {
                tracing::debug!(refusal, "a request about a machine is not carried out");
                (Answer::Err(refusal), Vec::new())
            }
        };
        let given: Vec<_> = given.iter().map(OwnedFd::as_fd).collect();
        if line.send(&answer, &given).await.is_err() {
            return;
        }
    }
}

async fn work(
    place: &Here,
    request: &Request,
    descriptors: Vec<OwnedFd>,
    peer: Peer,
) -> Result<(Given, Vec<OwnedFd>), String> {
    match request {
        Request::Connect(socket) => match place.connect(*socket).await {
            Ok(stream) => {
                let stream = stream.into_std().map_err(|error| error.to_string())?;
                Ok((Given::Done, vec![stream.into()]))
            }
            Err(Unconnected::Absent(error)) => Ok((Given::Absent(error.to_string()), Vec::new())),
            Err(Unconnected::Astray(problem)) => Ok((Given::Astray(problem), Vec::new())),
        },
        Request::Put(file) => {
            let descriptor = descriptors.into_iter().next().ok_or("a descriptor is missing")?;
            let file = admit::check_file(file, descriptor, peer).map_err(|refusal| refusal.to_string())?;
            let put = place.put(file).await.map_err(|error| describe(&error))?;
            put.map_err(|error| error.to_string())?;
            Ok((Given::Done, Vec::new()))
        }
        Request::Take => {
            let files = place.take().map_err(|error| error.to_string())?;
            Ok((Given::Done, files.map(OwnedFd::from).into()))
        }
    }
}

#[cfg(test)]
mod tests;
