//! The root helper's side: monitors for a runner without privileges.
//!
//! The runner names what it wants; it gets no more than a process of the machine's own user, in a root directory of files
//! that the runner has opened itself, running one of the programs that the helper was told of.

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use tart_root_helper::{Answer, Connection, HelperError, Peer};

use super::{Begun, Ended, Wanted, handed::Handed, here};
use crate::{
    Isolation, Limits, VmmError,
    isolation::Confinement,
    process::{Launch, Launcher, Process},
    run_dir::remove_cgroup,
    spec,
};

/// Most arguments, and the longest, in bytes.
const MAX_ARGUMENTS: usize = 512;
const MAX_ARGUMENT: usize = 16 << 10;

/// Most paths.
const MAX_PATHS: usize = 128;

/// Most bytes in a second.
const MAX_BANDWIDTH: u64 = 1 << 44;

/// Numbers that a monitor may inherit descriptors under.
const NUMBERS: std::ops::RangeInclusive<i32> = 3..=1000;

/// What monitors are started with.
#[derive(Debug)]
pub struct MonitorServer {
    isolation: Arc<Isolation>,
    launcher: Arc<Launcher>,
    programs: Vec<PathBuf>,
}

impl MonitorServer {
    /// Starts these programs, absolute paths, and no others.
    ///
    /// # Errors
    /// [`VmmError::System`] if machines cannot have users of their own here.
    pub fn new(isolation: Arc<Isolation>, programs: Vec<PathBuf>) -> Result<Self, VmmError> {
        if !isolation.has_users() {
            let reason = io::Error::new(io::ErrorKind::PermissionDenied, isolation.to_string());
            return Err(VmmError::system("give machines users of their own", reason));
        }
        let launcher =
            Launcher::start().map_err(|e| VmmError::system("start a thread for virtual machines", e))?;
        Ok(Self { isolation, launcher, programs })
    }

    async fn start(
        &self,
        wanted: Wanted,
        descriptors: Vec<OwnedFd>,
        peer: Peer,
    ) -> Result<(Process, Held), String> {
        check(&wanted, descriptors.len(), &self.programs)?;
        let mut descriptors = descriptors;
        let files = descriptors.split_off(wanted.numbers.len() + 1);
        let handed = Handed::new(&wanted, files, peer)?;
        let limits = limits(&wanted, handed.dir());
        let confinement = self.isolation.confine(&wanted.machine, &limits);
        let held = Held(confinement.map_err(|error| describe(&error))?);
        let identity = held.0.identity().ok_or("machines have no users of their own here")?;
        let cgroup = held.0.cgroup.clone();
        let prepare = move || -> Result<(Launch, Handed), String> {
            let stderr = descriptors.pop().ok_or("its standard error is missing")?;
            let descriptors = descriptors.into_iter().map(Arc::new).collect();
            let failed = |error: io::Error| format!("cannot prepare {}: {error}", wanted.machine);
            handed.give(identity).map_err(failed)?;
            let places = handed.places.clone();
            let launch =
                here::prepared(&wanted, descriptors, stderr, places, Some(identity), cgroup.as_deref());
            Ok((launch.map_err(failed)?, handed))
        };
        let prepared = tokio::task::spawn_blocking(prepare).await;
        let (launch, handed) = prepared.map_err(|_| "the preparation was interrupted".to_owned())??;
        let program = launch.program.clone();
        let launched = self.launcher.launch(launch).await;
        drop(handed);
        let process = launched.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        Ok((process, held))
    }
}

/// What holds a monitor; its cgroup is removed in the end.
#[derive(Debug)]
struct Held(Confinement);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.0.cgroup
            && let Err(error) = remove_cgroup(cgroup)
        {
            tracing::warn!(path = %cgroup.display(), %error, "cannot remove a control group");
        }
    }
}

/// Serves one connection: starts the monitor that it asks for, kills it when the connection closes, and tells its end.
///
/// # Errors
/// If the connection breaks or says what is none of this.
pub async fn serve_monitor(
    server: &MonitorServer,
    connection: &Connection,
    peer: Peer,
) -> Result<(), HelperError> {
    let (wanted, descriptors) = connection.receive::<Wanted>().await?;
    let machine = wanted.machine.clone();
    let (process, held) = match server.start(wanted, descriptors, peer).await {
        Ok(started) => started,
        Err(refusal) => {
            tracing::warn!(machine, refusal, "A monitor was not started");
            return connection.send(&Answer::<Begun>::Err(refusal), &[]).await;
        }
    };
    connection.send(&Answer::Ok(Begun { pid: process.pid() }), &[]).await?;
    let ended = end_of(&process, connection).await;
    // Nobody else may have its user before it is gone.
    drop(held);
    tell(connection, ended).await
}

/// The end of a process, which is killed when the connection closes.
pub(crate) async fn end_of(process: &Process, connection: &Connection) -> Ended {
    let ended = process.reaped();
    tokio::pin!(ended);
    let status = tokio::select! {
        status = &mut ended => status,
        // Whatever it says: there is nothing more to ask for.
        _closed = connection.receive::<serde_json::Value>() => {
            process.kill();
            ended.await
        }
    };
    Ended { status }
}

/// Tells of it, if the runner is still there.
pub(crate) async fn tell(connection: &Connection, ended: Ended) -> Result<(), HelperError> {
    match connection.send(&ended, &[]).await {
        Err(HelperError::Closed) => Ok(()),
        sent => sent,
    }
}

/// Checks what needs no look at the system.
fn check(wanted: &Wanted, descriptors: usize, programs: &[PathBuf]) -> Result<(), String> {
    spec::check_id(&wanted.machine).map_err(|error| error.to_string())?;
    if !programs.contains(&wanted.program) {
        return Err(format!("{} is none of the programs that it may run", wanted.program.display()));
    }
    let Wanted { args, allowed, numbers, bandwidth, .. } = wanted;
    if let Some(bytes) = bandwidth.filter(|bytes| !(1..=MAX_BANDWIDTH).contains(bytes)) {
        return Err(format!("{bytes} bytes in a second are no bandwidth; it is from 1 to {MAX_BANDWIDTH}"));
    }
    let long = |arg: &String| arg.len() > MAX_ARGUMENT || arg.contains('\0');
    if args.len() > MAX_ARGUMENTS || args.iter().any(long) {
        return Err("there are too many arguments, or too long ones".to_owned());
    }
    let distinct: BTreeSet<_> = numbers.iter().collect();
    if descriptors <= numbers.len() || distinct.len() != numbers.len() {
        return Err("descriptors and their numbers do not fit".to_owned());
    }
    if let Some(number) = numbers.iter().find(|number| !NUMBERS.contains(number)) {
        return Err(format!("{number} is no number of a descriptor"));
    }
    let paths = || allowed.read.iter().chain(&allowed.write).chain(&allowed.installed).chain(&wanted.own);
    if paths().count() > MAX_PATHS {
        return Err("there are too many paths".to_owned());
    }
    let plain = |path: &Path| {
        let mut components = path.components();
        components.next() == Some(Component::RootDir)
            && components.all(|part| matches!(part, Component::Normal(_)))
    };
    if let Some(path) = paths().map(PathBuf::as_path).chain([wanted.dir.as_path()]).find(|path| !plain(path))
    {
        return Err(format!("`{}` is no plain absolute path", path.display()));
    }
    Ok(())
}

/// What a monitor may use of the host. Its directory is found by its descriptor.
fn limits(wanted: &Wanted, dir: Option<PathBuf>) -> Limits {
    let bandwidth = wanted.bandwidth.zip(dir);
    Limits { bandwidth, ..Limits::of(wanted.memory, 0, wanted.vcpus) }
}

/// An error with its causes.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
