//! The process of QEMU.

use std::{
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{Signal, set_parent_process_death_signal},
};
use serde_json::json;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::spawn_local,
};

use super::{
    arguments::{Described, Inherited},
    initrd,
    mux::Mux,
    qmp::{Event, Qmp},
    vhost::Vhost,
};
use crate::{say, vsock::Vsock};

const PROGRAM: &str = "qemu-system-x86_64";

/// Loaded into QEMU, see `build.rs`; and its name in the working directory meanwhile.
const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.so"));
const SHIM_NAME: &str = "./standin.so";

/// How long the time stamp counter is watched.
const TSC_WINDOW: Duration = Duration::from_millis(20);

/// What a machine goes on from.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) state: Vec<u8>,
    pub(super) resumes: bool,
}

/// A running QEMU.
#[derive(Debug)]
pub(super) struct Qemu {
    pub(super) qmp: Qmp,
    pub(super) memory: File,
    quit: mpsc::Sender<oneshot::Sender<()>>,
}

impl Qemu {
    /// Starts QEMU, and the guest if it does not go on from a saved one.
    pub(super) async fn start(
        described: &Described,
        memory: File,
        vsock: Option<Vsock>,
        incoming: Option<Incoming>,
        ends: mpsc::UnboundedSender<u8>,
    ) -> Result<Self, String> {
        let failed = |e: io::Error| format!("Cannot start microvm: {e}");
        let (qmp, qmp_far) = StdUnixStream::pair().map_err(failed)?;
        let (vhost, vhost_far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| failed(e.into()))?;
        let state = incoming.as_ref().map(|incoming| file_of(&incoming.state)).transpose().map_err(failed)?;
        let inherited = Inherited { qmp: qmp_far.as_raw_fd(), vhost: vhost_far.as_raw_fd() };
        let arguments = described.arguments(inherited, tsc_khz(), incoming.is_some())?;
        fs::write(SHIM_NAME, SHIM).map_err(failed)?;
        let initrd = described.initrd().filter(|_| incoming.is_none());
        initrd.map(initrd::copy).transpose().map_err(failed)?;
        let mut inherit = vec![qmp_far.into(), vhost_far, OwnedFd::from(memory.try_clone().map_err(failed)?)];
        let memory_number = inherit.last().map_or(-1, |file| file.as_raw_fd());
        let state_number = state.as_ref().map_or(-1, |file| file.as_raw_fd());
        inherit.extend(state.map(OwnedFd::from));
        let child = spawn(&arguments, inherit, memory_number)
            .map_err(|e| format!("Cannot start microvm: cannot run {PROGRAM}: {e}"))?;

        if let Some(vsock) = vsock {
            let (path, listener) = vsock.into_parts();
            let mux = Mux::new(described.cid(), &path);
            let vhost =
                Vhost::new(vhost, memory.try_clone().map_err(failed)?, mux.clone()).map_err(failed)?;
            spawn_local(mux.accept(listener));
            spawn_local(async move {
                if let Err(error) = vhost.serve().await {
                    say(&format!("vsock: {error}"));
                }
            });
        }
        let (events, told) = mpsc::unbounded_channel();
        let (quit, asked) = mpsc::channel(1);
        spawn_local(watch(child, told, asked, ends));
        qmp.set_nonblocking(true).map_err(failed)?;
        let qmp = UnixStream::from_std(qmp).map_err(failed)?;
        let qmp =
            Qmp::begin(qmp, events).await.map_err(|problem| format!("Cannot start microvm: {problem}"))?;
        // QEMU has them in its memory by now.
        let copied = initrd.map(|_| initrd::NAME);
        [SHIM_NAME].into_iter().chain(copied).try_for_each(fs::remove_file).map_err(failed)?;
        if let Some(incoming) = incoming {
            qmp.prepare().await?;
            qmp.execute("migrate-incoming", json!({ "uri": format!("fd:{state_number}") })).await?;
            qmp.migrated().await?;
            if incoming.resumes {
                qmp.execute("cont", json!({})).await?;
            }
        }
        Ok(Self { qmp, memory, quit })
    }

    /// Kills it and waits for its end.
    pub(super) async fn end(&self) {
        let (sender, ended) = oneshot::channel();
        if self.quit.send(sender).await.is_ok() {
            // It may have ended by itself meanwhile.
            let _ended = ended.await;
        }
    }
}

fn spawn(arguments: &[String], inherit: Vec<OwnedFd>, memory: i32) -> io::Result<Child> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("LD_PRELOAD", SHIM_NAME).env("TART_STANDIN_MEMORY", memory.to_string());
    command.kill_on_drop(true);
    let prepare = move || {
        // It does not outlive this process, which may be killed.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        for file in &inherit {
            fcntl_setfd(file, FdFlags::empty())?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "a child that prepares itself")]
    // SAFETY: only system calls are made between fork and exec.
    unsafe {
        command.pre_exec(prepare);
    }
    command.spawn()
}

/// Tells of the machine's end, and ends it if it is asked to.
async fn watch(
    mut child: Child,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    ends: mpsc::UnboundedSender<u8>,
) {
    loop {
        tokio::select! {
            Some((event, data)) = events.recv() => {
                // A guest that switches itself off leaves Firecracker running; one that resets itself ends it.
                if event == "SHUTDOWN" && data["reason"] == "guest-reset" {
                    let _ending = ends.send(0);
                }
            }
            Some(asked) = asked.recv() => {
                let _ended = child.kill().await;
                let _gone = asked.send(());
                return;
            }
            status = child.wait() => {
                let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
                say(&format!("Error: {PROGRAM} ended: {status}"));
                let _ending = ends.send(1);
                return;
            }
        }
    }
}

fn file_of(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Frequency of the time stamp counter, in kHz, which an emulated processor passes through.
fn tsc_khz() -> u64 {
    let (start, first) = (Instant::now(), rdtsc());
    thread::sleep(TSC_WINDOW);
    let (nanos, last) = (start.elapsed().as_nanos().max(1), rdtsc());
    u64::try_from(u128::from(last.saturating_sub(first)) * 1_000_000 / nanos).unwrap_or(0)
}

fn rdtsc() -> u64 {
    #[expect(unsafe_code, reason = "reading the counter is an intrinsic")]
    // SAFETY: every x86-64 processor has the instruction, and it only reads a counter.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
}
