//! `tart doctor`

mod check;
mod checks;
mod facts;
mod firecracker;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::failure::Exit;
use crate::globals::Globals;
use crate::output;
use crate::server::config_path;
use check::Check;

/// Check whether this host can run jobs
///
/// Shows what was found, and why it matters and what to do about what is missing, in the order in which that is done.
/// Each run tests everything again.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 jobs can run here, 2 they cannot.")]
pub(crate) struct DoctorArgs {
    /// The configuration whose first runner is checked
    #[arg(long, short = 'c', value_name = "PATH", env = "CONFIG_FILE", hide_env_values = true)]
    config: Option<PathBuf>,

    /// Check for Firecracker, whatever the configuration says
    #[arg(long)]
    firecracker: bool,

    /// The user that the service runs as, if it is not this one
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

pub(crate) async fn run(args: DoctorArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let (check, mut config) = checks::configuration(&config_path(args.config));
    let mut failed = show(&check)?;
    if args.firecracker {
        config.driver = tart_config::Driver::Firecracker;
    }
    // Each line appears as soon as it is known: the last one boots a guest.
    let quick = checks::quick(&config, args.user.as_deref()).await;
    for check in &quick {
        failed |= show(check)?;
    }
    for check in checks::host(&config, &quick).await {
        failed |= show(&check)?;
    }
    if failed {
        output::to_stdout(
            "\nCorrect what failed from top to bottom, then run `tart doctor` again: it tests all of it anew.\n",
        )?;
    }
    Ok(if failed { Exit::Host.into() } else { ExitCode::SUCCESS })
}

/// Shows a check and tells whether it failed.
fn show(check: &Check) -> anyhow::Result<bool> {
    output::to_stdout(&check.render())?;
    Ok(check.failed())
}
