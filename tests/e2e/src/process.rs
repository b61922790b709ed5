//! The program under test, as a child process.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::output::Output;

/// The program under test.
///
/// # Panics
/// When `TART_BINARY` does not name it.
#[must_use]
pub fn program() -> PathBuf {
    let path = std::env::var_os("TART_BINARY").map(PathBuf::from);
    let path =
        path.expect("TART_BINARY names the program: run `dev/test`, or eval \"$(cargo xtask build)\" first");
    assert!(path.is_file(), "TART_BINARY names {}, which is not there", path.display());
    path
}

/// A running child process. It is killed when this is dropped, and its output is shown if the test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Output,
    readers: JoinSet<()>,
}

impl Process {
    /// Starts a command with its output captured.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let arguments = command.as_std().get_args();
        let name = arguments.map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {command:?}: {error}"),
        };
        let output = Output::new();
        let mut readers = JoinSet::new();
        let pipes = (child.stdout.take(), child.stderr.take());
        readers.spawn(output.clone().read(pipes.0.expect("standard output is a pipe")));
        readers.spawn(output.clone().read(pipes.1.expect("standard error is a pipe")));
        Self { name, child, output, readers }
    }

    /// Its number.
    ///
    /// # Panics
    /// When its end was waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("its end was not waited for")
    }

    /// The most memory that it had so far, in KiB.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// What it has printed so far, standard output and error together.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Waits until it has printed a text.
    ///
    /// # Panics
    /// After `limit`.
    pub async fn wait_output(&self, text: &str, limit: Duration) {
        if let Err(message) = self.output.wait_for(text, limit).await {
            panic!("`{}`: {message}", self.name);
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.unwrap_or_else(|| panic!("`{}` has ended already", self.name));
        kill_process(pid, signal).expect("a child that was not waited for takes signals");
    }

    /// Asks `tart run` to end once its jobs are done.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn drain(&self) {
        self.signal(Signal::QUIT);
    }

    /// Waits for its end and the end of its output.
    ///
    /// # Panics
    /// After `limit`.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let ended = async {
            let status = self.child.wait().await.expect("a child can be waited for");
            while self.readers.join_next().await.is_some() {}
            status
        };
        let limit = tart_proto::time::scaled(limit);
        match tokio::time::timeout(limit, ended).await {
            Ok(status) => status,
            Err(_) => panic!("`{}` did not end within {limit:?}", self.name),
        }
    }

    /// Waits for its end, which must be a success, and returns what it printed.
    ///
    /// # Panics
    /// After `limit`, or when it fails.
    pub async fn succeed(mut self, limit: Duration) -> String {
        let status = self.wait(limit).await;
        assert!(status.success(), "`{}` ended with {status}", self.name);
        self.output()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut error = std::io::stderr();
            writeln!(error, "--- output of `{}`\n{}--- end of output", self.name, self.output()).ok();
        }
    }
}
