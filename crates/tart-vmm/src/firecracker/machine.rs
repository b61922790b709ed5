//! A running Firecracker.

use std::{io, os::unix::net::UnixStream as StdUnixStream, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::Signal,
};
use tart_net::NicLink;
use tart_proto::time::scaled;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Bucket, FirecrackerDriver,
    api::{Api, ApiError},
    ends::Listeners,
    exit,
    pages::{self, PageServer},
    place::{Place, Unconnected},
    reports::{self, Reports},
    requests::{self, Request},
    setting::{Started, Surroundings},
    starter::Order,
    vsock::Vsock,
};
use crate::{
    AgentStream, DiskSpec, Machine, MachineCounters, MachineExit, MachineSpec, Origin, ProcessStatus,
    Snapshot, VmmError, process::Namespace, run_dir, snapshot::MAX_STATE, spec, supervised::Supervised,
};

/// How long Firecracker may take until its API answers. Much less is usual, but the host may be busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a request may take. The longest are those that make a machine.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks for the socket.
const PAUSE: Duration = Duration::from_millis(2);

/// How long it may take to flush metrics: nobody's job waits for them.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How long the end of a process may take to be noticed.
const END_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct FirecrackerMachine {
    id: String,
    process: Supervised,
    reports: Reports,
    vsock: Vsock,
    /// With its jail, if it has one: dropped after the process, which is killed.
    place: Arc<Place>,
    disks: Vec<DiskSpec>,
    /// Serves its memory, if it is served page by page.
    pages: Option<PageServer>,
    /// Bytes of memory, if it was started to be saved.
    template: Option<u64>,
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
    let is_template = matches!(spec.origin, Origin::Template);
    if !matches!(spec.origin, Origin::Boot) && !driver.can_save() {
        let why = driver.unserved.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        let reason = format!("Firecracker {} cannot go on from a saved machine{why}", driver.version);
        return Err(VmmError::Spec { id: spec.id.clone(), reason });
    }
    let what = |what: &str| format!("{what} of virtual machine `{}`", spec.id);
    let view = driver.starter.view(spec, driver.serves_pages()).await?;
    let requests = match &view.saved {
        None => {
            let requests = requests::before_start(&view.spec, line, device, &driver.tuning, driver.features)?;
            requests.into_iter().chain([Request::start()]).collect::<Vec<_>>()
        }
        Some(saved) => requests::restore(&view.spec, device, saved, driver.features)?,
    };
    let requests: Vec<Request> = reports::requests().into_iter().chain(requests).collect();
    let (console, console_far) =
        StdUnixStream::pair().map_err(|e| VmmError::system(what("make a socket pair"), e))?;
    let (stderr, said) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| VmmError::system(what("make a pipe"), e))?;
    let surroundings = Surroundings {
        console: console_far.into(),
        said,
        network: namespace.map_or(Namespace::Runner, Namespace::Of),
        // The agent of a machine that goes on from another has reported already.
        listeners: Listeners { agent: view.saved.is_none(), memory: view.is_served() },
    };
    let saved = if is_template { spec.memory_bytes.max(MAX_STATE) } else { 0 };
    let order = Order {
        binary: &driver.binary,
        spec,
        view,
        max_file: spec.largest_writable().max(saved),
        bandwidth: driver.tuning.disk_bandwidth.map(in_a_second),
        surroundings,
    };
    let Started { process, place, ends } = driver.starter.start(order).await?;
    let place = Arc::new(place);
    run_dir::record(&spec.run_dir, process.pid())
        .map_err(|e| VmmError::system(what("record the process"), e))?;

    let watched = |e: io::Error| VmmError::system(what("watch the sockets"), e);
    let process = Supervised::new(process, console, stderr, exit::kind).map_err(watched)?;
    let vsock = Vsock::new(place.clone(), ends.agent).map_err(watched)?;
    let reports = Reports::read(ends.log, ends.metrics).map_err(watched)?;
    let serve = |(listener, snapshot)| {
        pages::Listening::new(listener, snapshot)?.serve(process.pid(), process.killer())
    };
    let pages = ends.memory.zip(spec.origin.snapshot()).map(serve).transpose();
    let pages = pages.map_err(|e| VmmError::system(what("serve the memory"), e))?;
    let template = is_template.then(|| spec.memory_mib() << 20);
    let (id, disks) = (spec.id.clone(), spec.disks.clone());
    let machine = FirecrackerMachine { id, process, reports, vsock, place, disks, pages, template };

    let limit = scaled(START_LIMIT).min(spec.boot_limit);
    let asked = tokio::select! {
        biased;
        asked = ask(&machine.place, &requests, limit) => asked,
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

/// Tokens of a bucket in a second.
fn in_a_second(bucket: Bucket) -> u64 {
    bucket.size.saturating_mul(1000) / bucket.refill_ms.max(1)
}

/// Connects to the API and makes all requests.
async fn ask(place: &Place, requests: &[Request], limit: Duration) -> Result<(), ApiError> {
    let deadline = Instant::now() + limit;
    let mut api = loop {
        match Api::connect(place).await {
            Ok(api) => break api,
            Err(Unconnected::Astray(problem)) => return Err(ApiError::Astray(problem)),
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
    Ok(())
}

impl FirecrackerMachine {
    fn ended(&self, exit: MachineExit) -> VmmError {
        let killed = exit.status == ProcessStatus::Signal(Signal::KILL.as_raw());
        match self.pages.as_ref().and_then(PageServer::problem).filter(|_| killed) {
            Some(problem) => self.control(problem),
            None => VmmError::EndedInBoot { exit, console: self.console_tail() },
        }
    }

    fn control(&self, problem: impl ToString) -> VmmError {
        VmmError::control(&self.id, problem)
    }

    async fn call(&self, requests: &[Request]) -> Result<(), VmmError> {
        let asked = ask(&self.place, requests, CALL_LIMIT).await;
        asked.map_err(|error| self.control(error))
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

    async fn save(&self) -> Result<Snapshot, VmmError> {
        let Some(memory_bytes) = self.template else {
            return Err(self.control("was not started to be saved"));
        };
        let saved = self.call(&requests::save()).await;
        self.kill().await;
        saved?;
        let taken = self.place.take().await;
        let [memory, state] = taken.map_err(|e| VmmError::system("open what Firecracker saved", e))?;
        let taken = tokio::task::spawn_blocking(move || Snapshot::take_over(&memory, &state, memory_bytes));
        taken.await.map_err(|e| VmmError::system("read a saved machine", io::Error::other(e)))?
    }

    async fn insert_disk(&self, serial: &str, image: &Path) -> Result<(), VmmError> {
        let (position, disk) = spec::empty_disk(&self.id, &self.disks, serial)?;
        let path = self.place.put_disk(position, disk.read_only, image).await?;
        self.call(&[requests::insert(position, &path)]).await
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
        let (mut said, log) = (self.process.said(), self.reports.log());
        if !log.is_empty() {
            said = if said.is_empty() { log } else { format!("{}\n{log}", said.trim_end()) };
        }
        let problem = self.pages.as_ref().and_then(PageServer::problem);
        let problem = problem.map(|problem| format!("Firecracker {problem}, and was killed"));
        let meaning = || Some(exit::meaning(self.process.exit()?.status)?.to_owned());
        match problem.or_else(meaning) {
            Some(meaning) if said.is_empty() => meaning,
            Some(meaning) => format!("{}\n{meaning}", said.trim_end()),
            None => said,
        }
    }

    async fn counters(&self) -> Option<MachineCounters> {
        // One that has ended has told all that it will.
        if self.process.exit().is_none() {
            let _late = timeout(scaled(FLUSH_LIMIT), self.call(&[reports::flush()])).await;
        }
        self.reports.counters()
    }
}
