//! One exec request from its start to its exit event.

use std::{pin::Pin, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal};
use tart_proto::{
    MuxError, StreamItem, StreamReader, StreamWriter,
    message::{CHANNEL_STDIN, Exec, ExitStatus, Exited, Failure, GuestEvent, HostControl, decode},
    time::scaled,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    cgroup::{Step, Usage},
    input::Input,
    output,
    spawn::{self, Running},
};
use crate::{console, failure, machine::Machine};

/// How long a killed cgroup may take to empty. The kernel needs that long only when processes hang in it.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The part of a cancellation that is under way.
type Cancellation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the command; everything but a broken stream is reported on it.
pub(crate) async fn run(
    machine: &Arc<Machine>,
    request: &Exec,
    reader: StreamReader,
    writer: StreamWriter,
) -> Result<(), MuxError> {
    let started = machine
        .cgroups
        .step(&request.cgroup, &request.limits)
        .and_then(|step| Ok((step.usage(), spawn::spawn(machine, request, &step)?, step)));
    let event = match started {
        Ok((before, running, step)) => {
            let pid = running.pid;
            let guard = KillGuard { pid, armed: true };
            send(&writer, &GuestEvent::Started { pid: pid.as_raw_pid().cast_unsigned() }).await?;
            let mut command = Command::new(step, running, before, guard);
            match command.drive(machine, reader, &writer).await? {
                Ok(exited) => GuestEvent::Exited(exited),
                Err(failure) => GuestEvent::Failed(failure),
            }
        }
        Err(failure) => GuestEvent::Failed(failure),
    };
    send(&writer, &event).await?;
    writer.close().await
}

async fn send(writer: &StreamWriter, event: &GuestEvent) -> Result<(), MuxError> {
    crate::session::send(writer, event).await
}

/// Kills a command whose stream is gone.
#[derive(Debug)]
struct KillGuard {
    pid: Pid,
    armed: bool,
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        if self.armed {
            let _gone = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }
}

struct Command {
    step: Step,
    running: Running,
    before: Usage,
    guard: KillGuard,
    input: Input,
    status: Option<ExitStatus>,
    cancellation: Option<Cancellation>,
}

impl Command {
    fn new(step: Step, mut running: Running, before: Usage, guard: KillGuard) -> Self {
        let input = Input::new(running.stdin.take(), running.terminal.is_some());
        Self { step, running, before, guard, input, status: None, cancellation: None }
    }

    async fn drive(
        &mut self,
        machine: &Arc<Machine>,
        mut reader: StreamReader,
        writer: &StreamWriter,
    ) -> Result<Result<Exited, Failure>, MuxError> {
        let (ended, ended_seen) = watch::channel(None);
        let mut pumps = JoinSet::new();
        for (channel, source) in std::mem::take(&mut self.running.outputs) {
            pumps.spawn(output::pump(source, channel, writer.clone(), ended_seen.clone()));
        }
        drop(ended_seen);
        let mut listening = true;
        while self.status.is_none() || !pumps.is_empty() || self.cancellation.is_some() {
            tokio::select! {
                exit = &mut self.running.exit, if self.status.is_none() => {
                    let Ok(status) = exit else {
                        return Ok(Err(failure::other("the agent lost track of the command")));
                    };
                    self.status = Some(status);
                    self.guard.armed = false;
                    give_back(&reader, self.input.close());
                    ended.send_replace(Some(Instant::now()));
                }
                Some(pump) = pumps.join_next(), if !pumps.is_empty() => {
                    // A pump panics only with the whole agent.
                    if let Some(open) = pump.unwrap_or(Ok(None))? {
                        machine.background.spawn(output::discard(open));
                    }
                }
                () = cancelled(&mut self.cancellation) => self.cancellation = None,
                done = self.input.feed() => give_back(&reader, done),
                item = reader.next_on_credit(), if listening => match item {
                    StreamItem::Closed => listening = false,
                    StreamItem::Reset(_) => {
                        // The host has lost interest without a word on how to end this: at once.
                        self.guard.armed = self.status.is_none();
                        return Err(MuxError::Closed);
                    }
                    item => give_back(&reader, self.take(item)),
                },
            }
        }
        let after = self.step.usage();
        Ok(match self.status {
            Some(status) => Ok(Exited {
                status,
                oom_kills: after.oom_kills.saturating_sub(self.before.oom_kills),
                cpu_usec: after.cpu_usec.saturating_sub(self.before.cpu_usec),
                memory_peak_bytes: after.memory_peak_bytes,
            }),
            None => Err(failure::other("the agent lost track of the command")),
        })
    }

    /// Gives the length of a data item back that is done with.
    fn take(&mut self, item: StreamItem) -> Option<usize> {
        match item {
            StreamItem::Data { channel: CHANNEL_STDIN, bytes } => return self.input.push(bytes),
            StreamItem::Data { bytes, .. } => return Some(bytes.len()),
            StreamItem::Eof { channel: CHANNEL_STDIN } => self.input.end(),
            StreamItem::Message(bytes) => match decode::<HostControl>(&bytes) {
                Ok(control) => self.control(control),
                Err(error) => console::say(format_args!("control of a command: {error}")),
            },
            _ => {}
        }
        None
    }

    fn control(&mut self, control: HostControl) {
        match control {
            HostControl::Signal(number) => {
                // The process group may be another's once its leader was collected.
                if let (None, Some(signal)) = (self.status, Signal::from_named_raw(number)) {
                    let _gone = rustix::process::kill_process_group(self.running.pid, signal);
                }
            }
            HostControl::Cancel { grace_ms } => {
                let grace = Duration::from_millis(grace_ms.into());
                self.cancellation = Some(Box::pin(cancel(self.step.clone(), grace)));
            }
            HostControl::Resize { rows, cols } => {
                if let Some(terminal) = &self.running.terminal {
                    use std::os::fd::AsFd;
                    let _gone = spawn::resize(terminal.as_fd(), rows, cols);
                }
            }
        }
    }
}

fn give_back(reader: &StreamReader, lengths: impl IntoIterator<Item = usize>) {
    for len in lengths {
        reader.consumed(len);
    }
}

async fn cancelled(cancellation: &mut Option<Cancellation>) {
    match cancellation {
        Some(cancellation) => cancellation.await,
        None => std::future::pending().await,
    }
}

/// TERM to everything in the cgroup; KILL to what is left after the grace.
async fn cancel(step: Step, grace: Duration) {
    if !grace.is_zero() {
        step.signal_all(Signal::TERM);
        // A stopped process would not see the signal.
        step.signal_all(Signal::CONT);
        if let Ok(Ok(())) = tokio::time::timeout(grace, step.emptied()).await {
            return;
        }
    }
    step.kill();
    let _hanging = tokio::time::timeout(scaled(KILL_LIMIT), step.emptied()).await;
}
