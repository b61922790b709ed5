//! The flags of `tart register`, named as those of the official runner.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::values::{boolean, duration};

/// Register a runner with GitLab and write it to the configuration
///
/// Create the runner in GitLab first and use its token, which begins with `glrt-`; tags and the like are then set in
/// GitLab. Old registration tokens work as long as the server takes them.
#[derive(Debug, Default, Args)]
#[command(after_help = "Without --non-interactive, what is missing is asked for.")]
pub(crate) struct RegisterArgs {
    /// The configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A file with one [[runners]], whose keys the new runner gets
    #[arg(long, env = "TEMPLATE_CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) template_config: Option<PathBuf>,
    /// The GitLab server
    #[arg(
        long,
        short = 'u',
        visible_alias = "endpoint",
        env = "CI_SERVER_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) url: Option<String>,
    /// The runner's authentication token
    #[arg(long, short = 't', env = "CI_SERVER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// An old registration token (deprecated)
    #[arg(long, short = 'r', env = "REGISTRATION_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) registration_token: Option<String>,
    /// The runner's name
    #[arg(
        long,
        visible_alias = "description",
        env = "RUNNER_NAME",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub(super) name: Option<String>,
    /// Ask no questions
    #[arg(long, short = 'n', env = "REGISTER_NON_INTERACTIVE", hide_env_values = true, value_name = "BOOL", value_parser = boolean,
          num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true)]
    pub(super) non_interactive: bool,
    /// Leave the runner in GitLab if it cannot be saved
    #[arg(long, env = "REGISTER_LEAVE_RUNNER", hide_env_values = true, value_name = "BOOL", value_parser = boolean,
          num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true)]
    pub(super) leave_runner: bool,
    /// Print the runner's configuration instead of saving it
    #[arg(long)]
    pub(super) print: bool,
    /// The executor: `microvm`, or `docker` which means the same
    #[arg(long, env = "RUNNER_EXECUTOR", hide_env_values = true, value_name = "NAME")]
    pub(super) executor: Option<String>,
    #[command(flatten)]
    pub(super) keys: Keys,
    #[command(flatten)]
    pub(super) legacy: Legacy,
}

/// Flags that become keys of the configuration.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Keys of the configuration")]
pub(super) struct Keys {
    /// How many jobs run at once
    #[arg(long, env = "RUNNER_LIMIT", hide_env_values = true, value_name = "COUNT")]
    limit: Option<u32>,
    /// The cut of a job's log, in KiB
    #[arg(long, env = "RUNNER_OUTPUT_LIMIT", hide_env_values = true, value_name = "KIB")]
    output_limit: Option<u32>,
    /// The most requests for jobs at once
    #[arg(long, env = "RUNNER_REQUEST_CONCURRENCY", hide_env_values = true, value_name = "COUNT")]
    request_concurrency: Option<u32>,
    /// A variable of all jobs; may be repeated
    #[arg(long = "env", env = "RUNNER_ENV", hide_env_values = true, value_name = "KEY=VALUE")]
    environment: Vec<String>,
    /// Where projects are checked out in the machine
    #[arg(long, env = "RUNNER_BUILDS_DIR", hide_env_values = true, value_name = "DIR")]
    builds_dir: Option<String>,
    /// Where caches are in the machine
    #[arg(long, env = "RUNNER_CACHE_DIR", hide_env_values = true, value_name = "DIR")]
    cache_dir: Option<String>,
    /// Replaces scheme and host of the address that jobs clone from
    #[arg(long, env = "CLONE_URL", hide_env_values = true, value_name = "URL")]
    clone_url: Option<String>,
    /// The shell of scripts
    #[arg(long, env = "RUNNER_SHELL", hide_env_values = true, value_name = "SHELL")]
    shell: Option<String>,
    /// A feature flag; may be repeated
    #[arg(long = "feature-flags", env = "FEATURE_FLAGS", hide_env_values = true, value_name = "NAME:BOOL")]
    feature_flags: Vec<String>,
    /// Certificate authorities for GitLab
    #[arg(long, env = "CI_SERVER_TLS_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_ca_file: Option<PathBuf>,
    /// Client certificate for GitLab
    #[arg(long, env = "CI_SERVER_TLS_CERT_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_cert_file: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, env = "CI_SERVER_TLS_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) tls_key_file: Option<PathBuf>,
    /// The image of jobs that name none
    #[arg(long, env = "DOCKER_IMAGE", hide_env_values = true, value_name = "IMAGE")]
    docker_image: Option<String>,
    /// Any other key below [[runners]], such as microvm.memory=4g; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

/// Flags that only old registration tokens take; for others they are set in GitLab.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Only with a registration token")]
pub(super) struct Legacy {
    /// Tags, divided by commas
    #[arg(long, env = "RUNNER_TAG_LIST", hide_env_values = true, value_name = "TAGS")]
    pub(super) tag_list: Option<String>,
    /// Take jobs without tags [default: only if there are no tags]
    #[arg(long, env = "REGISTER_RUN_UNTAGGED", hide_env_values = true, value_name = "BOOL", value_parser = boolean,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) run_untagged: Option<bool>,
    /// Stay with the first project [default: true]
    #[arg(long, env = "REGISTER_LOCKED", hide_env_values = true, value_name = "BOOL", value_parser = boolean,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) locked: Option<bool>,
    /// `not_protected` or `ref_protected`
    #[arg(long, env = "REGISTER_ACCESS_LEVEL", hide_env_values = true, value_name = "LEVEL")]
    pub(super) access_level: Option<String>,
    /// The longest time of a job
    #[arg(long, env = "REGISTER_MAXIMUM_TIMEOUT", hide_env_values = true, value_name = "TIME", value_parser = duration)]
    pub(super) maximum_timeout: Option<Duration>,
    /// Take no jobs at first
    #[arg(long, env = "REGISTER_PAUSED", hide_env_values = true, value_name = "BOOL", value_parser = boolean,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) paused: Option<bool>,
    /// A note for administrators
    #[arg(long, env = "REGISTER_MAINTENANCE_NOTE", hide_env_values = true, value_name = "TEXT")]
    pub(super) maintenance_note: Option<String>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "expected `KEY=VALUE`".to_owned())?;
    Ok((key.strip_prefix("runners.").unwrap_or(key).to_owned(), value.to_owned()))
}

impl RegisterArgs {
    /// The keys below `[[runners]]`, for [`tart_config::NewRunner::settings`].
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let keys = &self.keys;
        let number = |value: &Option<u32>| value.map(|value| value.to_string());
        let path = |value: &Option<PathBuf>| value.as_ref().map(|value| value.display().to_string());
        let single = [
            ("limit", number(&keys.limit)),
            ("output_limit", number(&keys.output_limit)),
            ("request_concurrency", number(&keys.request_concurrency)),
            ("builds_dir", keys.builds_dir.clone()),
            ("cache_dir", keys.cache_dir.clone()),
            ("clone_url", keys.clone_url.clone()),
            ("shell", keys.shell.clone()),
            ("tls-ca-file", path(&keys.tls_ca_file)),
            ("tls-cert-file", path(&keys.tls_cert_file)),
            ("tls-key-file", path(&keys.tls_key_file)),
            ("docker.image", keys.docker_image.clone()),
        ];
        let single = single
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)));
        let repeated = [("environment", &keys.environment), ("feature_flags", &keys.feature_flags)];
        let repeated = repeated
            .into_iter()
            .flat_map(|(key, values)| values.iter().map(move |value| (key, value.clone())));
        let settings = single.chain(repeated).map(|(key, value)| (key.to_owned(), value));
        settings.chain(keys.set.iter().cloned()).collect()
    }
}

impl Legacy {
    /// The flags that are given.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let text = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
        let flags = [
            ("--tag-list", text(&self.tag_list)),
            ("--run-untagged", self.run_untagged.is_some()),
            ("--locked", self.locked.is_some()),
            ("--access-level", text(&self.access_level)),
            ("--maximum-timeout", self.maximum_timeout.is_some()),
            ("--paused", self.paused.is_some()),
            ("--maintenance-note", text(&self.maintenance_note)),
        ];
        flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect()
    }

    pub(super) fn tags(&self) -> Vec<String> {
        let list = self.tag_list.as_deref().unwrap_or_default();
        list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
    }
}
