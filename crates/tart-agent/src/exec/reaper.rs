//! The one place that waits for processes.
//!
//! PID 1 inherits every orphan of the guest. One loop collects all of them; processes that somebody here started
//! are reported to their starter, strangers are forgotten.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus},
};
use tart_proto::message::ExitStatus;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::console;

/// Collects the exit status of processes.
#[derive(Debug, Clone, Default)]
pub struct Reaper {
    waiting: Arc<Mutex<HashMap<Pid, oneshot::Sender<ExitStatus>>>>,
}

impl Reaper {
    /// Starts a process and promises its exit status. No process is collected meanwhile, so that one that ends at
    /// once is still known.
    pub(super) fn start(
        &self,
        start: impl FnOnce() -> io::Result<Pid>,
    ) -> io::Result<(Pid, oneshot::Receiver<ExitStatus>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = start()?;
        let (sender, receiver) = oneshot::channel();
        waiting.insert(pid, sender);
        Ok((pid, receiver))
    }

    /// Collects processes for as long as it is polled.
    ///
    /// # Errors
    /// If the signal handler cannot be set up.
    pub async fn run(self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            self.collect();
            if children.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    /// Collects everything that has ended; one signal may stand for many processes.
    fn collect(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some((exit, sender)) = exit_status(status).zip(waiting.remove(&pid)) {
                        // A starter that is gone does not care.
                        let _status = sender.send(exit);
                    }
                }
                Ok(None) | Err(Errno::CHILD) => return,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    console::say(format_args!("cannot wait for processes: {errno}"));
                    return;
                }
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    let code = status.exit_status().map(ExitStatus::Code);
    code.or_else(|| status.terminating_signal().map(ExitStatus::Signal))
}
