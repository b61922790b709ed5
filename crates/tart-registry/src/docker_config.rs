//! Docker's client configuration: who the user is to which registry.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::auth::Auth;

/// `config.json`, as far as it is about registries. It holds secrets and has no `Debug`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct DockerConfig {
    auths: BTreeMap<String, AuthEntry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Something a configuration says about a repository.
pub(crate) struct Entry {
    /// How particular it is: the length of the path that the repository is below.
    pub(crate) length: usize,
    pub(crate) from: From,
}

/// Where credentials are.
pub(crate) enum From {
    /// A helper program of this short name knows them, which calls the registry by this name.
    Helper { name: String, server: String },
    /// Here.
    Here(Auth),
}

/// Names of Docker Hub in configurations.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// The name of Docker Hub that `docker login` uses.
const HUB_KEY: &str = "https://index.docker.io/v1/";

impl DockerConfig {
    /// Reads a configuration. The error names no content.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            format!("it is not valid JSON (line {}, column {})", error.line(), error.column())
        })
    }

    /// What is said about a repository. Of two that are as particular as each other the first counts: a helper of the
    /// registry, the helper of all registries, the configuration itself.
    pub(crate) fn entries(&self, registry: &str, repository: &str) -> Vec<Entry> {
        let helpers = self.helpers.iter().filter_map(|(key, name)| {
            let length = covers(key, registry, repository)?;
            Some(Entry { length, from: From::Helper { name: name.clone(), server: key.clone() } })
        });
        let store = self.store.iter().filter(|name| !name.is_empty()).map(|name| {
            let server = if HUB.contains(&registry) { HUB_KEY } else { registry };
            Entry { length: 0, from: From::Helper { name: name.clone(), server: server.to_owned() } }
        });
        let here = self.auths.iter().filter_map(|(key, entry)| {
            let length = covers(key, registry, repository)?;
            Some(Entry { length, from: From::Here(entry.auth()?) })
        });
        helpers.chain(store).chain(here).collect()
    }
}

impl AuthEntry {
    fn auth(&self) -> Option<Auth> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Some(Auth::IdentityToken(token.clone()));
        }
        let decoded = self.auth.as_ref().and_then(|auth| STANDARD.decode(auth.trim()).ok());
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = match (pair, &self.username, &self.password) {
            // Docker itself has written a zero byte at the end.
            (Some((user, password)), ..) => (user.to_owned(), password.trim_end_matches('\0').to_owned()),
            (None, Some(user), Some(password)) => (user.clone(), password.clone()),
            _ => return None,
        };
        if user == "<token>" {
            return Some(Auth::IdentityToken(password));
        }
        (!user.is_empty()).then_some(Auth::Basic { user, password })
    }
}

/// Whether a key of a configuration is for a repository, and how particular it is.
///
/// A key with a scheme is of old times, when what followed the host was the version of the protocol; else it is a path
/// of repositories, as the official runner has it (helpers/docker/auth).
pub(crate) fn covers(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let old = ["https://", "http://"].iter().find_map(|scheme| {
        key.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme))?;
        key.get(scheme.len()..)
    });
    let key = old.unwrap_or(key).trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = if old.is_some() || matches!(path, "v1" | "v2") { "" } else { path };
    let is_hub = |name: &str| HUB.iter().any(|hub| name.eq_ignore_ascii_case(hub));
    let same = host.eq_ignore_ascii_case(registry) || is_hub(host) && is_hub(registry);
    let below = path.is_empty()
        || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (same && below).then_some(path.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": { "auth": "aHViOnB3" },
            "registry.example.com": { "username": "all", "password": "pw" },
            "registry.example.com/team": { "auth": "dGVhbTpwdzpjb2xvbg==" },
            "tokens.example.com": { "auth": "PHRva2VuPjo=", "identitytoken": "secret" },
            "empty.example.com": {}
        },
        "credHelpers": { "123.dkr.ecr.example.com": "ecr-login" }
    }"#;

    fn auths(registry: &str, repository: &str) -> Vec<(usize, Auth)> {
        let config = DockerConfig::parse(CONFIG).unwrap();
        let here = |entry: Entry| match entry.from {
            From::Here(auth) => Some((entry.length, auth)),
            From::Helper { .. } => None,
        };
        config.entries(registry, repository).into_iter().filter_map(here).collect()
    }

    fn basic(user: &str, password: &str) -> Auth {
        Auth::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn entries_are_for_repositories_below_them() {
        assert_eq!(auths("docker.io", "library/busybox"), [(0, basic("hub", "pw"))]);
        assert_eq!(auths("registry.example.com", "other/app"), [(0, basic("all", "pw"))]);
        assert_eq!(
            auths("registry.example.com", "team/app"),
            [(0, basic("all", "pw")), (4, basic("team", "pw:colon"))]
        );
        assert_eq!(auths("registry.example.com", "teamwork/app"), [(0, basic("all", "pw"))]);
        assert_eq!(auths("tokens.example.com", "a"), [(0, Auth::IdentityToken("secret".to_owned()))]);
        assert_eq!(auths("empty.example.com", "a"), []);
        assert_eq!(auths("elsewhere.example.com", "a"), []);
    }

    #[test]
    fn a_key_with_a_scheme_is_for_the_whole_host() {
        assert_eq!(covers("https://Registry.example.com/v1/", "registry.example.com", "a"), Some(0));
        assert_eq!(covers("HTTPS://registry.example.com/team", "registry.example.com", "a"), Some(0));
        assert_eq!(covers("registry.example.com/v2/", "registry.example.com", "a"), Some(0));
        assert_eq!(covers("registry.example.com:5000", "registry.example.com", "a"), None);
        assert_eq!(covers("registry.example.com/team", "registry.example.com", "a"), None);
    }

    #[test]
    fn helpers_are_for_their_registries() {
        let helpers = |config: &str, registry: &str| {
            let config = DockerConfig::parse(config).unwrap();
            let name = |entry: Entry| match entry.from {
                From::Helper { name, server } => Some((name, server)),
                From::Here(_) => None,
            };
            config.entries(registry, "a").into_iter().filter_map(name).collect::<Vec<_>>()
        };
        let ecr = "123.dkr.ecr.example.com";
        assert_eq!(helpers(CONFIG, ecr), [("ecr-login".to_owned(), ecr.to_owned())]);
        assert_eq!(helpers(CONFIG, "docker.io"), []);
        let store = r#"{"credsStore":"pass"}"#;
        assert_eq!(helpers(store, "docker.io"), [("pass".to_owned(), HUB_KEY.to_owned())]);
        assert_eq!(helpers(store, "a.b"), [("pass".to_owned(), "a.b".to_owned())]);
        assert_eq!(helpers(r#"{"credsStore":""}"#, "docker.io"), []);
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        let error = DockerConfig::parse(r#"{"auths": {"a": "secret"}}"#).err().unwrap();
        insta::assert_snapshot!(error, @"it is not valid JSON (line 1, column 24)");
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in ".*", key in ".*", registry in ".*", repository in ".*") {
            let _any = DockerConfig::parse(&text);
            let _any = covers(&key, &registry, &repository);
        }
    }
}
