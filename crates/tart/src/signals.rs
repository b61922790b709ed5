//! Signals that end a command.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the signals by which people and service managers end programs.
#[derive(Debug)]
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    /// From now on these signals no longer kill the process.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next of them, by its name in job logs. May be dropped and called again; no signal is lost.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminated",
            _ = self.hangup.recv() => "hangup",
        }
    }
}
