//! The address of a repository, apart from the credentials it was sent with.

use std::fmt;

use url::Url;

/// Who git is when the job's URL does not say it.
const JOB_USER: &str = "gitlab-ci-token";

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// `clone_url` is not a URL.
    #[error("`clone_url` is not a URL: {0}; correct it in config.toml")]
    CloneUrl(String),
}

/// What the address depends on. `Debug` does not show it, for it holds credentials.
#[derive(Clone, Copy)]
pub struct RemoteRequest<'a> {
    /// `git_info.repo_url`, with its credentials.
    pub repo_url: &'a str,
    /// `clone_url` of the configuration.
    pub clone_url: Option<&'a str>,
    /// `CI_PROJECT_PATH`.
    pub project_path: &'a str,
    /// `CI_SERVER_URL`.
    pub server_url: &'a str,
    /// The job token, for a URL without credentials.
    pub job_token: &'a str,
}

/// Where git reaches GitLab by SSH: `CI_SERVER_SHELL_SSH_HOST` and `CI_SERVER_SHELL_SSH_PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// The host.
    pub host: String,
    /// The port; 22 if not said.
    pub port: u16,
}

/// The address of the project's repository. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// What `origin` is set to. Holds no credentials.
    pub url: String,
    /// The user git authenticates as.
    pub username: String,
    /// The job token.
    pub password: String,
    /// The servers the token is good for, such as `https://gitlab.example.com:8443`; the first is the remote's own.
    pub servers: Vec<String>,
}

impl Remote {
    /// Decides the address: `repo_url`, or the project's path at `clone_url` if the runner has one.
    ///
    /// # Errors
    /// The runner's `clone_url` is not a URL.
    pub fn new(request: &RemoteRequest<'_>) -> Result<Self, RemoteError> {
        let sent = Url::parse(request.repo_url).ok();
        let credentials = sent.as_ref().filter(|url| url.password().is_some());
        let username = credentials.map(|url| decoded(url.username())).filter(|name| !name.is_empty());
        let password = credentials.and_then(Url::password).map(decoded);

        let remote = match request.clone_url {
            Some(base) => Some(at_clone_url(base, request)?),
            None => sent.clone(),
        };
        let mut servers = Vec::new();
        for url in [remote.clone(), sent, Url::parse(request.server_url).ok()].into_iter().flatten() {
            servers.extend(server(&url).filter(|server| !servers.contains(server)));
        }
        Ok(Self {
            url: remote.map_or_else(|| without_user_information(request.repo_url), without_credentials),
            username: username.unwrap_or_else(|| JOB_USER.to_owned()),
            password: password.unwrap_or_else(|| request.job_token.to_owned()),
            servers,
        })
    }
}

fn at_clone_url(base: &str, request: &RemoteRequest<'_>) -> Result<Url, RemoteError> {
    let invalid = |error: url::ParseError| RemoteError::CloneUrl(error.to_string());
    let full = format!("{}/{}.git", base.trim_end_matches('/'), request.project_path.trim_matches('/'));
    let mut url = Url::parse(&full).map_err(invalid)?;
    if url.scheme() == "ssh" && url.username().is_empty() {
        url.set_username("git").map_err(|()| RemoteError::CloneUrl("it has no host".to_owned()))?;
    }
    Ok(url)
}

/// A URL of HTTP without user and password. Other schemes need their user, and have no password of ours.
fn without_credentials(mut url: Url) -> String {
    if is_http(&url) {
        // Only URLs without a host refuse, and those have no credentials.
        let _ = url.set_username("");
    }
    let _ = url.set_password(None);
    url.into()
}

/// The same for what looks like a URL and is none, so that git's complaint about it does not show a token.
fn without_user_information(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find('/').unwrap_or(rest.len());
            let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[host..])
        }
        None => text.to_owned(),
    }
}

fn server(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|_| is_http(url))?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{host}{port}", url.scheme()))
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

/// Undoes percent encoding.
fn decoded(text: &str) -> String {
    // A query string differs from user information only in what `+` means.
    let query = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(query.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

impl fmt::Debug for RemoteRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteRequest").field("project_path", &self.project_path).finish_non_exhaustive()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("url", &self.url)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: RemoteRequest<'static> = RemoteRequest {
        repo_url: "https://gitlab-ci-token:s%2Bcr%40t+&x@gitlab.example.com:8443/group/project.git",
        clone_url: None,
        project_path: "group/project",
        server_url: "https://gitlab.example.com",
        job_token: "job-token",
    };

    #[test]
    fn credentials_are_taken_out_of_the_url() {
        let remote = Remote::new(&REQUEST).expect("good request");
        assert_eq!(remote.url, "https://gitlab.example.com:8443/group/project.git");
        assert_eq!((remote.username.as_str(), remote.password.as_str()), ("gitlab-ci-token", "s+cr@t+&x"));
        assert_eq!(remote.servers, ["https://gitlab.example.com:8443", "https://gitlab.example.com"]);
        assert!(!format!("{remote:?}").contains("cr@t"));
    }

    #[test]
    fn a_url_without_credentials_uses_the_job_token() {
        let request = RemoteRequest { repo_url: "http://h/p.git", server_url: "", ..REQUEST };
        let remote = Remote::new(&request).expect("good request");
        assert_eq!((remote.username.as_str(), remote.password.as_str()), ("gitlab-ci-token", "job-token"));
        assert_eq!(remote.servers, ["http://h"]);
    }

    #[test]
    fn the_clone_url_replaces_the_server() {
        let at = |clone_url| Remote::new(&RemoteRequest { clone_url: Some(clone_url), ..REQUEST });
        let remote = at("http://internal:3000/gitlab/").expect("good request");
        assert_eq!(remote.url, "http://internal:3000/gitlab/group/project.git");
        assert_eq!(
            remote.servers,
            ["http://internal:3000", "https://gitlab.example.com:8443", "https://gitlab.example.com"]
        );
        assert_eq!(remote.password, "s+cr@t+&x");
        let remote = at("https://user:pw@internal").expect("good request");
        assert_eq!(remote.url, "https://internal/group/project.git");
        assert_eq!(at("ssh://internal").expect("good request").url, "ssh://git@internal/group/project.git");
        assert_eq!(at("ssh://me@internal").expect("good request").url, "ssh://me@internal/group/project.git");
        insta::assert_snapshot!(
            at("internal").expect_err("no URL"),
            @"`clone_url` is not a URL: relative URL without a base; correct it in config.toml"
        );
    }

    #[test]
    fn not_even_a_broken_url_keeps_its_credentials() {
        let request = RemoteRequest { repo_url: "https://gitlab-ci-token:t0ken@bad host/p.git", ..REQUEST };
        let remote = Remote::new(&request).expect("good request");
        assert_eq!(remote.url, "https://bad host/p.git");
        assert!(!format!("{request:?}").contains("t0ken"));
    }

    #[test]
    fn other_addresses_stay_as_they_are() {
        for repo_url in ["file:///srv/p.git", "git@h:p.git", "nonsense", "ssh://git@h/p.git"] {
            let request = RemoteRequest { repo_url, server_url: "", ..REQUEST };
            let remote = Remote::new(&request).expect("good request");
            assert_eq!((remote.url.as_str(), remote.servers.len()), (repo_url, 0));
        }
    }
}
