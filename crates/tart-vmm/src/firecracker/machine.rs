//! A running Firecracker.

use std::{io, os::unix::net::UnixStream as StdUnixStream, path::Path, time::Duration};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use tart_net::NicLink;
use tokio::time::{Instant, sleep, timeout};

use super::{
    FirecrackerDriver,
    api::{Api, ApiError},
    exit,
    requests::{self, Request},
    vsock::{self, Vsock},
};
use crate::{
    AgentStream, Machine, MachineExit, MachineSpec, VmmError, process::Launch, run_dir,
    supervised::Supervised,
};

/// The API's socket in the machine's directory.
const API_SOCKET: &str = "api.sock";

/// How long Firecracker may take until its API answers. Much less is usual, but the host may be busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a request may take. The longest are those that make a machine.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks for the socket.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the end of a process may take to be noticed.
const END_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct FirecrackerMachine {
    id: String,
    process: Supervised,
    vsock: Vsock,
}

/// Starts Firecracker and the guest.
pub(super) async fn start(
    driver: &FirecrackerDriver,
    spec: &MachineSpec,
    line: &str,
) -> Result<FirecrackerMachine, VmmError> {
    let (device, namespace) = match spec.nic.as_ref().map(|nic| &nic.link) {
        None => (None, None),
        Some(NicLink::Device { name, namespace }) => (Some(name.as_str()), Some(namespace.clone())),
        Some(NicLink::Stream(_) | NicLink::Tap(_)) => {
            let reason =
                "Firecracker needs a named tap device: use `mode = \"netns\"` for the network".to_owned();
            return Err(VmmError::Spec { id: spec.id.clone(), reason });
        }
    };
    let requests = requests::before_start(spec, line, device, &driver.tuning, driver.features)?;

    let what = |what: &str| format!("{what} of virtual machine `{}`", spec.id);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&spec.run_dir, flags, Mode::empty())
        .map_err(|e| VmmError::system(what("open the directory"), e))?;
    let api_socket = vsock::path(&dir, API_SOCKET);
    let second = dir.try_clone().map_err(|e| VmmError::system(what("open the directory"), e))?;
    let vsock = Vsock::listen(second).map_err(|e| VmmError::system(what("make the socket"), e))?;
    let (console, console_far) =
        StdUnixStream::pair().map_err(|e| VmmError::system(what("make a socket pair"), e))?;
    let launch = Launch {
        program: driver.binary.clone(),
        args: ["--id", &spec.id, "--api-sock", API_SOCKET].map(Into::into).to_vec(),
        dir: spec.run_dir.clone(),
        inherit: Vec::new(),
        stdout: Some(console_far.into()),
        namespace,
        max_file: spec.largest_writable(),
    };
    let launched = driver.launcher.launch(launch).await;
    let (process, stderr) =
        launched.map_err(|e| VmmError::system(format!("run {}", driver.binary.display()), e))?;
    run_dir::record(&spec.run_dir, process.pid())
        .map_err(|e| VmmError::system(what("record the process"), e))?;

    let watched = |e: io::Error| VmmError::system(what("watch the sockets"), e);
    let process =
        Supervised::new(process, console, stderr, driver.launcher.clone(), exit::kind).map_err(watched)?;
    let machine = FirecrackerMachine { id: spec.id.clone(), process, vsock };

    let limit = START_LIMIT.min(spec.boot_limit);
    let asked = tokio::select! {
        biased;
        asked = ask(&api_socket, &requests, limit) => asked,
        exit = machine.wait() => return Err(machine.ended(exit)),
    };
    let Err(error) = asked else { return Ok(machine) };
    // One that ended is the better explanation of a connection that broke.
    if matches!(error, ApiError::Broken(_))
        && let Ok(exit) = timeout(END_LIMIT, machine.wait()).await
    {
        return Err(machine.ended(exit));
    }
    machine.kill().await;
    let said = machine.console_tail();
    let problem = if said.is_empty() { error.to_string() } else { format!("{error}: {said}") };
    Err(VmmError::Control { id: spec.id.clone(), problem })
}

/// Connects to the API and makes all requests, then starts the guest.
async fn ask(socket: &Path, requests: &[Request], limit: Duration) -> Result<(), ApiError> {
    let deadline = Instant::now() + limit;
    let mut api = loop {
        match Api::connect(socket).await {
            Ok(api) => break api,
            Err(error) if Instant::now() >= deadline => {
                return Err(ApiError::Broken(format!(
                    "it cannot be reached within {} seconds: {error}",
                    limit.as_secs()
                )));
            }
            // It makes the socket as soon as it runs.
            Err(_) => sleep(PAUSE).await,
        }
    };
    for request in requests {
        api.call(request, CALL_LIMIT).await?;
    }
    api.call(&Request::start(), CALL_LIMIT).await?;
    Ok(())
}

impl FirecrackerMachine {
    fn ended(&self, exit: MachineExit) -> VmmError {
        VmmError::EndedInBoot { exit, console: self.console_tail() }
    }
}

#[async_trait]
impl Machine for FirecrackerMachine {
    fn id(&self) -> &str {
        &self.id
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    async fn connect_agent(&self) -> Result<AgentStream, VmmError> {
        let what = || format!("connect to the agent of virtual machine `{}`", self.id);
        Ok(self.vsock.connect().await.map_err(|e| VmmError::system(what(), e))?.into())
    }

    async fn save(&self) -> Result<crate::Snapshot, VmmError> {
        todo!()
    }

    async fn insert_disk(&self, _serial: &str, _image: &Path) -> Result<(), VmmError> {
        todo!()
    }

    async fn wait(&self) -> MachineExit {
        self.process.wait().await
    }

    async fn kill(&self) -> MachineExit {
        // Its API has no call to stop, and nothing of a job's disk has to be kept.
        match self.process.exit() {
            Some(exit) => exit,
            None => self.process.kill().await,
        }
    }

    fn console_tail(&self) -> String {
        let said = self.process.said();
        match self.process.exit().and_then(|exit| exit::meaning(exit.status)) {
            Some(meaning) if said.is_empty() => meaning.to_owned(),
            Some(meaning) => format!("{}\n{meaning}", said.trim_end()),
            None => said,
        }
    }
}
