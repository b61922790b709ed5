//! Signals that end a command.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal as Number, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// How long the programs that build assets may take to clear up.
const CLEAR_UP: Duration = Duration::from_secs(20);

/// How often it is looked whether they have ended.
const LOOK: Duration = Duration::from_millis(100);

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

/// Ends the programs that this one has started, with theirs, and waits until they have cleared up: a build of assets is
/// in a thread of its own, which nothing interrupts.
pub(crate) async fn end_programs() {
    let mut told: HashSet<Pid> = HashSet::new();
    let deadline = Instant::now() + CLEAR_UP;
    loop {
        let running = descendants(getpid());
        let late = Instant::now() >= deadline;
        let signal = if late { Number::KILL } else { Number::TERM };
        // Of those that come later, only programs of our own are told: the others are there to clear up.
        let own: HashSet<Pid> = children(getpid()).into_iter().collect();
        let first = told.is_empty();
        for pid in &running {
            if late || (first || own.contains(pid)) && told.insert(*pid) {
                let _ended = kill_process(*pid, signal);
            }
        }
        if running.is_empty() || late {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The processes below one, as far as they can be seen.
fn descendants(root: Pid) -> Vec<Pid> {
    let mut found = children(root);
    let mut looked_at = 0;
    while let Some(pid) = found.get(looked_at).copied() {
        looked_at += 1;
        found.extend(children(pid));
    }
    found
}

fn children(of: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", of.as_raw_nonzero()));
    let lists = threads.into_iter().flatten().flatten();
    let lists =
        lists.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let pids = |list: String| -> Vec<Pid> {
        list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    };
    lists.flat_map(pids).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn programs_end_with_those_that_they_have_started() {
        let mut shell = std::process::Command::new("sh");
        let mut shell = shell.args(["-c", "sleep 1000 & sleep 1000; true"]).spawn().expect("it starts");
        let waiting = tokio::task::spawn_blocking(move || shell.wait().expect("it ends"));
        end_programs().await;
        assert!(!waiting.await.expect("the thread ends").success());
        assert!(descendants(getpid()).is_empty());
    }
}
