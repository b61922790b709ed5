//! Keys of caches. Pure.

use sha2::{Digest, Sha256};
use tart_spec::Cache;

/// What a cache may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) pull: bool,
    pub(super) push: bool,
}

impl Policy {
    /// `None` if there is no such policy.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (pull, push) = match text {
            "" | "pull-push" => (true, true),
            "pull" => (true, false),
            "push" => (false, true),
            _ => return None,
        };
        Some(Self { pull, push })
    }
}

/// A key of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// For people.
    pub(super) shown: String,
    /// What leads to the archive: parts with slashes between them.
    pub(super) name: String,
}

impl Key {
    /// The key as it is, behind its digest in the way of `FF_HASH_CACHE_KEYS`.
    pub(super) fn hashed(raw: &str) -> Self {
        let digest: String = Sha256::digest(raw).iter().map(|byte| format!("{byte:02x}")).collect();
        let shard: String = digest.chars().take(2).collect();
        Self { shown: raw.to_owned(), name: format!("{shard}/{digest}") }
    }

    /// The cleaned key, and a warning if it is not what the author wrote. `None` if nothing is left of it.
    pub(super) fn cleaned(raw: &str) -> (Option<Self>, Option<String>) {
        let (key, warning) = key(raw);
        (key.map(|key| Self { shown: key.clone(), name: key }), warning)
    }
}

/// The key of a cache, and a warning if it is not what the author wrote. `None` if nothing is left of it.
fn key(raw: &str) -> (Option<String>, Option<String>) {
    let decoded = raw.replace("%2f", "/").replace("%2F", "/").replace("%2e", ".").replace("%2E", ".");
    let decoded = decoded.replace('\\', "/");
    let mut parts: Vec<&str> = Vec::new();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    while let Some(last) = parts.pop() {
        let last = last.trim_end();
        if !last.is_empty() {
            parts.push(last);
            break;
        }
    }
    let key = parts.join("/");
    if key.is_empty() {
        return (None, Some("empty cache key".to_owned()));
    }
    let warning = (key != raw).then(|| format!("cache key {raw:?} sanitized to {key:?}"));
    (Some(key), warning)
}

/// The keys that are tried after the cache's own, as written: its fallbacks, then that of the variable.
pub(super) fn candidates(cache: &Cache, variable: &str, expand: impl Fn(&str) -> String) -> Vec<String> {
    let mut keys: Vec<String> = cache.fallback_keys.iter().map(|key| expand(key)).collect();
    // A variable of a job must not lead to what protected branches have made.
    let protected = variable.trim_end_matches(['.', ' ']).ends_with("-protected");
    if !variable.is_empty() && !protected {
        keys.push(variable.to_owned());
    }
    keys
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_cleaned_as_in_the_official_runner() {
        let cleaned = |raw| key(raw).0;
        assert_eq!(key("main"), (Some("main".into()), None));
        assert_eq!(cleaned("a/../../b%2Fc\\d ").as_deref(), Some("b/c/d"));
        assert_eq!(cleaned("a/ / ").as_deref(), Some("a"));
        assert_eq!(key("..%2f%2E."), (None, Some("empty cache key".into())));
        insta::assert_snapshot!(key("a/../b").1.unwrap(), @r#"cache key "a/../b" sanitized to "b""#);
    }

    #[test]
    fn digests_are_names_of_any_key() {
        let key = Key::hashed("a/../b");
        assert_eq!(key.shown, "a/../b");
        insta::assert_snapshot!(key.name, @"90/900ea8b7e0d8fe30857c1bb629272e28cfd7f7af61a81f7b6964b271b69dab69");
    }

    #[test]
    fn a_variable_does_not_lead_to_protected_caches() {
        let cache = Cache { fallback_keys: vec!["f-$X".into()], ..Cache::default() };
        let keys = |variable| candidates(&cache, variable, |text| text.replace("$X", "x"));
        assert_eq!(keys("more"), ["f-x", "more"]);
        assert_eq!(keys(""), ["f-x"]);
        assert_eq!(keys("main-protected. ."), ["f-x"]);
    }

    #[test]
    fn policies_are_the_three() {
        assert_eq!(Policy::parse("push"), Some(Policy { pull: false, push: true }));
        assert_eq!(Policy::parse(""), Policy::parse("pull-push"));
        assert_eq!(Policy::parse("pul"), None);
    }

    proptest! {
        #[test]
        fn no_key_leads_upwards(raw in ".{0,60}") {
            if let (Some(key), _) = key(&raw) {
                prop_assert!(!key.split('/').any(|part| matches!(part, "" | "." | "..")));
            }
        }
    }
}
