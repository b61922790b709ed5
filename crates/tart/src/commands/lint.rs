//! `tart lint`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::output;
use crate::server::config_path;

/// Check the configuration file
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// The configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(args: LintArgs) -> anyhow::Result<ExitCode> {
    let path = config_path(args.config);
    let loaded = tart_config::load(&path)?;
    let mut text = String::new();
    for warning in &loaded.warnings {
        text.push_str(&format!("{warning}\n"));
    }
    text.push_str(&format!("{} can be used\n", path.display()));
    output::to_stdout(&text)?;
    Ok(ExitCode::SUCCESS)
}
