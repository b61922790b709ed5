//! A network device served by the `passt` program.

mod frame;
mod link;

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{Access, access};
use tart_proto::message::Interface;
use tokio::{
    io::AsyncReadExt,
    net::{UnixStream, lookup_host},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Allowed, AttachRequest, Attachment, GuestNetwork, NetError, Network, Nic, NicLink, RelayOptions,
    RelayTargets, Reservation, Target, Usage, plan, relay::RelayAttachment,
};
use frame::{GATEWAY, GUEST, MAC, PREFIX, Policy};

const NAME: &str = "passt";

/// How long `passt` may take to answer its first frame.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long the host's resolver may take for a name.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// Kept of what a failed `passt` says, in bytes.
const MAX_MESSAGE: u64 = 16 * 1024;

/// A network device whose packets `passt` turns into ordinary sockets of the host, one process for each machine.
/// Needs no privileges. The guest reaches what the host's user reaches by IPv4, but neither the host itself (its
/// loopback and its other addresses) nor link-local addresses.
#[derive(Debug, Clone)]
pub struct PasstNetwork {
    program: PathBuf,
}

impl PasstNetwork {
    /// Uses this program, or the `passt` of the search path.
    ///
    /// # Errors
    /// [`NetError::Program`] if it is not there.
    pub fn detect(program: Option<&Path>) -> Result<Self, NetError> {
        let name = program.unwrap_or(Path::new(NAME));
        let usable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
        let found = if name.components().count() > 1 {
            Some(name.to_owned()).filter(|path| usable(path))
        } else {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).map(|dir| dir.join(name)).find(|path| usable(path))
        };
        let program = found.ok_or_else(|| refuse(name, "it is not installed; install the package passt"))?;
        Ok(Self { program })
    }
}

fn refuse(program: &Path, reason: impl Into<String>) -> NetError {
    NetError::Program { network: NAME, program: program.to_owned(), reason: reason.into() }
}

#[async_trait]
impl Network for PasstNetwork {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> String {
        format!(
            "passt ({}): jobs reach what this host reaches by IPv4, except the host itself",
            self.program.display()
        )
    }

    async fn attach(&self, request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError> {
        check(request)?;
        self.reserve(&request.id).await?.attach(request).await
    }

    async fn reserve(&self, id: &str) -> Result<Box<dyn Reservation>, NetError> {
        let host = frame::host_addresses(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default());
        let policy = Policy { host };
        let pair = || StdUnixStream::pair().map_err(|e| NetError::system("make a socket pair", e));
        let ((near, passt), (guest, device)) = (pair()?, pair()?);
        let child = start(&self.program, passt.into()).map_err(|e| refuse(&self.program, e.to_string()))?;
        let (child, near) = greeted(child, near).await.map_err(|reason| refuse(&self.program, reason))?;
        let guest = tokio_stream(guest).map_err(|e| NetError::system("watch a socket", e))?;
        let tasks = connect(policy.clone(), guest, near, id);
        let mac = MAC.map(|octet| format!("{octet:02x}")).join(":");
        let nic = Nic { mac, link: NicLink::Stream(Arc::new(OwnedFd::from(device))) };
        Ok(Box::new(PasstReservation { nic, policy, tasks, child }))
    }
}

/// A process of `passt` that carries nothing but what its guest sends, which has no address yet.
#[derive(Debug)]
struct PasstReservation {
    nic: Nic,
    policy: Policy,
    tasks: JoinSet<()>,
    child: Child,
}

#[async_trait]
impl Reservation for PasstReservation {
    fn nic(&self) -> Option<&Nic> {
        Some(&self.nic)
    }

    async fn attach(self: Box<Self>, request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError> {
        let Self { nic, policy, tasks, child } = *self;
        check(request)?;
        let mut relayed = Vec::new();
        for allowed in &request.allowed {
            if needs_relay(allowed, &policy).await {
                relayed.push(allowed.clone());
            }
        }
        let plan = plan::plan(&relayed, &request.extra_hosts)?;
        let mut relay = RelayAttachment::new(&request.id, plan, RelayOptions::default());
        let network = relay.guest_mut();
        network.interfaces.push(Interface {
            mac: nic.mac.clone(),
            addresses: vec![format!("{GUEST}/{PREFIX}")],
            gateways: vec![GATEWAY.to_string()],
            mtu: None,
        });
        network.nameservers = resolvers(&request.nameservers).iter().map(ToString::to_string).collect();
        network.search_domains.clone_from(&request.search_domains);
        network.nic = Some(nic);
        Ok(Box::new(PasstAttachment { relay, _tasks: tasks, child }))
    }
}

/// Refuses what it cannot enforce.
fn check(request: &AttachRequest) -> Result<(), NetError> {
    if request.egress.is_default() && request.bandwidth.is_none() {
        return Ok(());
    }
    let what = "limit what a job reaches or carries: use `mode = \"netns\"`, which needs root, or `relay`";
    Err(NetError::Unable { network: NAME, what: what.to_owned() })
}

/// Whether an endpoint is one that the guest's packets would not reach: a service of Tart, or on the host itself.
async fn needs_relay(allowed: &Allowed, policy: &Policy) -> bool {
    let endpoint = match &allowed.target {
        Target::Service(_) => return true,
        Target::Tcp(endpoint) if endpoint.is_loopback() || *endpoint != allowed.endpoint => return true,
        Target::Tcp(endpoint) => endpoint,
    };
    let Ok(Ok(addresses)) = timeout(RESOLVE_LIMIT, lookup_host((endpoint.host(), endpoint.port()))).await
    else {
        return false;
    };
    !addresses.map(|address| address.ip()).any(|ip| matches!(ip, IpAddr::V4(v4) if policy.reachable(v4)))
}

/// The name servers of a guest: those asked for, else those of the host that can be reached from elsewhere.
fn resolvers(wished: &[IpAddr]) -> Vec<IpAddr> {
    if !wished.is_empty() {
        return wished.to_vec();
    }
    // The second is where systemd-resolved keeps what is behind its own address on the loopback.
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].into_iter();
    let servers: Vec<Vec<Ipv4Addr>> =
        files.map(|file| frame::nameservers(&fs::read_to_string(file).unwrap_or_default())).collect();
    servers
        .into_iter()
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
        .into_iter()
        .map(IpAddr::V4)
        .collect()
}

/// Starts `passt` with one connected socket, with whose other end it ends.
fn start(program: &Path, socket: OwnedFd) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    // The socket is its standard input.
    command.args(["--foreground", "--quiet", "--fd", "0", "--no-map-gw", "--ipv4-only"]);
    command.args(["--address", &GUEST.to_string(), "--netmask", &PREFIX.to_string()]);
    command.args(["--gateway", &GATEWAY.to_string()]);
    command.args(["--tcp-ports", "none", "--udp-ports", "none", "--no-dhcp"]);
    command.env_clear().stdin(socket).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()
}

/// Waits until `passt` serves its socket.
async fn greeted(mut child: Child, near: StdUnixStream) -> Result<(Child, UnixStream), String> {
    let mut near = tokio_stream(near).map_err(|e| e.to_string())?;
    let error = match timeout(START_LIMIT, link::greet(&mut near)).await {
        Ok(Ok(())) => return Ok((child, near)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it does not answer within {} seconds", START_LIMIT.as_secs()),
    };
    drop(near);
    let _ended = child.start_kill();
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = stderr.take(MAX_MESSAGE);
        let _late = timeout(START_LIMIT, stderr.read_to_end(&mut said)).await;
    }
    let said = String::from_utf8_lossy(&said);
    // Its complaint about a missing system log comes with every line.
    let said: Vec<_> = said.lines().filter(|line| !line.contains("to syslog")).collect();
    Err(said.last().map_or(error, |last| (*last).to_owned()))
}

fn tokio_stream(stream: StdUnixStream) -> std::io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Joins the guest's device and `passt`, both ways.
fn connect(policy: Policy, guest: UnixStream, passt: UnixStream, id: &str) -> JoinSet<()> {
    let (mut from_passt, to_passt) = passt.into_split();
    let (from_guest, mut to_guest) = guest.into_split();
    let id = id.to_owned();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = link::filter(policy, from_guest, to_passt).await {
            tracing::debug!(machine = id, %error, "a guest's network device ended");
        }
    });
    tasks.spawn(async move {
        // Its end is that of the machine.
        let _ended = tokio::io::copy(&mut from_passt, &mut to_guest).await;
    });
    tasks
}

/// A machine's `passt`; ends when dropped.
#[derive(Debug)]
struct PasstAttachment {
    relay: RelayAttachment,
    _tasks: JoinSet<()>,
    child: Child,
}

#[async_trait]
impl Attachment for PasstAttachment {
    fn guest(&self) -> &GuestNetwork {
        self.relay.guest()
    }

    fn relay(&self) -> Arc<dyn RelayTargets> {
        self.relay.relay()
    }

    async fn usage(&self) -> Usage {
        self.relay.usage().await
    }

    async fn detach(self: Box<Self>) {
        let Self { relay, _tasks, mut child } = *self;
        Box::new(relay).detach().await;
        // It can only have ended already.
        let _ended = child.kill().await;
    }
}

#[cfg(test)]
mod tests;
