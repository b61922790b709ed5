//! Which image a job runs in, and by which rules. Pure.

use globset::GlobBuilder;
use tart_assets::DEFAULT_IMAGE;
use tart_images::{Cause, ImageError, ImageRequest, PullPolicy, chain};
use tart_job::outcome::Failure;
use tart_job::variables::JobVariables;
use tart_registry::{CredentialSources, JobCredential};
use tart_spec::{FailureReason, Image, JobPayload};

/// Name of the variable with Docker's client configuration.
const AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";

/// Type of the credentials that are for a registry.
const REGISTRY: &str = "registry";

/// An image to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// A root file system of the host, which only the administrator names.
    Path(String),
    /// The name of an image.
    Name(String),
}

/// What a job asks for, and what it is asked of.
pub(super) struct Wishes<'a> {
    /// What the caller wants, whatever the job says.
    pub(super) wanted: Option<&'a str>,
    /// The job's image.
    pub(super) job: Option<&'a Image>,
    /// Its variables.
    pub(super) variables: &'a JobVariables,
    /// The runner's configuration.
    pub(super) runner: &'a tart_config::Runner,
}

impl Wishes<'_> {
    /// The image: what the caller wants, what the job names, what the configuration names, or the default.
    ///
    /// # Errors
    /// If the job names a path or makes one by its variables, which would be one of the host, or an image that is not
    /// allowed.
    pub(super) fn choose(&self) -> Result<Choice, Failure> {
        let (docker, microvm) = (&self.runner.docker, &self.runner.microvm);
        if let Some(wanted) = self.wanted {
            return Ok(administrators(wanted));
        }
        let configured = docker.image.as_deref().map(|image| self.variables.expand(image));
        let job = self.job.map(|image| self.variables.expand(&image.name)).unwrap_or_default();
        let job = job.trim();
        no_path("the job's image", job)?;
        if !job.is_empty() {
            let own = configured.as_deref() == Some(job);
            let patterns: Vec<_> =
                docker.allowed_images.iter().map(|pattern| self.variables.expand(pattern)).collect();
            if !own && !is_allowed(job, &patterns) {
                return Err(not_allowed("image", job, "images", &patterns));
            }
            return Ok(Choice::Name(job.to_owned()));
        }
        if let Some(path) = docker.image.as_deref().filter(|image| is_hosts(image)) {
            return Ok(Choice::Path(path.to_owned()));
        }
        match configured.as_deref().map(str::trim).filter(|image| !image.is_empty()) {
            Some(image) => {
                // The variables are the job's.
                no_path("with the job's variables, `image` in [runners.docker]:", image)?;
                Ok(Choice::Name(image.to_owned()))
            }
            None => Ok(administrators(microvm.image.as_deref().unwrap_or(DEFAULT_IMAGE))),
        }
    }

    /// The image of a service. The lists of allowed services do not hold for those of the configuration, nor for an
    /// image that the configuration has a service of.
    ///
    /// # Errors
    /// If it is a path, or not allowed.
    pub(super) fn choose_service(&self, configured: bool) -> Result<String, Failure> {
        let docker = &self.runner.docker;
        let name = self.job.map(|image| image.name.as_str()).unwrap_or_default();
        no_path("the service", name)?;
        let own = configured || docker.services.iter().any(|service| service.name == name);
        let patterns: Vec<_> =
            docker.allowed_services.iter().map(|pattern| self.variables.expand(pattern)).collect();
        if !own && !is_allowed(name, &patterns) {
            return Err(not_allowed("service", name, "services", &patterns));
        }
        Ok(name.to_owned())
    }

    /// Who runs a service, if not whom its image names.
    ///
    /// # Errors
    /// If the user is not allowed.
    pub(super) fn service_user(&self) -> Result<Option<String>, Failure> {
        let user = self.job.and_then(|image| image.executor_opts.docker.user.as_deref());
        let user = user.map(|user| self.variables.expand(user)).filter(|user| !user.is_empty());
        self.allowed_user(user)
    }

    /// The pull policies to try: the job's if all of them are allowed, else the runner's.
    ///
    /// # Errors
    /// If the job, or the runner itself, names one that is not allowed.
    pub(super) fn policies(&self) -> Result<Vec<PullPolicy>, Failure> {
        let docker = &self.runner.docker;
        let own: Vec<_> = docker.pull_policy.iter().map(policy).collect();
        let own = if own.is_empty() { vec![PullPolicy::Always] } else { own };
        let allowed: Vec<_> = docker.allowed_pull_policies.iter().map(policy).collect();
        let allowed = if allowed.is_empty() { own.clone() } else { allowed };
        let asked = self.job.map(|image| image.pull_policy.as_slice()).unwrap_or_default();
        let asked = asked.iter().map(|word| word.parse()).collect::<Result<Vec<PullPolicy>, _>>();
        let asked = asked.map_err(|error| Failure::configuration(error.to_string()))?;
        let (chosen, whose) =
            if asked.is_empty() { (own, "Runner config") } else { (asked, "GitLab pipeline config") };
        if chosen.iter().all(|policy| allowed.contains(policy)) {
            return Ok(chosen);
        }
        Err(Failure::configuration(format!(
            "pull_policy ({}) defined in {whose} is not one of the allowed_pull_policies ({})",
            PullPolicy::list(&chosen),
            PullPolicy::list(&allowed)
        )))
    }

    /// Who runs the job's scripts: the runner's configuration wins over the job, and the job over the image.
    ///
    /// # Errors
    /// If the user is not allowed.
    pub(super) fn user(&self) -> Result<Option<String>, Failure> {
        let docker = &self.runner.docker;
        let job = self.job.and_then(|image| image.executor_opts.docker.user.as_deref());
        let user = docker.user.as_deref().filter(|user| !user.is_empty()).or(job);
        let user = user.map(|user| self.variables.expand(user)).filter(|user| !user.is_empty());
        self.allowed_user(user)
    }

    fn allowed_user(&self, user: Option<String>) -> Result<Option<String>, Failure> {
        let allowed = &self.runner.docker.allowed_users;
        match user {
            Some(user) if !is_allowed(&user, allowed) => Err(not_allowed("user", &user, "users", allowed)),
            user => Ok(user),
        }
    }

    /// The entrypoint that replaces the image's; empty for none at all.
    pub(super) fn entrypoint(&self) -> Option<Vec<String>> {
        let asked = self.job.map(|image| image.entrypoint.as_slice()).unwrap_or_default();
        if asked.is_empty() || self.runner.docker.disable_entrypoint_overwrite {
            return None;
        }
        // `[""]` is how an entrypoint is taken away. Variables are left to the programs: `$@` is a shell's own.
        Some(asked.iter().skip_while(|word| word.is_empty()).cloned().collect())
    }

    /// Whether the job has an entrypoint of its own, allowed or not.
    pub(super) fn asks_for_an_entrypoint(&self) -> bool {
        self.job.is_some_and(|image| !image.entrypoint.is_empty())
    }

    /// What is asked of the images of the host.
    ///
    /// # Errors
    /// As [`Self::policies`].
    pub(super) fn request(&self, name: String, payload: &JobPayload) -> Result<ImageRequest, Failure> {
        let docker = self.job.map(|image| &image.executor_opts.docker);
        let platform = docker.and_then(|docker| docker.platform.as_deref());
        let platform = platform.map(|platform| self.variables.expand(platform));
        Ok(ImageRequest {
            name,
            platform: platform.filter(|platform| !platform.is_empty()),
            policies: self.policies()?,
            credentials: self.credentials(payload),
        })
    }

    fn credentials(&self, payload: &JobPayload) -> CredentialSources {
        let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
        let environment = self.runner.environment.iter().rev();
        let runner =
            environment.filter_map(|entry| entry.split_once('=')).find(|(name, _)| *name == AUTH_CONFIG);
        let job = payload.credentials.iter().filter(|credentials| credentials.r#type == REGISTRY);
        let runner_config = runner.map(|(_, value)| value.to_owned());
        let variable = self.variables.value(AUTH_CONFIG).map(str::to_owned);
        CredentialSources {
            // The runner's environment is among the job's variables too.
            job_config: variable.filter(|value| Some(value) != runner_config.as_ref()),
            runner_config,
            host: home.map(|home| home.join(".docker/config.json")),
            job: job
                .map(|credentials| JobCredential {
                    registry: credentials.url.clone(),
                    user: credentials.username.clone(),
                    password: credentials.password.clone(),
                })
                .collect(),
        }
    }
}

/// What the administrator wrote: a path is one of the host.
fn administrators(text: &str) -> Choice {
    if is_hosts(text) { Choice::Path(text.to_owned()) } else { Choice::Name(text.to_owned()) }
}

fn is_hosts(text: &str) -> bool {
    text.starts_with(['/', '.'])
}

/// Refuses what a job made a path of: it would be one of the host.
fn no_path(what: &str, name: &str) -> Result<(), Failure> {
    if name.starts_with(['/', '.', '~']) {
        return Err(Failure::configuration(format!("{what} `{name}` is a path; name an image")));
    }
    Ok(())
}

fn policy(policy: &tart_config::PullPolicy) -> PullPolicy {
    match policy {
        tart_config::PullPolicy::Always => PullPolicy::Always,
        tart_config::PullPolicy::IfNotPresent => PullPolicy::IfNotPresent,
        tart_config::PullPolicy::Never => PullPolicy::Never,
    }
}

/// Whether one of the patterns fits; no patterns allow everything. `*` stops at slashes, `**` does not.
fn is_allowed(name: &str, patterns: &[String]) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| {
            let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
            // What is no pattern is a name.
            glob.map_or(pattern == name, |glob| glob.compile_matcher().is_match(name))
        })
}

fn not_allowed(kind: &str, name: &str, kinds: &str, patterns: &[String]) -> Failure {
    let list: Vec<_> = patterns.iter().map(|pattern| format!("\n- {pattern}")).collect();
    Failure::configuration(format!(
        "the {kind} `{name}` is not on the runner's list of allowed {kinds} (`allowed_{kinds}` in \
         [runners.docker]):{}",
        list.concat()
    ))
}

/// Why there is no image.
pub(super) fn failure(error: &ImageError) -> Failure {
    let reason = match error.cause() {
        Cause::Configuration => FailureReason::RunnerConfigurationError,
        Cause::Network => FailureReason::RunnerExternalDependencyFailure,
        Cause::Image => FailureReason::ImagePullFailure,
        Cause::Host => FailureReason::RunnerSystemFailure,
    };
    Failure::Other { message: chain(error), reason }
}

#[cfg(test)]
mod tests;
