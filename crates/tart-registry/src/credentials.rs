//! Which credentials count, in the official runner's order.

use std::{fmt, path::PathBuf};

use oci_spec::distribution::Reference;

use crate::{
    auth::Auth,
    docker_config::{DockerConfig, covers},
    error::RegistryError,
    helper,
};

/// Most bytes of a configuration.
const MAX_CONFIG: u64 = 1 << 20;

/// Where credentials may come from. `Debug` shows no secret.
#[derive(Clone, Default)]
pub struct CredentialSources {
    /// The job's variable `DOCKER_AUTH_CONFIG`.
    pub job_config: Option<String>,
    /// `DOCKER_AUTH_CONFIG` of the runner's `environment`.
    pub runner_config: Option<String>,
    /// Docker's `config.json` of the user who runs the runner.
    pub host: Option<PathBuf>,
    /// What GitLab sent with the job for its own registry.
    pub job: Vec<JobCredential>,
}

/// Credentials that GitLab sent with a job. `Debug` shows no secret.
#[derive(Clone)]
pub struct JobCredential {
    /// The registry's `host[:port]`.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for JobCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobCredential").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl fmt::Debug for CredentialSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialSources")
            .field("job_config", &self.job_config.is_some())
            .field("runner_config", &self.runner_config.is_some())
            .field("host", &self.host)
            .field("job", &self.job)
            .finish()
    }
}

/// The credentials that count.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Who asks.
    pub auth: Auth,
    /// Where that is from, for the log; nothing for nobody.
    pub source: Option<String>,
}

impl CredentialSources {
    /// The credentials for an image: those of the job's variable, the runner's, the user's, the payload's.
    ///
    /// # Errors
    /// If a configuration cannot be read, or a helper it names fails.
    pub async fn resolve(&self, reference: &Reference) -> Result<Found, RegistryError> {
        let variable = "$DOCKER_AUTH_CONFIG";
        for config in [&self.job_config, &self.runner_config].into_iter().flatten() {
            if config.trim().is_empty() {
                continue;
            }
            if let Some(auth) = lookup(config, variable, reference).await? {
                return Ok(Found { auth, source: Some(variable.to_owned()) });
            }
        }
        if let Some(path) = &self.host
            && let Some(config) = read(path)?
        {
            let source = path.display().to_string();
            if let Some(auth) = lookup(&config, &source, reference).await? {
                return Ok(Found { auth, source: Some(source) });
            }
        }
        let (registry, repository) = (reference.registry(), reference.repository());
        let job = self.job.iter().find(|job| covers(&job.registry, registry, repository).is_some());
        Ok(job.map_or_else(Found::default, |job| Found {
            auth: Auth::Basic { user: job.user.clone(), password: job.password.clone() },
            source: Some("job payload (GitLab Registry)".to_owned()),
        }))
    }
}

async fn lookup(config: &str, source: &str, reference: &Reference) -> Result<Option<Auth>, RegistryError> {
    let config = DockerConfig::parse(config)
        .map_err(|problem| RegistryError::Settings(format!("{source} cannot be used: {problem}")))?;
    let entry = config.entry(reference.registry(), reference.repository());
    if let Some((name, server)) = entry.helper
        && let Some(auth) = helper::get(name, &server).await?
    {
        return Ok(Some(auth));
    }
    Ok(entry.auth)
}

/// A configuration file; nothing if there is none.
fn read(path: &PathBuf) -> Result<Option<String>, RegistryError> {
    let failed = |source| RegistryError::File { action: "read", path: path.clone(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // Files of others are not meant.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > MAX_CONFIG => {
            let text = format!("{} has more than {MAX_CONFIG} bytes", path.display());
            return Err(RegistryError::Settings(text));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: &str) -> String {
        format!(r#"{{"auths":{{"r.example.com":{{"username":"{user}","password":"pw"}}}}}}"#)
    }

    async fn user(sources: &CredentialSources, image: &str) -> (String, Option<String>) {
        let found = sources.resolve(&image.parse().unwrap()).await.unwrap();
        let user = match found.auth {
            Auth::Basic { user, .. } => user,
            other => format!("{other:?}"),
        };
        (user, found.source)
    }

    #[tokio::test]
    async fn the_order_is_that_of_the_official_runner() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, config("host")).unwrap();
        let job = JobCredential {
            registry: "r.example.com".to_owned(),
            user: "payload".to_owned(),
            password: "pw".to_owned(),
        };
        let mut sources = CredentialSources {
            job_config: Some(config("job")),
            runner_config: Some(config("runner")),
            host: Some(file.clone()),
            job: vec![job],
        };
        let mut order = Vec::new();
        order.push(user(&sources, "r.example.com/a").await);
        sources.job_config = None;
        order.push(user(&sources, "r.example.com/a").await);
        sources.runner_config = None;
        order.push(user(&sources, "r.example.com/a").await);
        sources.host = Some(directory.path().join("missing"));
        order.push(user(&sources, "r.example.com/a").await);
        let variable = Some("$DOCKER_AUTH_CONFIG".to_owned());
        assert_eq!(
            order,
            [
                ("job".to_owned(), variable.clone()),
                ("runner".to_owned(), variable),
                ("host".to_owned(), Some(file.display().to_string())),
                ("payload".to_owned(), Some("job payload (GitLab Registry)".to_owned())),
            ]
        );
        assert_eq!(user(&sources, "other.example.com/a").await, ("Anonymous".to_owned(), None));
        assert!(!format!("{sources:?}").contains("pw"));
    }

    #[tokio::test]
    async fn a_broken_variable_is_said_without_its_content() {
        let sources = CredentialSources { job_config: Some("{secret".to_owned()), ..Default::default() };
        let error = sources.resolve(&"a".parse().unwrap()).await.unwrap_err();
        insta::assert_snapshot!(error, @"$DOCKER_AUTH_CONFIG cannot be used: it is not valid JSON (line 1, column 2)");
    }
}
