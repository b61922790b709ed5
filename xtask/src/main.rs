//! Developer commands: `cargo xtask COMMAND`.

mod check;
mod measure;
mod product;
mod shell;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Tart.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks the tree, the format and the lints.
    Check,
    /// Builds the guest's agent and prints its path.
    Agent,
    /// Builds `tart` with the agent inside, and prints lines for a shell: TART_BINARY and TART_AGENT.
    Build(product::Build),
    /// Boots many guests; `--load` keeps all processors busy, `--boots N` says how many.
    BootCheck(Rest),
    /// Measures speed, memory and disk, as ratios; `bench images` measures pulls and file systems of images,
    /// `bench network` what guests' networks carry, `bench services` what services cost,
    /// `bench starts` how jobs start, `bench archives` how fast artifacts leave guests and come into others.
    Bench(Rest),
}

/// Arguments of the program that measures.
#[derive(Debug, clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Parts of Tart that have a bench of their own.
const BENCHES: [&str; 5] = ["archives", "images", "network", "services", "starts"];

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Check => check::run_all(),
        Command::Agent => product::agent().and_then(|path| shell::print(&path.display().to_string())),
        Command::Build(build) => product::build(&build),
        Command::BootCheck(rest) => measure::measure("boots", &rest.arguments),
        Command::Bench(rest) => match rest.arguments.split_first() {
            Some((what, arguments)) if BENCHES.contains(&what.as_str()) => measure::measure(what, arguments),
            _ => measure::measure("bench", &rest.arguments),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
