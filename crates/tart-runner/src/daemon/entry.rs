//! The runners of the configuration, ready to work.

use std::fmt;
use std::sync::Arc;

use tart_config::{Config, Runner};
use tart_gitlab::{Client, ClientOptions, Health, RequestConcurrency, TlsFiles, Token};
use tart_job::flags::Flag;
use tart_objects::ObjectStore;
use tart_spec::VersionInfo;

use super::{DaemonError, DaemonOptions, JobExecutor, context};
use crate::cache::object_store;

/// What makes two entries of the configuration the same runner.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct RunnerKey {
    url: String,
    token: String,
}

impl RunnerKey {
    pub(super) fn new(url: &str, token: &str) -> Self {
        Self { url: url.to_owned(), token: token.to_owned() }
    }
}

impl fmt::Debug for RunnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerKey").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A runner of the configuration. Jobs keep the one they came from.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: RunnerKey,
    pub(super) runner: Arc<Runner>,
    pub(super) client: Client,
    pub(super) token: Token,
    pub(super) info: Arc<VersionInfo>,
    /// Where caches are, if not on this host.
    pub(super) objects: Option<ObjectStore>,
}

/// What changes while a runner works.
#[derive(Debug)]
pub(super) struct RunnerState {
    pub(super) health: Health,
    pub(super) concurrency: RequestConcurrency,
    /// Whether [`Self::concurrency`] counts.
    adaptive: bool,
    pub(super) polls: usize,
    pub(super) jobs: usize,
}

impl RunnerState {
    /// A healthy runner, which goes on with what `old` does.
    pub(super) fn new(runner: &Runner, old: Option<&Self>) -> Self {
        let now = std::time::Instant::now();
        Self {
            health: Health::new(runner.unhealthy_requests_limit, runner.unhealthy_interval, now),
            concurrency: RequestConcurrency::new(runner.request_concurrency),
            adaptive: runner
                .feature_flags
                .get(Flag::AdaptiveRequestConcurrency.name())
                .copied()
                .unwrap_or(Flag::AdaptiveRequestConcurrency.default_value()),
            polls: old.map_or(0, |old| old.polls),
            jobs: old.map_or(0, |old| old.jobs),
        }
    }

    /// How many polls the runner may have open.
    pub(super) fn poll_limit(&self, runner: &Runner) -> usize {
        if self.adaptive {
            self.concurrency.limit()
        } else {
            usize::try_from(runner.request_concurrency).unwrap_or(usize::MAX).max(1)
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.polls + self.jobs > 0
    }
}

/// All runners of a configuration. Those that are in `old` with the same connection keep it, and with it what their
/// server last said of its queue.
pub(super) fn all(
    config: &Config,
    options: &DaemonOptions,
    old: &[Arc<Entry>],
) -> Result<Vec<Arc<Entry>>, DaemonError> {
    config.runners.iter().map(|runner| one(config, runner, options, old).map(Arc::new)).collect()
}

fn one(
    config: &Config,
    runner: &Runner,
    options: &DaemonOptions,
    old: &[Arc<Entry>],
) -> Result<Entry, DaemonError> {
    let key = RunnerKey::new(&runner.url, runner.token.expose());
    let files = |runner: &Runner| TlsFiles {
        ca: runner.tls_ca_file.clone(),
        cert: runner.tls_cert_file.clone(),
        key: runner.tls_key_file.clone(),
    };
    let same = old.iter().find(|old| old.key == key && files(&old.runner) == files(runner));
    let client = match same {
        Some(old) => old.client.clone(),
        None => {
            let product = &options.product;
            let mut wanted = ClientOptions::new(&runner.url);
            wanted.tls = files(runner);
            wanted.connection_max_age = config.connection_max_age;
            wanted.product = tart_gitlab::Product {
                name: product.name.clone(),
                version: product.version.clone(),
                branch: product.revision.clone(),
            };
            Client::new(wanted)
                .map_err(|source| DaemonError::Client { runner: runner.display_name(), source })?
        }
    };
    let objects = object_store(runner)
        .map_err(|source| DaemonError::Cache { runner: runner.display_name(), source })?;
    Ok(Entry {
        key,
        objects,
        client,
        token: Token::new(runner.token.expose()),
        info: Arc::new(context::version_info(&options.product, runner, &config.labels)),
        runner: Arc::new(runner.clone()),
    })
}

/// Prepares the host for all of them.
pub(super) async fn prepare(entries: &[Arc<Entry>], executor: &dyn JobExecutor) -> Result<(), DaemonError> {
    for entry in entries {
        executor
            .prepare(&entry.runner)
            .await
            .map_err(|source| DaemonError::Host { runner: entry.runner.display_name(), source })?;
    }
    Ok(())
}
