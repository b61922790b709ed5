//! `tart run-single`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tart_config::{ByteSize, Config, Runner, Secret};
use tart_runner::daemon::Order;
use tokio::sync::mpsc;

use super::run::{Meaning, RunSignals, daemon_options, exit_code, read, start};
use crate::failure::{Annotate as _, Exit};
use crate::globals::Globals;
use crate::signals::end_programs;
use crate::values::{duration, size};

/// Run jobs of one runner one after the other, without a configuration file if the runner is given
#[derive(Debug, Args)]
pub(crate) struct RunSingleArgs {
    /// The GitLab server
    #[arg(long, short = 'u', env = "CI_SERVER_URL", hide_env_values = true, value_name = "URL")]
    url: Option<String>,
    /// The runner's authentication token
    #[arg(long, short = 't', env = "CI_SERVER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Take the runner from this configuration file
    #[arg(long, short = 'c', env = "CONFIG_FILE", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The name of the runner in the configuration file
    #[arg(long, short = 'r', value_name = "NAME", requires = "config")]
    runner: Option<String>,
    /// Certificate authorities for GitLab
    #[arg(long, env = "CI_SERVER_TLS_CA_FILE", hide_env_values = true, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,
    /// The image of jobs that name none: the name of an imported one, or the path of a root file system
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Memory of the machine
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<ByteSize>,
    /// Virtual processors of the machine
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    vcpus: Option<u32>,
    /// End after so many jobs; 0 for never
    #[arg(long, value_name = "COUNT", default_value = "0")]
    max_builds: u64,
    /// End if no job comes for so long, in seconds; 0 for never
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    wait_timeout: u64,
    /// How long interrupted jobs may take to end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    shutdown_timeout: Option<Duration>,
    /// Exit with 5 if a job failed
    #[arg(long)]
    propagate: bool,
}

pub(crate) async fn run(args: RunSingleArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = configuration(&args, globals)?;
    let mut signals = RunSignals::listen()?;
    let max_builds = (args.max_builds > 0).then_some(args.max_builds);
    let wait_timeout = (args.wait_timeout > 0).then(|| Duration::from_secs(args.wait_timeout));
    let options = daemon_options(args.config.as_deref(), max_builds, wait_timeout);
    let daemon = tokio::select! {
        daemon = start(config, options) => daemon?,
        signal = signals.before_start() => {
            end_programs().await;
            return Err(anyhow::anyhow!("ended by a signal ({signal}) before the first job")).exit(Exit::Interrupted);
        }
    };
    let (orders, inbox) = mpsc::channel(8);
    let watching = async move {
        let mut stopping = false;
        loop {
            let order = match signals.next().await {
                Meaning::Stop(name) if stopping => return name,
                Meaning::Stop(name) => {
                    stopping = true;
                    Order::Stop(name.to_owned())
                }
                Meaning::Drain => Order::Drain,
                Meaning::Reload => continue,
            };
            let _ended = orders.send(order).await;
        }
    };
    let end = tokio::select! {
        end = daemon.run(inbox) => end,
        second = watching => {
            return Err(anyhow::anyhow!("ended by a second signal ({second})")).exit(Exit::Interrupted);
        }
    };
    let failed = args.propagate && end.failed > 0 && end.abandoned == 0;
    let code = exit_code(end);
    Ok(if failed { Exit::Job.into() } else { code })
}

/// One runner, of the file or of the command line, and one job at a time.
fn configuration(args: &RunSingleArgs, globals: &Globals) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => {
            let mut config = read(path, globals)?;
            config.runners = vec![pick(config.runners, args.runner.as_deref())?];
            config
        }
        None => {
            let url = args.url.as_deref().context("no GitLab server is given").hint(
                "use --url and --token (or CI_SERVER_URL and CI_SERVER_TOKEN), or --config with a configuration file",
            )?;
            let token =
                args.token.as_deref().context("no token is given").hint("use --token or CI_SERVER_TOKEN")?;
            let instance = tart_config::instance(url).map_err(anyhow::Error::msg)?;
            let runner = Runner {
                name: "run-single".to_owned(),
                url: instance.url,
                token: Secret::new(token),
                tls_ca_file: args.tls_ca_file.clone(),
                ..Runner::default()
            };
            Config { runners: vec![runner], ..Config::default() }
        }
    };
    config.concurrent = 1;
    if let Some(timeout) = args.shutdown_timeout {
        config.shutdown_timeout = timeout;
    }
    for runner in &mut config.runners {
        let microvm = &mut runner.microvm;
        microvm.memory = args.memory.unwrap_or(microvm.memory);
        microvm.vcpus = args.vcpus.unwrap_or(microvm.vcpus);
        microvm.image = args.image.clone().or_else(|| microvm.image.take());
    }
    Ok(config)
}

fn pick(runners: Vec<Runner>, name: Option<&str>) -> anyhow::Result<Runner> {
    let names: Vec<_> = runners.iter().map(Runner::display_name).collect();
    let mut matching =
        runners.into_iter().filter(|runner| name.is_none_or(|name| runner.display_name() == name));
    match (matching.next(), matching.next(), name) {
        (Some(runner), None, _) => Ok(runner),
        (None, _, Some(name)) => bail!("no runner is called `{name}`; there are: {}", names.join(", ")),
        (None, _, None) => bail!("the configuration file has no runner"),
        (Some(_), Some(_), _) => {
            let error: anyhow::Result<Runner> =
                Err(anyhow::anyhow!("several runners match: {}", names.join(", ")));
            error.hint("name one with --runner")
        }
    }
}
