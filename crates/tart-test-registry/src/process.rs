//! A server process that does not outlive the test, with its output in memory.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// How long an expected line may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The lines that a process has printed.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Lines {
    fn follow(&self, output: impl Read) {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            self.lock().0.push(String::from_utf8_lossy(&line).into_owned());
            self.changed.notify_all();
        }
        self.lock().1 = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<String>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first line that has the text, and returns its number and the line.
    pub(crate) fn wait_for(&self, text: &str) -> anyhow::Result<(usize, String)> {
        let deadline = Instant::now() + LIMIT;
        let mut state = self.lock();
        loop {
            if let Some(found) = state.0.iter().enumerate().find(|(_, line)| line.contains(text)) {
                return Ok((found.0, found.1.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            anyhow::ensure!(!state.1, "the process ended without `{text}`:\n{}", state.0.join("\n"));
            anyhow::ensure!(!left.is_zero(), "no `{text}` within {LIMIT:?}:\n{}", state.0.join("\n"));
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().0.clone()
    }
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) stdout: Arc<Lines>,
    pub(crate) stderr: Arc<Lines>,
}

impl Server {
    /// Starts a program. It is killed when this value is dropped, or when this process ends.
    pub(crate) fn start(program: &'static str, arguments: Vec<String>) -> anyhow::Result<Self> {
        let (stdout, stderr) = (Arc::<Lines>::default(), Arc::<Lines>::default());
        let (sender, receiver) = mpsc::channel();
        let (out, err) = (stdout.clone(), stderr.clone());
        // The signal comes when the thread ends that started the process, so that thread stays as long as it.
        thread::spawn(move || {
            let child = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", program])
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let outputs = child.map(|mut child| (child.stdout.take(), child.stderr.take(), child));
            let Ok((stdout, stderr, child)) = outputs else {
                let _gone = sender.send(outputs.map(|(_, _, child)| child));
                return;
            };
            let _gone = sender.send(Ok(child));
            let reader = thread::spawn(move || stdout.map(|stdout| out.follow(stdout)));
            if let Some(stderr) = stderr {
                err.follow(stderr);
            }
            let _panicked = reader.join();
        });
        let child = receiver.recv()?.with_context(|| format!("cannot start {program} by setpriv"))?;
        Ok(Self { child, stdout, stderr })
    }

    /// Kills the process and waits for its end.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
