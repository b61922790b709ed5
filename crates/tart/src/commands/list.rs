//! `tart list`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tart_config::Executor;

use crate::output;
use crate::server::config_path;

/// List the runners of the configuration; tokens are shortened
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let loaded = tart_config::load(&config_path(args.config))?;
    let rows: Vec<[String; 4]> = loaded
        .config
        .runners
        .iter()
        .map(|runner| {
            let executor = match runner.executor {
                Executor::Microvm => "microvm",
                Executor::Docker => "docker",
            };
            [runner.display_name(), executor.to_owned(), runner.token.shortened(), runner.url.clone()]
        })
        .collect();
    output::to_stdout(&output::table(["NAME", "EXECUTOR", "TOKEN", "URL"], &rows))?;
    Ok(ExitCode::SUCCESS)
}
