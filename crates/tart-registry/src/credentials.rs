//! Which credentials count, in the official runner's order.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use oci_spec::distribution::Reference;

use crate::{
    auth::Auth,
    docker_config::{DockerConfig, Entry, From, covers},
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
    /// Sources and helpers that could not be used, for people. The official runner ignores them too, and many images
    /// need no credentials.
    pub problems: Vec<String>,
}

/// What a source says about an image.
struct Candidate {
    source: String,
    entry: Entry,
}

impl CredentialSources {
    /// The credentials for an image: those whose path is the longest that the image is below; if several are, those of
    /// the job's variable, the runner's, the user's, the payload's, in this order (helpers/docker/auth of the official
    /// runner). A configuration is asked for helpers only as far as they are about the image.
    ///
    /// # Errors
    /// If the name of a helper could be anything but a helper.
    pub async fn resolve(&self, reference: &Reference) -> Result<Found, RegistryError> {
        let mut found = Found::default();
        let mut candidates = self.candidates(reference, &mut found.problems);
        // Stable: of the same length, the first counts.
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.entry.length));
        for Candidate { source, entry } in candidates {
            let auth = match entry.from {
                From::Here(auth) => Some(auth),
                From::Helper { name, server } => match helper::get(&name, &server).await {
                    Ok(auth) => auth,
                    Err(helper::Failure::Name(error)) => {
                        return Err(RegistryError::Settings(format!("{source} cannot be used: {error}")));
                    }
                    Err(helper::Failure::Program(problem)) => {
                        found.problems.push(format!("{source}: {problem}"));
                        None
                    }
                },
            };
            if let Some(auth) = auth {
                (found.auth, found.source) = (auth, Some(source));
                break;
            }
        }
        for problem in &found.problems {
            tracing::warn!(image = reference.whole(), "{problem}");
        }
        Ok(found)
    }

    fn candidates(&self, reference: &Reference, problems: &mut Vec<String>) -> Vec<Candidate> {
        let variable = "$DOCKER_AUTH_CONFIG";
        let mut configs = Vec::new();
        for config in [&self.job_config, &self.runner_config].into_iter().flatten() {
            if !config.trim().is_empty() {
                configs.push((variable.to_owned(), config.clone()));
            }
        }
        if let Some(path) = &self.host {
            match read(path) {
                Ok(config) => configs.extend(config.map(|config| (path.display().to_string(), config))),
                Err(problem) => problems.push(format!("{} cannot be used: {problem}", path.display())),
            }
        }
        let (registry, repository) = (reference.registry(), reference.repository());
        let mut candidates = Vec::new();
        for (source, config) in configs {
            match DockerConfig::parse(&config) {
                Ok(config) => {
                    let entries = config.entries(registry, repository).into_iter();
                    candidates.extend(entries.map(|entry| Candidate { source: source.clone(), entry }));
                }
                Err(problem) => problems.push(format!("{source} cannot be used: {problem}")),
            }
        }
        candidates.extend(self.job.iter().filter_map(|job| {
            let length = covers(&job.registry, registry, repository)?;
            let auth = Auth::Basic { user: job.user.clone(), password: job.password.clone() };
            let source = "job payload (GitLab Registry)".to_owned();
            Some(Candidate { source, entry: Entry { length, from: From::Here(auth) } })
        }));
        candidates
    }
}

/// A configuration file; nothing if there is none.
fn read(path: &Path) -> Result<Option<String>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut text = String::new();
    let length = file.take(MAX_CONFIG + 1).read_to_string(&mut text);
    match length.map_err(|error| error.to_string())? as u64 {
        length if length > MAX_CONFIG => Err(format!("it has more than {MAX_CONFIG} bytes")),
        _ => Ok(Some(text)),
    }
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
    async fn the_longest_path_counts_whatever_its_source() {
        let credential = |registry: &str, user: &str| JobCredential {
            registry: registry.to_owned(),
            user: user.to_owned(),
            password: "pw".to_owned(),
        };
        let sources = CredentialSources {
            job_config: Some(config("variable")),
            job: vec![credential("r.example.com", "host"), credential("r.example.com/team", "team")],
            ..Default::default()
        };
        assert_eq!(user(&sources, "r.example.com/team/app").await.0, "team");
        assert_eq!(user(&sources, "r.example.com/other/app").await.0, "variable");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_told_without_its_content_and_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, r#"{"credsStore":"no-such-helper"}"#).unwrap();
        let payload =
            JobCredential { registry: "r.example.com".into(), user: "payload".into(), password: "pw".into() };
        let sources = CredentialSources {
            job_config: Some("{secret".to_owned()),
            host: Some(file.clone()),
            job: vec![payload],
            ..Default::default()
        };
        let found = sources.resolve(&"r.example.com/a".parse().unwrap()).await.unwrap();
        assert_eq!(found.source.as_deref(), Some("job payload (GitLab Registry)"));
        let problems = found.problems.join("\n").replace(&file.display().to_string(), "FILE");
        insta::assert_snapshot!(problems, @r"
        $DOCKER_AUTH_CONFIG cannot be used: it is not valid JSON (line 1, column 2)
        FILE: the credential helper `docker-credential-no-such-helper` cannot be started: No such file or directory (os error 2)
        ");
    }

    #[tokio::test]
    async fn a_job_names_no_program_of_its_own() {
        for name in ["../../tmp/evil", "/tmp/evil", "Evil", "a b", "a;b"] {
            let config = format!(r#"{{"credHelpers":{{"r.example.com":"{name}"}}}}"#);
            let sources = CredentialSources { job_config: Some(config), ..Default::default() };
            let error = sources.resolve(&"r.example.com/a".parse().unwrap()).await.unwrap_err();
            assert!(error.to_string().contains("is no name of a credential helper"), "{error}");
        }
    }
}
