//! Talking to GitLab servers about runners.

use std::path::{Path, PathBuf};

use tart_config::Runner;
use tart_gitlab::{ApiError, Client, ClientOptions, SystemId, TlsFiles};
use tart_runner::daemon::version_info;
use tart_spec::VersionInfo;

use crate::failure::{Annotate as _, Exit};
use crate::product;

/// Where the configuration is: the given file, else the user's own.
pub(crate) fn config_path(given: Option<PathBuf>) -> PathBuf {
    given.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        tart_config::default_path(rustix::process::geteuid().is_root(), home.as_deref())
    })
}

/// A client of the server of a runner.
pub(crate) fn client(runner: &Runner) -> anyhow::Result<Client> {
    let mut options = ClientOptions::new(&runner.url);
    options.tls = TlsFiles {
        ca: runner.tls_ca_file.clone(),
        cert: runner.tls_cert_file.clone(),
        key: runner.tls_key_file.clone(),
    };
    options.product = tart_gitlab::Product {
        name: product::NAME.to_owned(),
        version: product::VERSION.to_owned(),
        branch: product::REVISION.to_owned(),
    };
    Ok(Client::new(options)?)
}

/// What the server is told of a runner.
pub(crate) fn info(runner: &Runner) -> VersionInfo {
    version_info(&product::of_jobs(), runner, &[].into())
}

/// The identity of this installation, which is kept beside the configuration.
pub(crate) fn system_id(config: &Path) -> SystemId {
    let loaded = SystemId::load_or_create(config);
    if let Some((path, error)) = loaded.not_saved {
        tracing::warn!(path = %path.display(), %error, "cannot save the system id; the next start may have another one");
    }
    loaded.id
}

/// A failed call as the reason to end.
pub(crate) fn unreachable(runner: &Runner, error: ApiError) -> anyhow::Error {
    let failed: anyhow::Result<()> = Err(error.into());
    let failed = failed.map_err(|error| error.context(format!("{} did not answer as expected", runner.url)));
    failed
        .exit(Exit::Server)
        .err()
        .unwrap_or_else(|| anyhow::anyhow!("the server did not answer as expected"))
}
