//! The server of a machine's memory, page by page (microvm.md 1.5, `Uffd`).
//!
//! Firecracker connects as it loads a snapshot, says where its guest's memory is, and gives a userfaultfd: whoever touches a
//! page that is not there yet waits until this server has copied it from the snapshot. So the server has a thread of its
//! own, on which nothing else waits, and kills the machine if it cannot go on: its guest would wait for ever.

mod events;
mod handshake;
mod mappings;
pub(super) mod permission;
mod serve;
mod userfault;

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::{Snapshot, process::Killer};
use userfault::Memory;

/// Name of the socket in the machine's directory, which is Firecracker's working directory.
pub(super) const SOCKET: &str = "memory.sock";

/// How long the message may take after the connection, which Firecracker sends at once.
const MESSAGE_LIMIT: Duration = Duration::from_secs(20);

/// A server that waits for its machine to be started.
#[derive(Debug)]
pub(super) struct Listening {
    listener: UnixListener,
    memory: Memory,
    memory_bytes: u64,
}

impl Listening {
    /// Serves whom a listener at [`SOCKET`] brings.
    pub(super) fn new(listener: UnixListener, snapshot: &Snapshot) -> io::Result<Self> {
        let memory_bytes = snapshot.memory_bytes();
        let memory = Memory::map(snapshot.memory_reader()?, memory_bytes)?;
        Ok(Self { listener, memory, memory_bytes })
    }

    /// Serves the process with this number, and kills it if that fails.
    pub(super) fn serve(self, pid: u32, killer: Killer) -> io::Result<PageServer> {
        let (stop, stopped) = pipe_with(PipeFlags::CLOEXEC)?;
        let problem = Arc::new(OnceLock::new());
        let fate = Fate { killer, problem: problem.clone() };
        let serve = move || fate.decide(self.run(pid, &stop));
        // Nobody waits for the thread: it ends as soon as its owner or the process is gone.
        let _detached = thread::Builder::new().name("tart-pages".to_owned()).spawn(serve)?;
        Ok(PageServer { problem, _owner: stopped })
    }

    fn run(self, pid: u32, stop: &OwnedFd) -> Result<(), String> {
        let Self { listener, memory, memory_bytes } = self;
        let received = handshake::receive(&listener, pid, memory_bytes, stop)?;
        drop(listener);
        match received {
            Some((mut mappings, userfault)) => serve::serve(&userfault, &mut mappings, &memory, stop),
            None => Ok(()),
        }
    }
}

/// Kills the machine when the thread ends, for whatever reason. One that has ended by itself keeps its own status.
#[derive(Debug)]
struct Fate {
    killer: Killer,
    problem: Arc<OnceLock<String>>,
}

impl Fate {
    fn decide(self, served: Result<(), String>) {
        if let Err(problem) = served {
            let _first = self.problem.set(problem);
        }
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        if thread::panicking() {
            let _first = self.problem.set("its server panicked".to_owned());
        }
        self.killer.kill();
    }
}

/// The server of a machine's memory; ends when dropped.
#[derive(Debug)]
pub(super) struct PageServer {
    problem: Arc<OnceLock<String>>,
    /// The thread sees that it is closed.
    _owner: OwnedFd,
}

impl PageServer {
    /// Why it has killed the machine, if it has.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.get().map(|problem| format!("cannot be given its memory page by page: {problem}"))
    }
}
