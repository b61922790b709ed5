//! The name server of a guest: a forwarder on the gateway's address to the host's name servers.
//!
//! It is the guest's only one, so it decides which names can be looked up, and the addresses of names that a list
//! names go to the rules before the guest hears of them.

mod message;
mod names;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    rules::{Element, HOLD, MAX_NAMED, Set},
    space::{DNS_PORT, DnsSockets, Hand},
    system::HostSide,
};
use crate::{Denied, NetError};
#[cfg(all(test, feature = "slow-tests"))]
pub(super) use message::tests::query;
use message::{Code, Question};
pub(super) use names::{Names, nameservers};

/// How long a name server may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// Names that are remembered of those that were not looked up.
const MAX_REFUSED: usize = 64;

/// Addresses whose names are remembered.
const MAX_FOUND: usize = 4096;

/// Queries of a guest at once; more are dropped, and asked again by the guest.
const MAX_QUERIES: usize = 64;

/// Connections of a guest at once.
const MAX_CONNECTIONS: usize = 8;

/// How long a connection may take for a query.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// How long a socket rests after an error, which may not be the last.
const RECOVERY: Duration = Duration::from_millis(100);

/// Largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// Answers queries of one guest.
#[derive(Debug)]
pub(super) struct Forwarder {
    names: Names,
    servers: Vec<IpAddr>,
    side: HostSide,
    space: Hand,
    /// Until when addresses are in the sets of rules.
    held: Mutex<HashMap<(Set, IpAddr), Instant>>,
    /// By which name the guest found addresses first.
    found: std::sync::Mutex<HashMap<IpAddr, String>>,
    /// Names that were not looked up, and how often they were asked for.
    refused: std::sync::Mutex<HashMap<String, u64>>,
}

/// A running forwarder; its tasks end when it is dropped.
#[derive(Debug)]
pub(super) struct Serving {
    forwarder: Arc<Forwarder>,
    tasks: JoinSet<()>,
}

impl Serving {
    /// The names that were not looked up.
    pub(super) fn refused(&self) -> Vec<Denied> {
        let refused = self.forwarder.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let denied =
            refused.iter().map(|(name, count)| Denied { destination: name.clone(), packets: *count });
        denied.collect()
    }

    /// The name by which the guest found an address.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<String> {
        self.forwarder.found.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    /// Ends it and waits for that.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl Forwarder {
    /// Serves the sockets. Must be called in a runtime.
    pub(super) fn start(
        sockets: DnsSockets,
        names: Names,
        servers: Vec<IpAddr>,
        side: HostSide,
        space: Hand,
    ) -> Result<Serving, NetError> {
        let failed = |e: io::Error| NetError::system("serve DNS to a guest", e);
        let udp = Arc::new(UdpSocket::from_std(sockets.udp).map_err(failed)?);
        let tcp = TcpListener::from_std(sockets.tcp).map_err(failed)?;
        let forwarder = Arc::new(Self {
            names,
            servers,
            side,
            space,
            held: Mutex::default(),
            found: Default::default(),
            refused: Default::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(forwarder.clone().serve_datagrams(udp));
        tasks.spawn(forwarder.clone().serve_connections(tcp));
        Ok(Serving { forwarder, tasks })
    }

    async fn serve_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let permits = Arc::new(Semaphore::new(MAX_QUERIES));
        let mut queries = JoinSet::new();
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            while queries.try_join_next().is_some() {}
            let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
                sleep(RECOVERY).await;
                continue;
            };
            let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
            let query = buffer.get(..len).unwrap_or_default().to_vec();
            let (forwarder, socket) = (self.clone(), socket.clone());
            queries.spawn(async move {
                let _permit = permit;
                if let Some(answer) = forwarder.answer(&query, false).await {
                    let _gone = socket.send_to(&answer, from).await;
                }
            });
        }
    }

    async fn serve_connections(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let Ok((mut connection, _)) = listener.accept().await else {
                // Out of descriptors, most likely; others give theirs back.
                sleep(RECOVERY).await;
                continue;
            };
            let forwarder = self.clone();
            connections.spawn(async move {
                let _permit = permit;
                while let Ok(Ok(query)) = timeout(CONNECTION_LIMIT, read(&mut connection)).await {
                    let Some(answer) = forwarder.answer(&query, true).await else { return };
                    if !matches!(timeout(CONNECTION_LIMIT, write(&mut connection, &answer)).await, Ok(Ok(())))
                    {
                        return;
                    }
                }
            });
        }
    }

    /// The answer to a query; nothing for what is none.
    async fn answer(&self, query: &[u8], stream: bool) -> Option<Vec<u8>> {
        let question = message::question(query)?;
        let Some(sets) = self.names.sets_of(&question.name) else {
            self.refuse(question.name.clone());
            return Some(message::failure(query, &question, Code::Refused));
        };
        let Some(answer) = self.ask(query, &question, stream).await else {
            return Some(message::failure(query, &question, Code::ServerFailure));
        };
        let addresses = message::addresses(&answer, &question);
        self.remember(&question.name, &addresses);
        if !sets.is_empty()
            && let Err(error) = self.hold(&sets, addresses).await
        {
            tracing::warn!(%error, "cannot let a job reach the addresses of a name");
        }
        Some(message::with_id(&answer, message::id(query)))
    }

    fn remember(&self, name: &str, addresses: &[(IpAddr, u32)]) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, _) in addresses {
            if found.len() < MAX_FOUND {
                found.entry(*address).or_insert_with(|| name.to_owned());
            }
        }
    }

    fn refuse(&self, name: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MAX_REFUSED || refused.contains_key(&name) {
            *refused.entry(name).or_default() += 1;
        }
    }

    /// Asks the name servers, one after the other.
    async fn ask(&self, query: &[u8], question: &Question, stream: bool) -> Option<Vec<u8>> {
        for server in &self.servers {
            // The guest knows its own id, so it must not be what an answer is recognized by.
            let mut id = [0; 2];
            getrandom::fill(&mut id).ok()?;
            let query = message::with_id(query, id);
            let asked = timeout(ANSWER_LIMIT, self.ask_one(*server, &query, question, stream)).await;
            match asked {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server does not answer"),
                Err(_) => tracing::debug!(%server, "a name server does not answer in time"),
            }
        }
        None
    }

    async fn ask_one(
        &self,
        server: IpAddr,
        query: &[u8],
        question: &Question,
        stream: bool,
    ) -> io::Result<Vec<u8>> {
        let address = SocketAddr::new(server, DNS_PORT);
        if stream {
            let mut connection = self.connect(address).await?;
            write(&mut connection, query).await?;
            let answer = read(&mut connection).await?;
            return if message::answers(&answer, query, question) {
                Ok(answer)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question"))
            };
        }
        let socket = self.bind(address).await?;
        socket.connect(address).await?;
        socket.send(query).await?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let len = socket.recv(&mut buffer).await?;
            let answer = buffer.get(..len).unwrap_or_default();
            // What does not fit may be forged; the right one may still come.
            if message::answers(answer, query, question) {
                return Ok(answer.to_vec());
            }
        }
    }

    async fn bind(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let open = move || {
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        UdpSocket::from_std(self.open(open).await?)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let open = move || {
            let stream = std::net::TcpStream::connect_timeout(&to, ANSWER_LIMIT)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        TcpStream::from_std(self.open(open).await?)
    }

    /// Opens a socket of the host, whatever namespace that is.
    async fn open<T: Send + 'static>(
        &self,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let opened = self.side.run(move || open().map_err(|e| NetError::system("open a socket", e)));
        opened.await.map_err(|error| match error {
            NetError::System { source, .. } => source,
            error => io::Error::other(error),
        })
    }

    /// Lets addresses through, before the guest knows them.
    async fn hold(&self, sets: &[Set], addresses: Vec<(IpAddr, u32)>) -> Result<(), NetError> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        held.retain(|_, until| *until > now);
        let (mut added, mut untils) = (Vec::new(), Vec::new());
        for (address, ttl) in addresses {
            let seconds = ttl.clamp(*HOLD.start(), *HOLD.end());
            let until = now + Duration::from_secs(seconds.into());
            for set in sets.iter().copied() {
                let key = (set, address);
                // Not for every query anew, and never more than a set takes.
                let fresh = held.get(&key).is_some_and(|old| *old - now >= (until - now) / 2);
                if !fresh && (held.len() + added.len() < MAX_NAMED || held.contains_key(&key)) {
                    added.push(Element { set, address, seconds });
                    untils.push((key, until));
                }
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        self.space.hold(added).await?;
        held.extend(untils);
        Ok(())
    }
}

async fn read(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = connection.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    connection.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(connection: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    connection.write_all(&[&len.to_be_bytes()[..], message].concat()).await
}
