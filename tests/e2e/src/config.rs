//! The config.toml of a test.

use std::path::Path;

/// The variable that names another guest's kernel for all tests, such as one for Firecracker without modules.
const KERNEL: &str = "TART_E2E_KERNEL";

/// What a test changes in its config.toml.
#[derive(Debug, Clone)]
pub struct Config {
    concurrent: u32,
    log_format: &'static str,
    vcpus: u32,
    session_server: String,
    runner: String,
    microvm: String,
    network: String,
    docker: String,
}

impl Default for Config {
    /// One job at a time, in a small guest.
    fn default() -> Self {
        let [session_server, runner, microvm, network, docker] = [const { String::new() }; 5];
        Self { concurrent: 1, log_format: "text", vcpus: 1, session_server, runner, microvm, network, docker }
    }
}

impl Config {
    /// How many jobs run at once.
    #[must_use]
    pub fn concurrent(mut self, jobs: u32) -> Self {
        self.concurrent = jobs;
        self
    }

    /// The form of the runner's own log.
    #[must_use]
    pub fn log_format(mut self, format: &'static str) -> Self {
        self.log_format = format;
        self
    }

    /// Virtual processors of a guest.
    #[must_use]
    pub fn vcpus(mut self, count: u32) -> Self {
        self.vcpus = count;
        self
    }

    /// Adds a line to `[session_server]`.
    #[must_use]
    pub fn session_server(mut self, line: &str) -> Self {
        self.session_server.push_str(line);
        self.session_server.push('\n');
        self
    }

    /// Adds a line to `[[runners]]`.
    #[must_use]
    pub fn runner(mut self, line: &str) -> Self {
        self.runner.push_str(line);
        self.runner.push('\n');
        self
    }

    /// Adds a line to `[runners.microvm]`.
    #[must_use]
    pub fn microvm(mut self, line: &str) -> Self {
        self.microvm.push_str(line);
        self.microvm.push('\n');
        self
    }

    /// Adds a line to `[runners.microvm.network]`.
    #[must_use]
    pub fn network(mut self, line: &str) -> Self {
        self.network.push_str(line);
        self.network.push('\n');
        self
    }

    /// Adds a line to `[runners.docker]`.
    #[must_use]
    pub fn docker(mut self, line: &str) -> Self {
        self.docker.push_str(line);
        self.docker.push('\n');
        self
    }

    /// The file's text.
    #[must_use]
    pub fn render(&self, url: &str, token: &str, state_dir: &Path) -> String {
        let Self { concurrent, log_format, vcpus, session_server, runner, microvm, network, docker } = self;
        let state_dir = state_dir.display();
        let kernel = std::env::var(KERNEL).map(|kernel| format!("kernel = {kernel:?}\n")).unwrap_or_default();
        // Two jobs at once ask for two jobs at once.
        format!(
            "concurrent = {concurrent}\ncheck_interval = 1\nlog_level = \"debug\"\nlog_format = \"{log_format}\"\n\n\
             [session_server]\n{session_server}\n[[runners]]\nname = \"e2e\"\n\
             url = \"{url}\"\ntoken = \"{token}\"\nexecutor = \"microvm\"\nrequest_concurrency = {concurrent}\n\
             {runner}\n[runners.microvm]\nstate_dir = \"{state_dir}\"\nvcpus = {vcpus}\n{kernel}{microvm}\n\
             [runners.microvm.network]\n{network}\n[runners.docker]\n{docker}"
        )
    }
}
