//! The command line.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::{
    assets, completions, doctor, exec, image, lint, list, register, reset_token, run, run_single, unregister,
    verify, version,
};
use crate::globals::Globals;

/// A GitLab Runner whose every job runs in its own microVM
#[derive(Debug, Parser)]
#[command(
    name = "tart",
    version,
    disable_version_flag = true,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 success, 1 wrong usage or configuration, 2 this host lacks something, \
                        3 the GitLab server refused or was not reached, 4 interrupted, 5 the job failed."
)]
pub(crate) struct Cli {
    /// Print the version
    #[arg(long, short = 'v', short_alias = 'V', action = clap::ArgAction::Version)]
    version: (),
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What this process was started with.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut command = without_empty_settings(Self::command());
        let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// Takes empty variables of the environment for unset ones: in files of settings, that is what they mean.
fn without_empty_settings(command: clap::Command) -> clap::Command {
    let unset = |arg: clap::Arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None::<&str>),
        _ => arg,
    };
    command.mut_args(unset).mut_subcommands(without_empty_settings)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register a runner with GitLab and write it to the configuration
    Register(Box<register::RegisterArgs>),
    /// Ask for jobs and run them, until a signal ends it
    Run(run::RunArgs),
    /// Run jobs of one runner one after the other
    #[command(visible_alias = "single")]
    RunSingle(run_single::RunSingleArgs),
    /// Run jobs of a local .gitlab-ci.yml in microVMs, without GitLab
    Exec(exec::ExecArgs),
    /// List the runners of the configuration
    List(list::ListArgs),
    /// Ask GitLab whether the runners of the configuration are valid
    Verify(verify::VerifyArgs),
    /// Remove runners from GitLab and from the configuration
    Unregister(unregister::UnregisterArgs),
    /// Replace the token of a runner by a new one
    ResetToken(reset_token::ResetTokenArgs),
    /// Check the configuration file
    Lint(lint::LintArgs),
    /// Build, list, check and remove what guests boot from
    #[command(subcommand)]
    Assets(assets::AssetsCommand),
    /// Pull, list, import and remove images of jobs
    Image(image::ImageArgs),
    /// Check whether this host can run jobs
    Doctor(doctor::DoctorArgs),
    /// Print the version
    Version,
    /// Print completions of the command line for a shell
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        match self {
            Self::Register(args) => register::run(*args).await,
            Self::List(args) => list::run(args),
            Self::Verify(args) => verify::run(args).await,
            Self::Unregister(args) => unregister::run(args).await,
            Self::ResetToken(args) => reset_token::run(args).await,
            Self::Lint(args) => lint::run(args),
            Self::Run(args) => run::run(args, globals).await,
            Self::RunSingle(args) => run_single::run(args, globals).await,
            Self::Exec(args) => exec::run(args, globals).await,
            Self::Assets(command) => assets::run(command).await,
            Self::Image(args) => image::run(args).await,
            Self::Doctor(args) => doctor::run(args, globals).await,
            Self::Version => version::run(),
            Self::Completions(args) => completions::run(&args),
        }
    }
}
