//! The terminal of a job: a shell beside its scripts, and the wait for whoever uses it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tart_guest::{Command, CommandControl, CommandEvent, Guest};
use tart_job::Level;
use tart_job::literal::format_duration;
use tart_job::outcome::Failure;
use tart_job::scripts::SHELL_CANDIDATES;
use tart_proto::message::{Exec, FailureKind, Limits, Output, Root};
use tart_session::{Session, Terminal, TerminalInput, TerminalOutput};

use super::control::Scope;
use super::job::Job;
use super::log::JobLog;
use super::script::{PATH, Script};
use super::services::Services;

/// Its control group in the guest.
const CGROUP: &str = "terminal";

/// What programs are told of it. What GitLab shows in a browser is xterm.js.
const TERM: &str = "xterm-256color";

/// Its size until somebody says another.
const SIZE: Output = Output::Pty { rows: 24, cols: 80 };

/// A session that a job's server was offered.
#[derive(Debug, Clone)]
pub struct JobSession {
    /// The session. It is over with the job.
    pub session: Arc<Session>,
    /// How long somebody who is connected may hold the job at its end.
    pub timeout: Duration,
}

impl Job<'_> {
    /// Lets people in, where a script is about to run.
    pub(super) fn offer_terminal(&self, script: &Script, guest: &Guest) {
        let Some(JobSession { session, .. }) = &self.run.session else { return };
        let only_sh = self.run.runner.shell == tart_config::Shell::Sh;
        let shells = SHELL_CANDIDATES.into_iter().filter(|path| !only_sh || !path.ends_with("bash"));
        let starts = starts(script, &self.plan.dirs.build_dir, shells);
        session.set_terminal(Arc::new(GuestTerminal { guest: guest.clone(), starts }));
    }

    /// Waits for whoever is connected, within the session's limit and the job's time, and lets nobody in any more.
    pub(super) async fn wait_for_terminal(&mut self) {
        let Some(JobSession { session, timeout }) = &self.run.session else { return };
        let left = self.time_left().map_or(*timeout, |left| left.min(*timeout));
        let mut reason = "the job is over".to_owned();
        if session.is_connected() && !left.is_zero() {
            let limit = format_duration(rounded(left));
            self.log.line(Level::Info, &format!("Terminal is connected, will time out in {limit}..."));
            let scope = Scope { bounds: Vec::new(), cancellable: true };
            let wait = disconnected(session, &mut self.services, &mut self.log);
            let waited = self.control.unless_halted(&scope, tokio::time::timeout(left, wait)).await;
            let said = match waited {
                Ok(Ok(())) => "Terminal disconnected".to_owned(),
                Ok(Err(_)) => {
                    reason = format!("terminal session timed out (maximum time allowed - {limit})");
                    reason.clone()
                }
                Err(failure) => {
                    reason = ended_by(&failure);
                    "Terminal disconnected".to_owned()
                }
            };
            self.log.line(Level::Info, &said);
        }
        session.close(&reason);
    }
}

fn ended_by(failure: &Failure) -> String {
    match failure {
        Failure::Interrupted(signal) => format!("the runner ends ({signal})"),
        _ => "the job was canceled".to_owned(),
    }
}

/// To whole seconds, half ones up.
fn rounded(time: Duration) -> Duration {
    Duration::from_secs(time.saturating_add(Duration::from_millis(500)).as_secs())
}

/// Lines of services go to the log meanwhile.
async fn disconnected(session: &Session, services: &mut Services, log: &mut JobLog) {
    let mut gone = std::pin::pin!(session.disconnected());
    loop {
        log.ready().await;
        tokio::select! {
            biased;
            () = &mut gone => return,
            (number, lines) = services.lines() => log.service(number, &lines),
        }
    }
}

/// How a shell may be started, best first: in the project's directory, unless the job has removed it.
fn starts<'a>(script: &Script, directory: &str, shells: impl Iterator<Item = &'a str> + Clone) -> Vec<Exec> {
    let mut env = vec![("PATH".to_owned(), PATH.to_owned()), ("TERM".to_owned(), TERM.to_owned())];
    env.extend(script.environment.iter().cloned());
    let places = [directory, "/"].into_iter().flat_map(|cwd| shells.clone().map(move |shell| (cwd, shell)));
    let start = |(cwd, shell): (&str, &str)| Exec {
        root: Root::Job,
        argv: vec![shell.to_owned()],
        env: env.clone(),
        cwd: cwd.to_owned(),
        user: script.user.clone(),
        output: SIZE,
        stdin: true,
        cgroup: CGROUP.to_owned(),
        limits: Limits::default(),
    };
    places.map(start).collect()
}

/// Shells in the job's tree.
struct GuestTerminal {
    guest: Guest,
    starts: Vec<Exec>,
}

#[async_trait]
impl Terminal for GuestTerminal {
    async fn connect(&self) -> Result<Box<dyn TerminalOutput>, String> {
        for exec in &self.starts {
            match self.guest.exec(exec).await {
                Ok(command) => return Ok(Box::new(Shell(command))),
                Err(error) if error.failure_kind() == Some(FailureKind::NotFound) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("the image has no shell".to_owned())
    }
}

/// Ends with what this holds: the guest kills it then.
struct Shell(Command);

#[async_trait]
impl TerminalOutput for Shell {
    async fn next(&mut self) -> Option<Bytes> {
        match self.0.next().await {
            Ok(CommandEvent::Stdout(bytes) | CommandEvent::Stderr(bytes)) => Some(bytes),
            Ok(CommandEvent::Exited(_)) | Err(_) => None,
        }
    }

    fn input(&self) -> Arc<dyn TerminalInput> {
        Arc::new(Input(self.0.control()))
    }
}

struct Input(CommandControl);

#[async_trait]
impl TerminalInput for Input {
    async fn write(&self, bytes: Bytes) {
        // That it has ended shows in its output.
        let _ended = self.0.write_stdin(bytes).await;
    }

    async fn resize(&self, rows: u16, cols: u16) {
        let _ended = self.0.resize(rows, cols).await;
    }
}

#[cfg(test)]
mod tests {
    use tart_job::stages::Place;

    use super::*;

    #[test]
    fn a_shell_starts_where_and_as_the_script_does() {
        let script = Script {
            text: String::new(),
            place: Place::Job,
            shells: Vec::new(),
            environment: vec![("TERM".to_owned(), "vt100".to_owned())],
            user: "1000".to_owned(),
            cgroup: String::new(),
            directory: "/builds/p.tmp".to_owned(),
            files: Vec::new(),
        };
        let starts = starts(&script, "/builds/p", ["/bin/bash", "/bin/sh"].into_iter());
        let order: Vec<_> =
            starts.iter().map(|exec| format!("{} {}", exec.cwd, exec.argv.join(" "))).collect();
        assert_eq!(order, ["/builds/p /bin/bash", "/builds/p /bin/sh", "/ /bin/bash", "/ /bin/sh"]);
        assert_eq!((starts[0].user.as_str(), starts[0].root), ("1000", Root::Job));
        // The last of a name wins.
        assert_eq!(starts[0].env.last().unwrap().1, "vt100");
    }

    #[test]
    fn times_are_told_in_whole_seconds() {
        assert_eq!(rounded(Duration::from_millis(1499)), Duration::from_secs(1));
        assert_eq!(rounded(Duration::from_millis(1500)), Duration::from_secs(2));
        assert_eq!(rounded(Duration::MAX), Duration::from_secs(u64::MAX));
    }
}
