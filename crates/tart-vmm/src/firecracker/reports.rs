//! What Firecracker reports beside the guest's console: its log and its metrics (microvm.md 1.2).
//!
//! Both go through pipes in the machine's directory: what a guest makes Firecracker write takes no room on a disk, the
//! last of it is kept, and a pipe that is full loses what comes instead of holding the guest up.

mod counting;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, mkfifoat, openat, unlinkat};
use serde_json::json;
use tokio::{net::unix::pipe::Receiver, task::JoinSet};

use super::requests::Request;
use crate::{MachineCounters, console::Tail};
use counting::Counting;

/// Names of the pipes in the machine's directory, which is Firecracker's working directory.
pub(super) const LOG: &str = "firecracker.log";
pub(super) const METRICS: &str = "firecracker.metrics";

/// Kept of the log, in bytes.
const LOG_TAIL: usize = 4 * 1024;

/// Reads at once: more than the kernel keeps for a pipe.
const MAX_READS: usize = 32;

/// What Firecracker is told before everything else, also before it goes on from a saved machine.
pub(super) fn requests() -> [Request; 2] {
    let log = json!({ "log_path": LOG, "level": "Warning", "show_level": true, "show_log_origin": false });
    [Request::put("/logger", log), Request::put("/metrics", json!({ "metrics_path": METRICS }))]
}

/// Flushes metrics.
pub(super) fn flush() -> Request {
    Request::put("/actions", json!({ "action_type": "FlushMetrics" }))
}

/// Makes a pipe in the machine's directory, and opens its end.
pub(super) fn make_pipe(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    // A machine's directory may have been used before.
    let _absent = unlinkat(&dir, name, AtFlags::empty());
    mkfifoat(&dir, name, Mode::RUSR | Mode::WUSR)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pipe = openat(&dir, name, flags, Mode::empty())?;
    // A jailed Firecracker is another user, who reaches no directory but its own machine's. It opens pipes for
    // reading too, so that opening never fails for want of a reader; it reads nothing.
    fchmod(&pipe, Mode::from_raw_mode(0o666))?;
    Ok(pipe)
}

/// The log and the metrics of a machine.
#[derive(Debug)]
pub(super) struct Reports {
    log: Arc<Pipe<Tail>>,
    metrics: Arc<Pipe<Counting>>,
    _readers: JoinSet<()>,
}

impl Reports {
    /// Reads these pipes from now on.
    pub(super) fn read(log: OwnedFd, metrics: OwnedFd) -> io::Result<Self> {
        let log = Arc::new(Pipe::new(log, Tail::new(LOG_TAIL))?);
        let metrics = Arc::new(Pipe::new(metrics, Counting::default())?);
        let mut readers = JoinSet::new();
        readers.spawn(log.clone().follow());
        readers.spawn(metrics.clone().follow());
        Ok(Self { log, metrics, _readers: readers })
    }

    /// The last lines of the log.
    pub(super) fn log(&self) -> String {
        self.log.take();
        let text = self.log.sink(|tail| tail.text());
        // The first one is not whole if there were more.
        match text.split_once('\n') {
            Some((_, rest)) if text.len() + 4 > LOG_TAIL => rest.to_owned(),
            _ => text,
        }
    }

    /// What was counted so far; nothing if no metrics came.
    pub(super) fn counters(&self) -> Option<MachineCounters> {
        self.metrics.take();
        self.metrics.sink(|counting| counting.total())
    }
}

/// What is read from a pipe.
trait Sink: Send + 'static {
    fn push(&mut self, chunk: &[u8]);
}

impl Sink for Tail {
    fn push(&mut self, chunk: &[u8]) {
        self.keep(chunk);
    }
}

impl Sink for Counting {
    fn push(&mut self, chunk: &[u8]) {
        self.read(chunk);
    }
}

#[derive(Debug)]
struct Pipe<S> {
    receiver: Receiver,
    sink: Mutex<S>,
}

impl<S: Sink> Pipe<S> {
    fn new(pipe: OwnedFd, sink: S) -> io::Result<Self> {
        Ok(Self { receiver: Receiver::from_owned_fd(pipe)?, sink: Mutex::new(sink) })
    }

    fn sink<T>(&self, with: impl FnOnce(&mut S) -> T) -> T {
        with(&mut self.sink.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what comes until Firecracker is gone.
    async fn follow(self: Arc<Self>) {
        let mut buffer = [0; 4096];
        while self.receiver.readable().await.is_ok() {
            let open = self.sink(|sink| match self.receiver.try_read(&mut buffer) {
                Ok(len @ 1..) => {
                    sink.push(buffer.get(..len).unwrap_or_default());
                    true
                }
                Ok(0) => false,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            });
            if !open {
                return;
            }
        }
    }

    /// Reads what is there now: the runtime may not have heard of it yet.
    fn take(&self) {
        let mut buffer = [0; 4096];
        self.sink(|sink| {
            for _ in 0..MAX_READS {
                match rustix::io::read(&self.receiver, &mut buffer) {
                    Ok(len @ 1..) => sink.push(buffer.get(..len).unwrap_or_default()),
                    _ => return,
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn reports() -> (tempfile::TempDir, Reports) {
        let dir = tempfile::tempdir().unwrap();
        let reports = in_dir(dir.path());
        (dir, reports)
    }

    fn in_dir(dir: &std::path::Path) -> Reports {
        let dir = File::open(dir).unwrap();
        let [log, metrics] = [LOG, METRICS].map(|name| make_pipe(&dir, name).unwrap());
        Reports::read(log, metrics).unwrap()
    }

    #[tokio::test]
    async fn a_firecracker_of_another_user_may_open_the_pipes_both_ways() {
        let (dir, _reports) = reports();
        for name in [LOG, METRICS] {
            let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o666, "{name}");
        }
    }

    #[tokio::test]
    async fn what_is_written_is_there_at_once_and_after_the_writers_end() {
        let (dir, reports) = reports();
        assert_eq!((reports.log(), reports.counters()), (String::new(), None));
        let open = |name: &str| File::options().write(true).open(dir.path().join(name)).unwrap();
        let (mut log, mut metrics) = (open(LOG), open(METRICS));
        log.write_all(b"[Warn] \x1b[1mone\n").unwrap();
        assert_eq!(reports.log(), "[Warn] one\n");
        log.write_all(b"two\n").unwrap();
        metrics.write_all(b"{\"seccomp\":{\"num_faults\":1}}\n").unwrap();
        drop((log, metrics));
        assert_eq!(reports.log(), "[Warn] one\ntwo\n");
        assert_eq!(reports.counters().unwrap().forbidden_calls, 1);
    }

    #[tokio::test]
    async fn a_flood_is_read_on_and_only_whole_lines_of_its_end_are_kept() {
        let (dir, reports) = reports();
        let path = dir.path().join(LOG);
        let flood = move || {
            let mut log = File::options().write(true).open(path).unwrap();
            for number in 0..100_000 {
                writeln!(log, "line {number}").unwrap();
            }
        };
        // It would wait for ever if nobody read.
        tokio::task::spawn_blocking(flood).await.unwrap();
        let log = reports.log();
        assert!(log.ends_with("line 99999\n") && log.starts_with("line ") && log.len() <= LOG_TAIL, "{log}");
    }

    #[tokio::test]
    async fn a_directory_can_be_used_again() {
        let (dir, first) = reports();
        drop(first);
        in_dir(dir.path());
    }
}
