//! Developer commands: `cargo xtask COMMAND`.

mod check;
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
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Check => check::run_all(),
        Command::Agent => product::agent().and_then(|path| shell::print(&path.display().to_string())),
        Command::Build(build) => product::build(&build),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
