//! The config.toml of a test.

use std::path::Path;

/// What a test changes in its config.toml.
#[derive(Debug, Clone)]
pub struct Config {
    concurrent: u32,
    runner: String,
    microvm: String,
}

impl Default for Config {
    /// One job at a time, in a small guest.
    fn default() -> Self {
        Self { concurrent: 1, runner: String::new(), microvm: String::new() }
    }
}

impl Config {
    /// How many jobs run at once.
    #[must_use]
    pub fn concurrent(mut self, jobs: u32) -> Self {
        self.concurrent = jobs;
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

    /// The file's text.
    #[must_use]
    pub fn render(&self, url: &str, token: &str, state_dir: &Path) -> String {
        let Self { concurrent, runner, microvm } = self;
        let state_dir = state_dir.display();
        // Two jobs at once ask for two jobs at once.
        format!(
            "concurrent = {concurrent}\ncheck_interval = 1\nlog_level = \"debug\"\n\n[[runners]]\nname = \"e2e\"\n\
             url = \"{url}\"\ntoken = \"{token}\"\nexecutor = \"microvm\"\nrequest_concurrency = {concurrent}\n\
             {runner}\n[runners.microvm]\nstate_dir = \"{state_dir}\"\nvcpus = 1\n{microvm}"
        )
    }
}
