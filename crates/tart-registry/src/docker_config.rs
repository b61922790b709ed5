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

/// What a configuration says about one registry.
pub(crate) struct Entry<'a> {
    /// The helper program that knows more, by its short name, and the registry's name for it.
    pub(crate) helper: Option<(&'a str, String)>,
    /// What it says itself.
    pub(crate) auth: Option<Auth>,
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

    /// What is said about a registry and a repository of it; entries with a path are for repositories below it.
    pub(crate) fn entry(&self, registry: &str, repository: &str) -> Entry<'_> {
        let helper = self.helpers.iter().find(|(key, _)| covers(key, registry, repository).is_some());
        let helper = helper.map(|(key, name)| (name.as_str(), key.clone()));
        let server = || if HUB.contains(&registry) { HUB_KEY.to_owned() } else { registry.to_owned() };
        let helper = helper.or_else(|| self.store.as_deref().map(|store| (store, server())));
        let matching = self
            .auths
            .iter()
            .filter_map(|(key, entry)| covers(key, registry, repository).map(|length| (length, entry)));
        let best = matching.max_by_key(|(length, _)| *length).map(|(_, entry)| entry);
        Entry { helper, auth: best.and_then(AuthEntry::auth) }
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
pub(crate) fn covers(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let same = |host: &str| {
        let is_hub = |name: &str| HUB.contains(&name);
        host.eq_ignore_ascii_case(registry) || is_hub(host) && is_hub(registry)
    };
    let below = path.is_empty()
        || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (same(host) && below).then_some(path.len())
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

    fn auth(registry: &str, repository: &str) -> Option<Auth> {
        DockerConfig::parse(CONFIG).unwrap().entry(registry, repository).auth
    }

    fn basic(user: &str, password: &str) -> Option<Auth> {
        Some(Auth::Basic { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn the_most_particular_entry_counts() {
        assert_eq!(auth("docker.io", "library/busybox"), basic("hub", "pw"));
        assert_eq!(auth("registry.example.com", "other/app"), basic("all", "pw"));
        assert_eq!(auth("registry.example.com", "team/app"), basic("team", "pw:colon"));
        assert_eq!(auth("registry.example.com", "teamwork/app"), basic("all", "pw"));
        assert_eq!(auth("tokens.example.com", "a"), Some(Auth::IdentityToken("secret".to_owned())));
        assert_eq!(auth("empty.example.com", "a"), None);
        assert_eq!(auth("elsewhere.example.com", "a"), None);
    }

    #[test]
    fn helpers_are_for_their_registries() {
        let config = DockerConfig::parse(CONFIG).unwrap();
        let helper = config.entry("123.dkr.ecr.example.com", "a").helper;
        assert_eq!(helper, Some(("ecr-login", "123.dkr.ecr.example.com".to_owned())));
        assert_eq!(config.entry("docker.io", "a").helper, None);
        let store = DockerConfig::parse(r#"{"credsStore":"pass"}"#).unwrap();
        assert_eq!(store.entry("docker.io", "a").helper, Some(("pass", HUB_KEY.to_owned())));
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
