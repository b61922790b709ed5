//! Building the guest's agent, and the program with the agent inside.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::shell::{assignment, cargo, output, print, run};

/// The guest's platform: the agent has no libraries there, so it is linked statically.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Names the agent to put into the program, for its build script.
const AGENT_VARIABLE: &str = "TART_AGENT_BINARY";

/// How the program is built.
#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// Build for tests: without optimization, and with all features of the workspace, so that tests share the build.
    #[arg(long)]
    debug: bool,
}

/// Builds the agent.
pub(crate) fn agent() -> Result<PathBuf> {
    let mut command =
        cargo(["build", "--quiet", "--package", "tart-agent", "--profile", "agent", "--target", TARGET]);
    // With a target named, this holds for the guest's code only and not for build scripts.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    run(command)?;
    existing(target_dir()?.join(TARGET).join("agent/tart-agent"))
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Product {
    /// The program.
    pub(crate) tart: PathBuf,
    /// The guest's agent, which is also in the program.
    pub(crate) agent: PathBuf,
}

/// Builds the program with the agent inside.
pub(crate) fn product(debug: bool) -> Result<Product> {
    let agent = agent()?;
    let mut command = if debug {
        cargo(["build", "--quiet", "--workspace", "--all-features", "--bins"])
    } else {
        cargo(["build", "--quiet", "--package", "tart", "--release"])
    };
    command.env(AGENT_VARIABLE, &agent);
    run(command)?;
    let profile = if debug { "debug" } else { "release" };
    let tart = existing(target_dir()?.join(profile).join("tart"))?;
    Ok(Product { tart, agent })
}

/// Builds the program and says where it and the agent are.
pub(crate) fn build(options: &Build) -> Result<()> {
    let Product { tart, agent } = product(options.debug)?;
    // The last one is for builds that come later, which are to be the same.
    for (name, path) in [("TART_BINARY", &tart), ("TART_AGENT", &agent), (AGENT_VARIABLE, &agent)] {
        print(&assignment(name, text(path)?))?;
    }
    Ok(())
}

fn target_dir() -> Result<PathBuf> {
    let metadata = output(cargo(["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("cannot read cargo's metadata")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo's metadata has no target directory")?;
    Ok(PathBuf::from(directory))
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.is_file(), "{} was not built", path.display());
    Ok(path)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
