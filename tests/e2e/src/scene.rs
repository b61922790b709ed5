//! A GitLab server, a runner's files, and the program that uses both.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tart_test_gitlab::{RunnerHandle, RunnerOptions, TestGitlab};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Config, Leftovers, Process, SOON, left_of, program};

/// Everything of one test.
#[derive(Debug)]
pub struct Scene {
    /// The server.
    pub server: TestGitlab,
    /// The runner that config.toml names.
    pub runner: RunnerHandle,
    directory: TempDir,
}

impl Scene {
    /// Starts a server and writes a config.toml for it.
    pub async fn start(config: &Config) -> Self {
        Self::with_server(TestGitlab::start().await, config)
    }

    /// Writes a config.toml for a server.
    ///
    /// # Panics
    /// When the files of the test cannot be written.
    #[must_use]
    pub fn with_server(server: TestGitlab, config: &Config) -> Self {
        let runner = server.add_runner(RunnerOptions::default());
        let directory =
            tempfile::Builder::new().prefix("tart-e2e-").tempdir().expect("a temporary directory");
        let scene = Self { server, runner, directory };
        for path in [scene.state_dir(), scene.temporary_dir(), scene.path("home")] {
            std::fs::create_dir(path).expect("the test's directory is writable");
        }
        scene.write_config(&config.render(scene.server.url(), &scene.runner.token(), &scene.state_dir()));
        scene
    }

    /// Replaces config.toml.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new();
        file.create(true).truncate(true).write(true).mode(0o600);
        let written = file.open(self.config()).and_then(|mut file| file.write_all(text.as_bytes()));
        written.expect("the test's directory is writable");
    }

    /// A path in the test's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path of config.toml.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Gives the runner a store of its own with all that guests boot from, and returns its directory.
    ///
    /// # Panics
    /// When the machine's store cannot be copied.
    pub fn own_store(&self, config: Config) -> PathBuf {
        let store = self.path("assets");
        let shared = tart_assets::default_root();
        // Files of the store never change, so links do. Another file system has to be copied to.
        let copied = ["-al", "-a"].iter().any(|how| {
            let mut copy = std::process::Command::new("cp");
            copy.args([how, "-T"]).arg(&shared).arg(&store).stderr(std::process::Stdio::null());
            copy.status().is_ok_and(|status| status.success())
        });
        assert!(copied, "{} cannot be copied", shared.display());
        let config = config.microvm(&format!("assets_dir = \"{}\"", store.display()));
        self.write_config(&config.render(self.server.url(), &self.runner.token(), &self.state_dir()));
        store
    }

    fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    fn temporary_dir(&self) -> PathBuf {
        self.path("tmp")
    }

    /// The program with arguments, and nothing of the machine's own settings.
    #[must_use]
    pub fn tart<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.directory.path());
        command.env_clear().env("HOME", self.path("home")).env("TMPDIR", self.temporary_dir());
        command.env("CONFIG_FILE", self.config());
        for name in
            ["PATH", "TART_AGENT", "TART_ASSETS_DIR", "TART_FIRECRACKER", "TART_JAILER", "TART_TIME_FACTOR"]
        {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command
    }

    /// Starts `tart run`.
    #[must_use]
    pub fn run(&self) -> Process {
        Process::start(self.tart(["run"]))
    }

    /// Runs a command to its end, which must be a success, and returns what it printed.
    pub async fn succeed<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, limit: Duration) -> String {
        Process::start(self.tart(arguments)).succeed(limit).await
    }

    /// Ends `tart run` once its jobs are done.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn drain(&self, mut tart: Process) {
        tart.drain();
        let status = tart.wait(SOON).await;
        assert!(status.success(), "`tart run` ended with {status} after SIGQUIT");
    }

    /// What is left of the processes of this test.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        left_of(self.directory.path(), &self.state_dir(), &self.temporary_dir())
    }

    /// Ends the test: the runner kept to the protocol, and nothing is left of it.
    ///
    /// # Panics
    /// When that is not so.
    pub fn finish(self) {
        self.server.assert_no_violations();
        self.assert_clean();
    }

    /// Checks that no process, socket, mount or file of a machine is left.
    ///
    /// # Panics
    /// With what is left.
    pub fn assert_clean(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "this was left behind:\n{left}");
    }

    /// The directory of the test.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}
