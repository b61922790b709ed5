//! Running the program.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory with the configuration of a user of their own.
#[derive(Debug)]
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory can be made") }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("config/config.toml")
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The text of the configuration; empty without one.
    pub(crate) fn config_text(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap_or_default()
    }

    /// The program with arguments, and nothing of the machine's own settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tart"));
        command.args(arguments).current_dir(self.directory.path());
        command.env_clear().env("HOME", self.directory.path()).env("CONFIG_FILE", self.config());
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("TART_ASSETS_DIR", self.directory.path().join("assets"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it while the test's server answers.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_command(self.command(arguments), "").await
    }

    /// Runs it with answers on the standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        self.run_command(command, input).await
    }

    pub(crate) async fn run_command(&self, mut command: Command, input: &str) -> Ran {
        let input = input.to_owned();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("the program starts");
            if let Some(mut stdin) = child.stdin.take() {
                // A program that has ended reads no more.
                let _ended = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output().expect("the program ends")
        });
        Ran(output.await.expect("the thread ends"))
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ran(pub(crate) Output);

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().expect("no signal ended it")
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("UTF-8")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("UTF-8")
    }

    /// What it printed on a success.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code(), 0, "{}{}", self.stdout(), self.stderr());
        self.stdout()
    }

    /// What it said on a failure with this code.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code(), code, "{}{}", self.stdout(), self.stderr());
        self.stderr()
    }

    /// That a token was printed nowhere.
    pub(crate) fn hides(self, token: &str) -> Self {
        assert!(!self.stdout().contains(token) && !self.stderr().contains(token), "the token was printed");
        self
    }
}
