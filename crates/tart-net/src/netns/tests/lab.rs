//! A host, an outside and guests, all of them namespaces of the test.

mod helper;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

use super::super::{
    NetnsNetwork, NetnsOptions,
    address::{GATEWAY, GATEWAY6, GUEST, GUEST_MAC, GUEST_PREFIX, GUEST_PREFIX6, GUEST6},
    dns::query,
    host::HostOptions,
    system::{Namespace, get, ip, on_thread, open_tap, program},
};
use crate::{AttachRequest, Attachment, NetError, Network as _, NetworkServerOptions, NicLink};
pub(super) use helper::LabHelper;

/// Servers of the outside are on these addresses, all on port 80.
pub(super) const PUBLIC: &str = "198.51.100.10";
pub(super) const OTHER: &str = "198.51.100.11";
pub(super) const PRIVATE: &str = "10.9.9.9";
pub(super) const METADATA: &str = "169.254.169.254";
pub(super) const AZURE: &str = "168.63.129.16";
pub(super) const PUBLIC6: &str = "2001:db8:5::10";
pub(super) const PRIVATE6: &str = "fd99::9";
pub(super) const METADATA6: &str = "fd00:ec2::254";
/// The host's own address, which has a server too.
pub(super) const HOST: &str = "203.0.113.2";
pub(super) const HOST6: &str = "2001:db8:113::2";
/// The outside's end of the host's link, and its name server.
pub(super) const OUTSIDE: &str = "203.0.113.1";
pub(super) const OUTSIDE6: &str = "2001:db8:113::1";

/// How long a connection may take that nobody answers. The kernel tells IPv6 of a new link after up to a second.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Lab {
    name: String,
    pub(super) host: Namespace,
    pub(super) outside: Namespace,
}

impl Lab {
    pub(super) async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tl{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let own = Namespace::own().unwrap();
        let commands = format!(
            "netns add {name}-host\nnetns add {name}-out\n\
             link add up0 netns {name}-host mtu 1400 type veth peer name up0 netns {name}-out\n"
        );
        own.run(move || ip(&commands)).await.unwrap();
        let open = |end: &str| Namespace::open(format!("/run/netns/{name}-{end}").as_ref()).unwrap();
        let (host, outside) = (open("host"), open("out"));
        let commands = "link set lo up\naddress add 203.0.113.2/24 dev up0\nlink set up0 up\n\
                        route add default via 203.0.113.1\n\
                        address add 2001:db8:113::2/64 dev up0 nodad\n\
                        route add default via 2001:db8:113::1\n";
        host.run(|| ip(commands)).await.unwrap();
        let addresses = [PUBLIC, OTHER, PRIVATE, METADATA, AZURE].map(|address| format!("{address}/32"));
        let addresses6 = [PUBLIC6, PRIVATE6, METADATA6].map(|address| format!("{address}/128"));
        let addresses = addresses.iter().chain(&addresses6);
        let addresses: String = addresses.map(|address| format!("address add {address} dev lo\n")).collect();
        let all = format!(
            "link set lo up\naddress add 203.0.113.1/24 dev up0\n\
             address add 2001:db8:113::1/64 dev up0 nodad\nlink set up0 mtu 1400 up\n{addresses}"
        );
        outside.run(move || ip(&all)).await.unwrap();
        for namespace in [&host, &outside] {
            let listener = namespace.run(|| Ok(TcpListener::bind("[::]:80").unwrap())).await.unwrap();
            thread::spawn(move || greet(&listener));
        }
        let bulk = outside.run(|| Ok(TcpListener::bind("[::]:81").unwrap())).await.unwrap();
        thread::spawn(move || flood(&bulk));
        let dns = outside.run(|| Ok(UdpSocket::bind("0.0.0.0:53").unwrap())).await.unwrap();
        thread::spawn(move || serve_dns(&dns));
        let dns = outside.run(|| Ok(TcpListener::bind("0.0.0.0:53").unwrap())).await.unwrap();
        thread::spawn(move || serve_dns_over_tcp(&dns));
        Self { name, host, outside }
    }

    pub(super) async fn network(&self) -> NetnsNetwork {
        NetnsNetwork::start(self.options()).await.unwrap()
    }

    /// A network of this host.
    pub(super) fn options(&self) -> NetnsOptions {
        NetnsOptions { namespace: Some(self.path()), ..NetnsOptions::default() }
    }

    fn path(&self) -> PathBuf {
        format!("/run/netns/{}-host", self.name).into()
    }

    /// A root helper of this host, for one user, which makes at most so many networks and none in advance.
    pub(super) async fn helper(&self, user: u32, most: usize) -> LabHelper {
        let options = NetworkServerOptions { namespace: Some(self.path()), ready: 0, most };
        LabHelper::start(options, user).await
    }

    /// A network that this process makes itself, or has a helper make.
    pub(super) async fn network_by(&self, way: Way) -> LabNetwork {
        let helper = match way {
            Way::Own => None,
            Way::Helper => {
                let options =
                    NetworkServerOptions { namespace: Some(self.path()), ..NetworkServerOptions::default() };
                Some(LabHelper::start(options, 0).await)
            }
        };
        let socket = helper.as_ref().map(|helper| helper.socket.clone());
        let options = NetnsOptions { helper: socket, ..self.options() };
        LabNetwork { network: NetnsNetwork::start(options).await.unwrap(), helper }
    }

    /// Another network of the host, with a server.
    pub(super) async fn inside(&self, address: &str) -> Namespace {
        let (host, address) = (self.host.path(), address.to_owned());
        let made = new_namespace(move |namespace| {
            ip(&format!(
                "link set lo up\nlink add eth0 type veth peer name in0 netns {host}\n\
                 address add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 10.55.0.1\n"
            ))?;
            Ok((namespace, TcpListener::bind("[::]:80").unwrap()))
        });
        let (namespace, listener) = made.await.unwrap();
        thread::spawn(move || greet(&listener));
        self.host.run(|| ip("address add 10.55.0.1/24 dev in0\nlink set in0 up\n")).await.unwrap();
        namespace
    }

    /// The directory of the host's locks.
    pub(super) fn locks(&self) -> PathBuf {
        HostOptions::of(&self.host).unwrap().dir
    }

    /// What is on the host that is of guests.
    pub(super) async fn left(&self) -> String {
        let read = || {
            let links = program("ip", &["-brief", "link", "show"], "")?;
            let rules = program("nft", &["list", "ruleset"], "")?;
            let forwarding = fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap();
            let links = links.lines().filter(|line| line.contains("tart-")).collect::<Vec<_>>().join("\n");
            let forwarding6 = get("ipv6/conf/up0/force_forwarding").unwrap_or_default();
            let forwards = forwarding.trim() == "1" || forwarding6 == "1";
            Ok(format!("{links}{rules}{}", if forwards { "forwarding" } else { "" }))
        };
        self.host.run(read).await.unwrap()
    }
}

/// Who makes namespaces.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Own,
    Helper,
}

/// A network, and its helper if it has one.
pub(super) struct LabNetwork {
    network: NetnsNetwork,
    helper: Option<LabHelper>,
}

impl std::ops::Deref for LabNetwork {
    type Target = NetnsNetwork;

    fn deref(&self) -> &NetnsNetwork {
        &self.network
    }
}

impl LabNetwork {
    /// Ends both, and waits for that.
    pub(super) async fn end(self) {
        drop(self.network);
        if let Some(helper) = self.helper {
            helper.end().await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let commands = format!("netns delete {0}-host\nnetns delete {0}-out\n", self.name);
        let _gone = fs::remove_dir_all(self.locks());
        // A test that failed has said why.
        let _gone = Namespace::own().unwrap().run_blocking(move || ip(&commands));
    }
}

fn greet(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        let _gone = connection.write_all(b"hello");
    }
}

/// Bytes that the server on port 81 sends.
pub(super) const BULK: usize = 2 << 20;

fn flood(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        let _gone = connection.write_all(&vec![7; BULK]);
    }
}

fn serve_dns(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let _gone = socket.send_to(&answer(&buffer[..len]), from);
    }
}

fn serve_dns_over_tcp(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        if let Ok(query) = read_message(&mut connection) {
            let _gone = write_message(&mut connection, &answer(&query));
        }
    }
}

fn read_message(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    connection.read_exact(&mut len)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    connection.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(connection: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).unwrap().to_be_bytes();
    connection.write_all(&[&len[..], message].concat())
}

/// One address for every query.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    let ipv6 = answer.ends_with(&[0, 28, 0, 1]);
    (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
    let address = match (answer[13..].split(|byte| *byte == 4).next(), ipv6) {
        (Some(b"public"), false) => PUBLIC,
        (Some(b"public"), true) => PUBLIC6,
        (Some(b"private"), _) => PRIVATE,
        (Some(b"metadata"), _) => METADATA,
        _ => OTHER,
    };
    answer.extend([0xc0, 12]);
    match address.parse().unwrap() {
        IpAddr::V4(address) => {
            answer.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
        }
        IpAddr::V6(address) => {
            answer.extend([0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
            answer.extend(address.octets());
        }
    }
    answer
}

/// A kernel's network behind an attachment's tap device, as a machine would have it.
pub(super) struct LabGuest {
    pub(super) namespace: Namespace,
    pub(super) attachment: Box<dyn Attachment>,
    wire: (OwnedFd, thread::JoinHandle<()>),
}

impl LabGuest {
    pub(super) async fn attach(network: &NetnsNetwork, request: AttachRequest) -> Self {
        let nameservers = vec![OUTSIDE.parse().unwrap()];
        let attachment = network.attach(&AttachRequest { nameservers, ..request }).await.unwrap();
        let Some(NicLink::Tap(tap)) = attachment.guest().nic.as_ref().map(|nic| nic.link.clone()) else {
            panic!("no tap device")
        };
        let mtu = attachment.guest().interfaces[0].mtu.unwrap();
        let commands = format!(
            "link set lo up\nlink set eth0 address {GUEST_MAC} mtu {mtu}\n\
             address add {GUEST}/{GUEST_PREFIX} dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}\n\
             address add {GUEST6}/{GUEST_PREFIX6} dev eth0 nodad\nroute add default via {GATEWAY6}\n"
        );
        let made = new_namespace(move |namespace| {
            let device = open_tap("eth0")?;
            ip(&commands)?;
            Ok((namespace, device))
        });
        let (namespace, device) = made.await.unwrap();
        let (stop, stopped) = rustix::pipe::pipe().unwrap();
        let tap = tap.try_clone().unwrap();
        let wire = thread::spawn(move || carry(&device, &tap, &stop));
        Self { namespace, attachment, wire: (stopped, wire) }
    }

    /// Whether a server answers.
    pub(super) async fn finds(&self, address: &str, port: u16) -> bool {
        finds(&self.namespace, address, port).await
    }

    /// How long the bytes of the server on port 81 take.
    pub(super) async fn downloads(&self) -> Duration {
        let download = || {
            let (start, mut bytes) = (Instant::now(), Vec::new());
            TcpStream::connect((PUBLIC, 81)).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), BULK);
            Ok(start.elapsed())
        };
        self.namespace.run(download).await.unwrap()
    }

    pub(super) async fn ip(&self, commands: &'static str) {
        self.namespace.run(move || ip(commands)).await.unwrap();
    }

    /// The code of the answer to a query for a name.
    pub(super) async fn looks_up(&self, name: &str) -> u8 {
        self.asks(query(name)).await
    }

    /// The same for its IPv6 addresses.
    pub(super) async fn looks_up_ipv6(&self, name: &str) -> u8 {
        let mut query = query(name);
        let kind = query.len() - 3;
        query[kind] = 28;
        self.asks(query).await
    }

    async fn asks(&self, query: Vec<u8>) -> u8 {
        let ask = move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(&query, SocketAddr::from((GATEWAY, 53))).unwrap();
            let mut answer = [0; 512];
            let len = socket.recv(&mut answer).unwrap();
            assert!(len >= query.len() && answer[..2] == query[..2]);
            Ok(answer[3] & 15)
        };
        self.namespace.run(ask).await.unwrap()
    }

    /// The same over a connection.
    pub(super) async fn looks_up_over_tcp(&self, name: &str) -> u8 {
        let query = query(name);
        let ask = move || {
            let mut connection = TcpStream::connect((GATEWAY, 53)).unwrap();
            write_message(&mut connection, &query).unwrap();
            Ok(read_message(&mut connection).unwrap()[3] & 15)
        };
        self.namespace.run(ask).await.unwrap()
    }

    /// Waits until more forged frames were counted than before.
    pub(super) async fn counts_forged_beyond(&self, before: u64) -> u64 {
        let counted = async {
            loop {
                let forged = self.attachment.usage().await.forged;
                if forged > before {
                    return forged;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.unwrap()
    }

    /// Sends a frame as it is.
    pub(super) fn inject(&self, frame: &[u8]) {
        let Some(NicLink::Tap(tap)) = self.attachment.guest().nic.as_ref().map(|nic| nic.link.clone()) else {
            panic!("no tap device")
        };
        let frame = [&[0; 10], frame].concat();
        assert_eq!(rustix::io::write(tap.as_fd(), &frame).unwrap(), frame.len());
    }

    pub(super) async fn end(self) {
        let Self { wire: (stop, wire), attachment, .. } = self;
        drop(stop);
        wire.join().unwrap();
        attachment.detach().await;
    }
}

/// Runs work in a namespace made for it.
async fn new_namespace<T: Send + 'static>(
    work: impl FnOnce(Namespace) -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    on_thread((), move || work(Namespace::enter_new()?)).await
}

/// Whether a server answers to somebody in a namespace.
pub(super) async fn finds(namespace: &Namespace, address: &str, port: u16) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let connect = move || {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
            return Ok(false);
        };
        let mut said = String::new();
        Ok(stream.read_to_string(&mut said).is_ok() && said == "hello")
    };
    namespace.run(connect).await.unwrap()
}

/// Passes frames between two devices until the other end of `stop` is closed.
fn carry(one: &OwnedFd, other: &OwnedFd, stop: &OwnedFd) {
    let mut frame = vec![0; 70_000];
    loop {
        let mut ready = [
            PollFd::new(one, PollFlags::IN),
            PollFd::new(other, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        poll(&mut ready, None).unwrap();
        if !ready[2].revents().is_empty() {
            return;
        }
        for (from, to) in [(one, other), (other, one)] {
            if let Ok(len) = rustix::io::read(from, &mut frame) {
                // A device that is down takes nothing.
                let _dropped = rustix::io::write(to, &frame[..len]);
            }
        }
    }
}
