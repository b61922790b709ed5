//! `tart doctor`

mod checks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::failure::Exit;
use crate::globals::Globals;
use crate::output;
use crate::server::config_path;
use checks::Check;

/// Check whether this host can run jobs
///
/// Shows what was found, and what to do about what is missing.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 jobs can run here, 2 they cannot.")]
pub(crate) struct DoctorArgs {
    /// The configuration whose first runner is checked
    #[arg(long, short = 'c', value_name = "PATH", env = "CONFIG_FILE", hide_env_values = true)]
    config: Option<PathBuf>,
}

pub(crate) async fn run(args: DoctorArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let (check, config) = checks::configuration(&config_path(args.config));
    let mut failed = show(&check)?;
    // Each line appears as soon as it is known: the last one boots a guest.
    let quick = checks::quick(&config);
    for check in &quick {
        failed |= show(check)?;
    }
    for check in checks::host(&config, &quick).await {
        failed |= show(&check)?;
    }
    Ok(if failed { Exit::Host.into() } else { ExitCode::SUCCESS })
}

/// Shows a check and tells whether it failed.
fn show(check: &Check) -> anyhow::Result<bool> {
    output::to_stdout(&check.render())?;
    Ok(check.failed())
}
