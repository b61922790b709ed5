//! The `tart` command.

mod cli;
mod commands;
mod failure;
mod globals;
mod logging;
mod output;
mod product;
mod progress;
mod rotation;
mod selection;
mod server;
mod signals;
mod values;

use std::process::ExitCode;
use std::time::Duration;

use cli::Cli;

/// How long the end of the program waits for its threads.
const SHUTDOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    logging::start(&cli.globals);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(cli.command.run(&cli.globals));
    // Machines of dropped jobs are cleared away now. A thread may still be busy with what nobody waits for any more,
    // such as an interrupted build.
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

/// Help goes to the standard output with 0, mistakes to the standard error with 1.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() || printed.is_err() { failure::Exit::Usage.into() } else { ExitCode::SUCCESS }
}
