//! What the runner knows about itself and the place a job runs in.

use std::collections::BTreeMap;
use std::fmt;

/// The program, as it introduces itself to people and to git servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// For example `tart`.
    pub name: String,
    /// For example `0.1.0`.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
    /// The guest's operating system, as Go names it: `linux`.
    pub os: String,
    /// The guest's architecture, as Go names it: `amd64`, `arm64`.
    pub architecture: String,
}

/// PEM texts for talking to GitLab. `Debug` shows only which there are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities to trust.
    pub ca: Option<String>,
    /// The client certificate.
    pub certificate: Option<String>,
    /// The client certificate's key.
    pub key: Option<String>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles")
            .field("ca", &self.ca.is_some())
            .field("certificate", &self.certificate.is_some())
            .field("key", &self.key.is_some())
            .finish()
    }
}

/// Scripts of the runner's configuration that run around those of a job. Empty ones do not run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunnerScripts {
    /// Before the sources are fetched.
    pub pre_get_sources: String,
    /// After the sources are fetched.
    pub post_get_sources: String,
    /// Before the lines of each step.
    pub pre_build: String,
    /// After the lines of each step.
    pub post_build: String,
}

/// The runner's side of a job. Paths are paths in the guest. `Debug` does not show values of variables.
#[derive(Clone)]
pub struct RunnerContext {
    /// The program.
    pub product: Product,
    /// The short form of the runner token.
    pub short_token: String,
    /// The host's name, when it is worth showing beside the guest's.
    pub host_name: Option<String>,
    /// `environment` of the configuration, parsed.
    pub environment: Vec<(String, String)>,
    /// `feature_flags` of the configuration.
    pub feature_flags: BTreeMap<String, bool>,
    /// `builds_dir`, absolute.
    pub builds_dir: String,
    /// `cache_dir`, absolute.
    pub cache_dir: String,
    /// Whether jobs that run at the same time see the same builds directory.
    pub shared_builds_dir: bool,
    /// `custom_build_dir.enabled`: jobs may set `GIT_CLONE_PATH`.
    pub custom_build_dir: bool,
    /// `clean_git_config`: git's configuration and hooks are not kept from an earlier job.
    pub clean_git_config: bool,
    /// `debug_trace_disabled`: jobs may not switch on `CI_DEBUG_TRACE` and `CI_DEBUG_SERVICES`.
    pub debug_trace_disabled: bool,
    /// The smallest number free among the running jobs of the runner.
    pub concurrent_id: u32,
    /// The same among the jobs of the project.
    pub concurrent_project_id: u32,
    /// `clone_url` of the configuration.
    pub clone_url: Option<String>,
    /// The connection's certificates.
    pub tls: TlsFiles,
    /// The correlation id of the job request's answer.
    pub correlation_id: Option<String>,
    /// The scripts of the configuration.
    pub scripts: RunnerScripts,
    /// Resolved secrets.
    pub secrets: Vec<tart_spec::Variable>,
}

impl RunnerContext {
    /// What a runner without a configuration of its own adds: `/builds` and `/cache`, and nothing else.
    pub fn plain(product: Product) -> Self {
        Self {
            product,
            short_token: "local".to_owned(),
            host_name: None,
            environment: Vec::new(),
            feature_flags: BTreeMap::new(),
            builds_dir: "/builds".to_owned(),
            cache_dir: "/cache".to_owned(),
            shared_builds_dir: false,
            custom_build_dir: true,
            clean_git_config: true,
            debug_trace_disabled: false,
            concurrent_id: 0,
            concurrent_project_id: 0,
            clone_url: None,
            tls: TlsFiles::default(),
            correlation_id: None,
            scripts: RunnerScripts::default(),
            secrets: Vec::new(),
        }
    }
}

impl fmt::Debug for RunnerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerContext")
            .field("product", &self.product)
            .field("short_token", &self.short_token)
            .field("builds_dir", &self.builds_dir)
            .field("cache_dir", &self.cache_dir)
            .field("concurrent_id", &self.concurrent_id)
            .field("concurrent_project_id", &self.concurrent_project_id)
            .finish_non_exhaustive()
    }
}
