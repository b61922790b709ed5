//! A host and an outside that are network namespaces of the measurement.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server of the outside.
pub(super) const SERVER: &str = "198.51.100.10";

/// Sends [`AMOUNT`] bytes.
pub(super) const SOURCE: u16 = 5001;
/// Takes bytes until their end, then says so.
pub(super) const SINK: u16 = 5002;
/// Sends back what comes.
pub(super) const ECHO: u16 = 5003;

/// Bytes of one transfer.
pub(super) const AMOUNT: usize = 64 << 20;

/// The namespaces; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Lab {
    name: String,
}

impl Lab {
    /// Makes them and moves this thread, and what it starts, into the host's.
    pub(super) fn enter() -> Result<Self> {
        let lab = Self { name: format!("tm{}", std::process::id()) };
        let (host, out) = (lab.host(), lab.outside());
        for command in [
            format!("netns add {host}"),
            format!("netns add {out}"),
            format!("link add up0 netns {host} type veth peer name up0 netns {out}"),
            format!("-n {host} link set lo up"),
            format!("-n {host} address add 203.0.113.2/24 dev up0"),
            format!("-n {host} link set up0 up"),
            format!("-n {host} route add default via 203.0.113.1"),
            format!("-n {out} link set lo up"),
            format!("-n {out} address add 203.0.113.1/24 dev up0"),
            format!("-n {out} address add {SERVER}/32 dev lo"),
            format!("-n {out} link set up0 up"),
        ] {
            ip(&command)?;
        }
        move_to(&out)?;
        for (port, serve) in [(SOURCE, source as fn(TcpStream)), (SINK, sink), (ECHO, echo)] {
            let listener = TcpListener::bind((SERVER, port)).context("cannot listen in the namespace")?;
            thread::spawn(move || listener.incoming().flatten().for_each(serve));
        }
        move_to(&host)?;
        Ok(lab)
    }

    /// Name of the host's namespace.
    pub(super) fn host(&self) -> String {
        format!("{}-host", self.name)
    }

    fn outside(&self) -> String {
        format!("{}-out", self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [self.host(), self.outside()] {
            let _gone = ip(&format!("netns delete {name}"));
        }
    }
}

/// Runs `ip`.
pub(super) fn ip(words: &str) -> Result<()> {
    let status = Command::new("ip").args(words.split_whitespace()).status().context("cannot run ip")?;
    ensure!(status.success(), "ip {words}: {status}");
    Ok(())
}

fn move_to(name: &str) -> Result<()> {
    let namespace = File::open(format!("/run/netns/{name}")).context("the namespace is not there")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).context("this needs root")
}

// A client that goes away has what it wanted: whoever measures sees what is missing.

fn source(mut stream: TcpStream) {
    let bytes = vec![b'x'; 1 << 20];
    for _ in 0..AMOUNT >> 20 {
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn sink(mut stream: TcpStream) {
    let mut bytes = vec![0; 1 << 20];
    let mut left = AMOUNT;
    while left > 0 {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
    stream.write_all(b"all\n").ok();
}

fn echo(mut stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let mut bytes = [0; 64];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(bytes.get(..read).unwrap_or_default()).is_err() {
            return;
        }
    }
}
