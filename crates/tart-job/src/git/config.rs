//! Git's configuration for one job, as environment variables.

use std::fmt;

use super::remote::{Remote, SshAddress};

/// The variable that holds the password where `CI_JOB_TOKEN` does not.
const PASSWORD_VARIABLE: &str = "TART_GIT_PASSWORD";

/// What every git of the job is told, in both trees. `Debug` does not show the token.
#[derive(Clone, Copy)]
pub struct GitConfigRequest<'a> {
    /// The repository and its credentials.
    pub remote: &'a Remote,
    /// What `CI_JOB_TOKEN` is in this job's environment.
    pub job_token: Option<&'a str>,
    /// The file with the authorities to trust.
    pub ca_file: Option<&'a str>,
    /// The file with the client certificate.
    pub certificate_file: Option<&'a str>,
    /// The file with the client certificate's key.
    pub key_file: Option<&'a str>,
}

/// Keys and values, in order; a key may occur more than once. `Debug` shows keys only.
#[derive(Clone, Default)]
pub struct GitConfig {
    entries: Vec<(String, String)>,
    /// Variables that entries refer to.
    variables: Vec<(String, String)>,
}

impl fmt::Debug for GitConfigRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitConfigRequest").field("remote", self.remote).finish_non_exhaustive()
    }
}

impl fmt::Debug for GitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(key, _)| key)).finish()
    }
}

impl GitConfig {
    /// What git needs to reach the repository, from the stages of the runner as well as from the scripts of the
    /// user.
    pub fn new(request: &GitConfigRequest<'_>) -> Self {
        let mut config = Self::default();
        // The directory may belong to another user than the image's. All of the VM belongs to this job.
        config.push("safe.directory", "*");
        let remote = request.remote;
        let mut variable = "CI_JOB_TOKEN";
        if request.job_token != Some(remote.password.as_str()) {
            variable = PASSWORD_VARIABLE;
            config.variables.push((variable.to_owned(), remote.password.clone()));
        }
        let helper = format!(
            "!f() {{ if [ \"$1\" = get ]; then printf 'username=%s\\npassword=%s\\n' '{}' \"${variable}\"; fi; }}; f",
            remote.username.replace('\'', r"'\''")
        );
        for server in &remote.servers {
            config.push(&format!("credential.{server}.helper"), &helper);
            let files = [
                ("sslCAInfo", request.ca_file),
                ("sslCert", request.certificate_file),
                ("sslKey", request.key_file),
            ];
            for (key, file) in files {
                if let Some(file) = file {
                    config.push(&format!("http.{server}/.{key}"), file);
                }
            }
        }
        config
    }

    /// Adds an entry.
    pub fn push(&mut self, key: &str, value: &str) {
        self.entries.push((key.to_owned(), value.to_owned()));
    }

    /// Makes the filters of git-lfs known, which the helper tree has.
    pub fn use_lfs(&mut self) {
        self.push("filter.lfs.clean", "git-lfs clean -- %f");
        self.push("filter.lfs.smudge", "git-lfs smudge -- %f");
        self.push("filter.lfs.process", "git-lfs filter-process");
        self.push("filter.lfs.required", "true");
    }

    /// Reaches submodules with SSH addresses of the same GitLab by HTTPS.
    pub fn force_https(&mut self, remote: &Remote, ssh: &SshAddress) {
        let Some(server) = remote.servers.first() else { return };
        let key = format!("url.{server}/.insteadOf");
        if ssh.port == 22 {
            self.push(&key, &format!("git@{}:", ssh.host));
            self.push(&key, &format!("ssh://git@{}/", ssh.host));
        }
        self.push(&key, &format!("ssh://git@{}:{}/", ssh.host, ssh.port));
    }

    /// Sends the correlation id with requests to the servers of the remote.
    pub fn correlate(&mut self, remote: &Remote, correlation_id: &str) {
        for server in &remote.servers {
            self.push(
                &format!("http.{server}/.extraHeader"),
                &format!("X-Gitaly-Correlation-ID: {correlation_id}"),
            );
        }
    }

    /// The environment variables. `taken` is what `GIT_CONFIG_COUNT` is already: the entries of the job itself come
    /// first and stay.
    pub fn environment(&self, taken: usize) -> Vec<(String, String)> {
        let mut environment = self.variables.clone();
        for (index, (key, value)) in self.entries.iter().enumerate() {
            let number = taken + index;
            environment.push((format!("GIT_CONFIG_KEY_{number}"), key.clone()));
            environment.push((format!("GIT_CONFIG_VALUE_{number}"), value.clone()));
        }
        environment.push(("GIT_CONFIG_COUNT".to_owned(), (taken + self.entries.len()).to_string()));
        environment
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::git::RemoteRequest;

    fn remote(repo_url: &str) -> Remote {
        let request = RemoteRequest {
            repo_url,
            clone_url: None,
            project_path: "g/p",
            server_url: "https://gitlab.example.com",
            job_token: "unused",
        };
        Remote::new(&request).expect("good request")
    }

    /// Asks git itself which credentials it would use.
    fn fill(config: &GitConfig, job_token: &str, url: &str) -> Option<(String, String)> {
        let mut git = Command::new("git")
            .args(["credential", "fill"])
            .env_clear()
            .env("PATH", std::env::var("PATH").expect("tests have a PATH"))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("CI_JOB_TOKEN", job_token)
            .envs(config.environment(0))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("git is installed");
        writeln!(git.stdin.take().expect("piped"), "url={url}\n").expect("git reads");
        let output = git.wait_with_output().expect("git ends");
        let text = String::from_utf8(output.stdout).expect("text");
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        Some((field("username=")?, field("password=")?)).filter(|_| output.status.success())
    }

    fn request<'a>(remote: &'a Remote, job_token: &'a str) -> GitConfigRequest<'a> {
        GitConfigRequest {
            remote,
            job_token: Some(job_token),
            ca_file: None,
            certificate_file: None,
            key_file: None,
        }
    }

    #[test]
    fn git_gets_the_job_token_for_every_repository_of_the_server_and_for_no_other() {
        let remote = remote("https://gitlab-ci-token:t0ken@gitlab.example.com/g/p.git");
        let config = GitConfig::new(&request(&remote, "t0ken"));
        let credentials = Some(("gitlab-ci-token".to_owned(), "t0ken".to_owned()));
        assert_eq!(fill(&config, "t0ken", "https://gitlab.example.com/g/p.git"), credentials);
        assert_eq!(fill(&config, "t0ken", "https://gitlab.example.com/other/submodule.git"), credentials);
        assert_eq!(fill(&config, "t0ken", "https://github.com/g/p.git"), None);
        assert_eq!(fill(&config, "t0ken", "http://gitlab.example.com/g/p.git"), None);
        assert!(config.environment(0).iter().all(|(_, value)| !value.contains("t0ken")));
    }

    #[test]
    fn a_job_that_overrides_ci_job_token_still_gets_its_sources() {
        let remote = remote("https://some%27user:t0ken@gitlab.example.com/g/p.git");
        let config = GitConfig::new(&request(&remote, "another"));
        let credentials = Some(("some'user".to_owned(), "t0ken".to_owned()));
        assert!(!format!("{config:?}").contains("t0ken"));
        assert_eq!(fill(&config, "another", "https://gitlab.example.com/g/p.git"), credentials);
    }

    #[test]
    fn the_entries_of_the_job_stay() {
        let remote = remote("file:///srv/p.git");
        let mut config = GitConfig { entries: Vec::new(), ..GitConfig::new(&request(&remote, "unused")) };
        config.push("a.b", "c");
        assert_eq!(
            config.environment(2),
            [("GIT_CONFIG_KEY_2", "a.b"), ("GIT_CONFIG_VALUE_2", "c"), ("GIT_CONFIG_COUNT", "3")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn all_entries_have_the_form_git_wants() {
        let remote = remote("https://gitlab-ci-token:t0ken@gitlab.example.com:8443/g/p.git");
        let mut config =
            GitConfig::new(&GitConfigRequest { ca_file: Some("/t/CA"), ..request(&remote, "t0ken") });
        config.force_https(&remote, &SshAddress { host: "ssh.example.com".into(), port: 22 });
        config.force_https(&remote, &SshAddress { host: "ssh.example.com".into(), port: 2222 });
        config.correlate(&remote, "id-1");
        let text: Vec<String> =
            config.entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        safe.directory = *
        credential.https://gitlab.example.com:8443.helper = !f() { if [ "$1" = get ]; then printf 'username=%s\npassword=%s\n' 'gitlab-ci-token' "$CI_JOB_TOKEN"; fi; }; f
        http.https://gitlab.example.com:8443/.sslCAInfo = /t/CA
        credential.https://gitlab.example.com.helper = !f() { if [ "$1" = get ]; then printf 'username=%s\npassword=%s\n' 'gitlab-ci-token' "$CI_JOB_TOKEN"; fi; }; f
        http.https://gitlab.example.com/.sslCAInfo = /t/CA
        url.https://gitlab.example.com:8443/.insteadOf = git@ssh.example.com:
        url.https://gitlab.example.com:8443/.insteadOf = ssh://git@ssh.example.com/
        url.https://gitlab.example.com:8443/.insteadOf = ssh://git@ssh.example.com:22/
        url.https://gitlab.example.com:8443/.insteadOf = ssh://git@ssh.example.com:2222/
        http.https://gitlab.example.com:8443/.extraHeader = X-Gitaly-Correlation-ID: id-1
        http.https://gitlab.example.com/.extraHeader = X-Gitaly-Correlation-ID: id-1
        "#);
    }
}
