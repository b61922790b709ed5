//! Flags of all commands.

use clap::{Args, ValueEnum};

use crate::values::boolean;

/// Flags of all commands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Log everything
    #[arg(long, global = true, env = "RUNNER_DEBUG", hide_env_values = true, value_name = "BOOL", value_parser = boolean,
          num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true)]
    pub(crate) debug: bool,

    /// The least severe messages that are logged
    #[arg(long, short = 'l', global = true, env = "LOG_LEVEL", hide_env_values = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,

    /// The form of log messages, which go to the standard error
    #[arg(long, global = true, env = "LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// `--log-level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Everything.
    #[value(help = None)]
    Debug,
    /// What happens.
    #[value(help = None)]
    Info,
    /// Doubtful things.
    #[value(alias = "warn", help = None)]
    Warning,
    /// Failures.
    #[value(help = None)]
    Error,
    /// Only what ends the process.
    #[value(help = None)]
    Fatal,
    /// Only what ends the process by a bug.
    #[value(help = None)]
    Panic,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines as GitLab Runner prints them.
    #[value(help = None)]
    Runner,
    /// `key=value` pairs.
    #[value(help = None)]
    Text,
    /// One JSON object in a line.
    #[value(help = None)]
    Json,
}
