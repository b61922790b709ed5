//! Measures Tart: `cargo xtask boot-check` and `cargo xtask bench`.

mod archives;
mod bench;
mod boots;
mod images;
mod load;
mod network;
mod report;
mod services;
mod starts;

use std::process::ExitCode;

use clap::Parser;

/// Measures Tart on this machine.
#[derive(Debug, Parser)]
enum Command {
    /// Boots many guests, one after the other, and says how many came up.
    Boots(boots::Boots),
    /// Runs jobs and compares them with the same script on the host.
    Bench(bench::Bench),
    /// Pulls images and starts jobs in them, compared with other programs.
    Images(images::Images),
    /// Carries data between a guest and a server, compared with the host.
    Network(network::Network),
    /// Starts services, compared with machines of their own.
    Services(services::Services),
    /// Uploads and downloads artifacts, compared with programs in the same guest.
    Archives(archives::Archives),
    /// Compares how jobs start: booted, from a snapshot, from the pool.
    Starts(starts::Starts),
}

// What enters a network namespace must stay on its thread.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Boots(boots) => boots.run().await,
        Command::Bench(bench) => bench.run().await,
        Command::Images(images) => images.run().await,
        Command::Network(network) => network.run().await,
        Command::Services(services) => services.run().await,
        Command::Archives(archives) => archives.run().await,
        Command::Starts(starts) => starts.run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::line(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
