//! Firecracker's end of the guest's vsock: unix sockets on the host (microvm.md 1.4).
//!
//! Like Firecracker it knows no half of a connection: the host's end of file ends both directions, and a guest that only
//! writes no more is no end for the host.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc},
    task::{AbortHandle, spawn_local},
    time::timeout,
};

use super::{
    packet::{HEADER, HOST, NO_MORE_READS, NO_MORE_WRITES, Operation, Packet},
    ring::Ring,
};

/// Room for what the guest writes to one connection, in bytes.
const ROOM: u32 = 64 * 1024;

/// Most connections.
const MAX_CONNECTIONS: usize = 1023;

/// The first port of the host's ends.
const FIRST_PORT: u32 = 1 << 30;

/// Longest command, in bytes.
const MAX_COMMAND: usize = 32;

/// How long the guest may take to accept a connection, and to agree to its end.
const LIMIT: Duration = Duration::from_secs(2);

/// Bytes that are read from a socket at once.
const CHUNK: u32 = 4096;

/// Packets that wait for the guest before no more is read from sockets.
const MAX_WAITING: usize = 64;

/// Host's and guest's port of a connection.
type Ports = (u32, u32);

/// A connection, as far as the guest's packets change it.
#[derive(Debug)]
struct Connection {
    /// What the guest has room for, has passed on, and was sent.
    guest_room: u32,
    guest_passed_on: u32,
    sent: u32,
    /// What the guest's data passed on to the socket, and what the guest was told of it.
    passed_on: u32,
    told: u32,
    /// Of the guest's side: reads or writes no more.
    shut: u32,
    accepted: bool,
    to_socket: mpsc::UnboundedSender<Vec<u8>>,
    changed: Rc<Notify>,
    task: AbortHandle,
}

impl Connection {
    /// Bytes that may be sent.
    fn credit(&self) -> u32 {
        self.guest_room.saturating_sub(self.sent.wrapping_sub(self.guest_passed_on))
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Mux(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    cid: u64,
    socket: PathBuf,
    next_port: u32,
    connections: HashMap<Ports, Connection>,
    to_guest: VecDeque<Packet>,
    room: Rc<Notify>,
    /// The queue that the guest receives from, and the one that it sends to, while it runs.
    rings: Option<(Ring, Ring)>,
}

impl Mux {
    /// Connections of the guest with this address go to `socket`, followed by `_` and their port.
    pub(super) fn new(cid: u64, socket: &Path) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Inner {
            cid,
            socket: socket.to_owned(),
            next_port: FIRST_PORT,
            connections: HashMap::new(),
            to_guest: VecDeque::new(),
            room: Rc::default(),
            rings: None,
        })))
    }

    /// Accepts the host's connections.
    pub(super) async fn accept(self: Rc<Self>, listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(self.clone().connect(stream));
        }
    }

    /// The guest's queues, or none while it does not run. Gives back those that there were.
    pub(super) fn set_rings(self: &Rc<Self>, rings: Option<(Ring, Ring)>) -> Option<(Ring, Ring)> {
        let before = std::mem::replace(&mut self.0.borrow_mut().rings, rings);
        // What the guest wrote meanwhile was not announced to this side.
        self.work();
        before
    }

    /// How the guest is told of entries in one of its queues.
    pub(super) fn set_call(&self, is_receive: bool, call: Option<OwnedFd>) {
        if let Some((receive, send)) = &mut self.0.borrow_mut().rings {
            if is_receive { receive } else { send }.set_call(call);
        }
    }

    /// Does all that there is to do with the guest's queues.
    pub(super) fn work(self: &Rc<Self>) {
        loop {
            let taken = match &mut self.0.borrow_mut().rings {
                Some((_, send)) => send.take(),
                None => return,
            };
            match taken {
                Ok(Some(bytes)) => self.packet(&bytes),
                Ok(None) => break,
                Err(error) => return crate::say(&format!("vsock: {error}")),
            }
        }
        if let Err(error) = self.0.borrow_mut().flush() {
            crate::say(&format!("vsock: {error}"));
        }
    }

    fn packet(self: &Rc<Self>, bytes: &[u8]) {
        let Some(packet) = Packet::read(bytes) else { return };
        let (guest, host) = (packet.from, packet.to);
        let ports = (host.1, guest.1);
        let mut inner = self.0.borrow_mut();
        if guest.0 != inner.cid || host.0 != HOST {
            return;
        }
        if packet.operation == Operation::Request {
            let full = inner.connections.len() >= MAX_CONNECTIONS;
            if full || inner.connections.contains_key(&ports) {
                return inner.reset(ports);
            }
            drop(inner);
            spawn_local(self.clone().dial(packet, ports));
            return;
        }
        let inner = &mut *inner;
        let Some(connection) = inner.connections.get_mut(&ports) else {
            if packet.operation != Operation::Reset {
                inner.reset(ports);
            }
            return;
        };
        (connection.guest_room, connection.guest_passed_on) = (packet.room, packet.passed_on);
        let mut over = false;
        match packet.operation {
            Operation::Response => connection.accepted = true,
            Operation::Data => over = connection.to_socket.send(packet.data).is_err(),
            Operation::AskCredit => inner.send(ports, Operation::Credit, 0, Vec::new()),
            Operation::Shutdown => {
                connection.shut |= packet.flags;
                over = connection.shut & NO_MORE_READS != 0 && connection.shut & NO_MORE_WRITES != 0;
            }
            Operation::Reset => {
                inner.connections.remove(&ports);
                return;
            }
            Operation::Request | Operation::Credit => {}
        }
        if let Some(connection) = inner.connections.get(&ports) {
            connection.changed.notify_one();
        }
        if over {
            inner.end(ports);
        }
    }

    /// A connection that the guest asks for.
    async fn dial(self: Rc<Self>, request: Packet, ports: Ports) {
        let mut socket = self.0.borrow().socket.clone().into_os_string();
        socket.push(format!("_{}", ports.0));
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                self.open(ports, stream, Some((request.room, request.passed_on)));
                self.0.borrow_mut().send(ports, Operation::Response, 0, Vec::new());
            }
            Err(_) => self.0.borrow_mut().reset(ports),
        }
        self.work();
    }

    /// A connection that the host asks for with a command.
    async fn connect(self: Rc<Self>, mut stream: UnixStream) {
        let Some(port) = command(&mut stream).await else { return };
        let ports = {
            let mut inner = self.0.borrow_mut();
            if inner.connections.len() >= MAX_CONNECTIONS {
                return;
            }
            let host = inner.next_port;
            inner.next_port = host.wrapping_add(1).max(FIRST_PORT);
            (host, port)
        };
        self.open(ports, stream, None);
        self.0.borrow_mut().send(ports, Operation::Request, 0, Vec::new());
        self.work();
    }

    /// Keeps a connection; with the guest's room if it has accepted it already.
    fn open(self: &Rc<Self>, ports: Ports, mut stream: UnixStream, accepted: Option<(u32, u32)>) {
        let (to_socket, from_guest) = mpsc::unbounded_channel();
        let changed = Rc::new(Notify::new());
        let (mux, by_host, notified) = (self.clone(), accepted.is_none(), changed.clone());
        let task = spawn_local(async move {
            if !by_host || mux.announce(ports, &mut stream, &notified).await {
                mux.clone().carry(ports, stream, from_guest, &notified).await;
            }
            mux.0.borrow_mut().drop_connection(ports);
            mux.work();
        });
        let (guest_room, guest_passed_on) = accepted.unwrap_or_default();
        let connection = Connection {
            guest_room,
            guest_passed_on,
            sent: 0,
            passed_on: 0,
            told: 0,
            shut: 0,
            accepted: accepted.is_some(),
            to_socket,
            changed,
            task: task.abort_handle(),
        };
        self.0.borrow_mut().connections.insert(ports, connection);
    }

    /// Tells the host of a connection that the guest has accepted; whether it has.
    async fn announce(&self, ports: Ports, stream: &mut UnixStream, changed: &Notify) -> bool {
        let line = format!("OK {}\n", ports.0);
        timeout(LIMIT, self.accepted(ports, changed)).await.is_ok()
            && stream.write_all(line.as_bytes()).await.is_ok()
    }

    /// Carries what both sides send, until one of them ends the connection.
    async fn carry(
        self: Rc<Self>,
        ports: Ports,
        stream: UnixStream,
        from_guest: mpsc::UnboundedReceiver<Vec<u8>>,
        changed: &Notify,
    ) {
        let (reader, writer) = stream.into_split();
        tokio::select! {
            () = self.read(ports, reader, changed) => {
                let flags = NO_MORE_READS | NO_MORE_WRITES;
                self.0.borrow_mut().send(ports, Operation::Shutdown, flags, Vec::new());
                self.work();
                // The guest agrees by a reset, which ends this.
                tokio::time::sleep(LIMIT).await;
            }
            () = self.write(ports, writer, from_guest) => {}
        }
    }

    async fn accepted(&self, ports: Ports, changed: &Notify) {
        let accepted =
            || self.0.borrow().connections.get(&ports).is_some_and(|connection| connection.accepted);
        while !accepted() {
            changed.notified().await;
        }
    }

    /// Sends what comes from the socket, as far as the guest has room.
    async fn read(self: &Rc<Self>, ports: Ports, mut reader: OwnedReadHalf, changed: &Notify) {
        let mut buffer = vec![0; usize::try_from(CHUNK).unwrap_or_default()];
        loop {
            let (credit, waiting, room) = {
                let inner = self.0.borrow();
                let Some(connection) = inner.connections.get(&ports) else { return };
                (connection.credit().min(CHUNK), inner.to_guest.len(), inner.room.clone())
            };
            if waiting >= MAX_WAITING {
                room.notified().await;
                continue;
            }
            if credit == 0 {
                self.0.borrow_mut().send(ports, Operation::AskCredit, 0, Vec::new());
                self.work();
                changed.notified().await;
                continue;
            }
            let Some(part) = buffer.get_mut(..usize::try_from(credit).unwrap_or_default()) else { return };
            match reader.read(part).await {
                Ok(len @ 1..) => {
                    let data = part.get(..len).unwrap_or_default().to_owned();
                    self.0.borrow_mut().send(ports, Operation::Data, 0, data);
                    self.work();
                }
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Writes what comes from the guest, until it has ended the connection.
    async fn write(
        self: &Rc<Self>,
        ports: Ports,
        mut writer: OwnedWriteHalf,
        mut from_guest: mpsc::UnboundedReceiver<Vec<u8>>,
    ) {
        while let Some(data) = from_guest.recv().await {
            // The end of a connection follows its data.
            if data.is_empty() || writer.write_all(&data).await.is_err() {
                return;
            }
            self.0.borrow_mut().passed_on(ports, data.len());
            self.work();
        }
    }
}

impl Inner {
    fn packet(&self, ports: Ports, operation: Operation, flags: u32, data: Vec<u8>) -> Packet {
        let passed_on = self.connections.get(&ports).map_or(0, |connection| connection.passed_on);
        Packet {
            operation,
            from: (HOST, ports.0),
            to: (self.cid, ports.1),
            flags,
            room: ROOM,
            passed_on,
            data,
        }
    }

    fn send(&mut self, ports: Ports, operation: Operation, flags: u32, data: Vec<u8>) {
        let packet = self.packet(ports, operation, flags, data);
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.sent =
                connection.sent.wrapping_add(u32::try_from(packet.data.len()).unwrap_or_default());
            connection.told = connection.passed_on;
        }
        self.to_guest.push_back(packet);
    }

    fn reset(&mut self, ports: Ports) {
        self.send(ports, Operation::Reset, 0, Vec::new());
    }

    /// The guest has ended a connection: what it sent before still gets to the socket.
    fn end(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get(&ports) {
            let _gone = connection.to_socket.send(Vec::new());
        }
    }

    /// Ends a connection from this side.
    fn drop_connection(&mut self, ports: Ports) {
        if self.connections.contains_key(&ports) {
            self.reset(ports);
            self.connections.remove(&ports);
        }
    }

    fn passed_on(&mut self, ports: Ports, len: usize) {
        let Some(connection) = self.connections.get_mut(&ports) else { return };
        connection.passed_on = connection.passed_on.wrapping_add(u32::try_from(len).unwrap_or_default());
        if connection.passed_on.wrapping_sub(connection.told) >= ROOM / 2 {
            self.send(ports, Operation::Credit, 0, Vec::new());
        }
    }

    /// Gives the guest as many packets as it has room for.
    fn flush(&mut self) -> io::Result<()> {
        let Some((receive, _)) = &mut self.rings else { return Ok(()) };
        while let Some(packet) = self.to_guest.front_mut() {
            let mut rest = Vec::new();
            let put = receive.put(|len| {
                // Data is cut where an entry ends.
                rest = packet.data.split_off(packet.data.len().min(len.saturating_sub(HEADER)));
                packet.bytes()
            })?;
            if !put {
                return Ok(());
            }
            if rest.is_empty() {
                self.to_guest.pop_front();
            } else {
                packet.data = rest;
            }
        }
        self.room.notify_waiters();
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The port of a command, `CONNECT 1024`. Whoever gives another one is left without a word.
async fn command(stream: &mut UnixStream) -> Option<u32> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.ok()?);
        if line.len() > MAX_COMMAND {
            return None;
        }
    }
    let line = std::str::from_utf8(&line).ok()?;
    let (word, port) = line.trim_end().split_once(' ')?;
    word.eq_ignore_ascii_case("CONNECT").then(|| port.parse().ok())?
}
