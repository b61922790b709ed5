//! A real agent on a socket pair, for tests.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tart_agent::{
    exec::{cgroup::Cgroups, reaper::Reaper},
    machine::Machine,
    transport,
    tree::Trees,
};
use tart_guest::{Command, CommandEvent, Guest, Relay};
use tart_proto::message::{Exec, Exited, Limits, Output, Root};
use tokio::{net::UnixStream, task::JoinSet};

/// Limit of what should take a moment.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it took too long")
}

/// An agent and a session with it.
pub(crate) struct Agent {
    pub(crate) guest: Guest,
    /// True at the end of the serving if the host asked for a shutdown.
    pub(crate) serving: JoinSet<bool>,
    pub(crate) cgroup: PathBuf,
    _etc: tempfile::TempDir,
}

impl Agent {
    /// The job tree is the test machine's own.
    pub(crate) async fn start(relay: Arc<dyn Relay>) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let cgroup2 = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let point = fields.next()?;
            (fields.next()? == "cgroup2").then_some(point)
        });
        let etc = tempfile::tempdir().unwrap();
        let name =
            format!("tart-test-{}-{}", std::process::id(), etc.path().file_name().unwrap().to_str().unwrap());
        let cgroup2 = Path::new(cgroup2.expect("these tests need a cgroup version 2 mount"));
        let cgroups = Cgroups::create(cgroup2, &name, &Limits::default()).expect("these tests need root");
        let cgroup = cgroups.path().to_owned();
        let reaper = Reaper::default();
        let trees = Trees::at("/", "/", "/");
        let machine = Arc::new(Machine::new(trees, cgroups, reaper.clone(), etc.path(), Duration::ZERO));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            reaper.run().await.unwrap();
            false
        });
        let theirs = Mutex::new(Some(theirs.into_split()));
        serving.spawn(async move {
            let halves =
                || theirs.lock().unwrap().take().ok_or_else(|| std::io::Error::other("one session only"));
            transport::converse(&machine, halves).await
        });
        let (guest, hello) = within(Guest::connect(ours, relay, LIMIT)).await.unwrap();
        assert!(hello.cpus > 0);
        Self { guest, serving, cgroup, _etc: etc }
    }

    pub(crate) fn processes(&self, step: &str) -> usize {
        let text = fs::read_to_string(self.cgroup.join(step).join("cgroup.procs")).unwrap_or_default();
        text.lines().count()
    }

    pub(crate) async fn emptied(&self, step: &str) {
        within(async {
            while self.processes(step) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        fs::write(self.cgroup.join("cgroup.kill"), "1").unwrap();
        let steps =
            fs::read_dir(&self.cgroup).unwrap().flatten().map(|entry| entry.path()).filter(|p| p.is_dir());
        for dir in steps.chain([self.cgroup.clone()]) {
            let deadline = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(&dir).is_err() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}

pub(crate) fn shell(script: &str) -> Exec {
    Exec {
        root: Root::Job,
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        cwd: "/".into(),
        user: String::new(),
        output: Output::Separate,
        stdin: false,
        cgroup: "step".into(),
        limits: Limits::default(),
    }
}

/// Runs a command to its end: what it wrote, and how it ended.
pub(crate) async fn finish(command: &mut Command) -> (String, String, Exited) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match within(command.next()).await.unwrap() {
            CommandEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
            CommandEvent::Stderr(bytes) => err.extend_from_slice(&bytes),
            CommandEvent::Exited(exited) => {
                return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), exited);
            }
        }
    }
}

/// Reads on until the output of a command ends with a text.
pub(crate) async fn wait_for(command: &mut Command, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        match within(command.next()).await.unwrap() {
            CommandEvent::Stdout(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            event => panic!("{event:?} before {text:?}"),
        }
    }
}
