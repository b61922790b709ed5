//! The address of a GitLab instance, and variables in addresses and tokens.

use url::Url;

/// A checked address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The address without a slash at its end.
    pub url: String,
    /// Whether an old `/ci` was removed from the end.
    pub ci_stripped: bool,
}

/// Checks an instance's address: `http` or `https`, with a host and without credentials. The error completes
/// "`url` ...".
pub fn instance(text: &str) -> Result<Instance, String> {
    let text = text.trim().trim_end_matches('/');
    let stripped = text.strip_suffix("/ci");
    let url = stripped.unwrap_or(text).trim_end_matches('/');
    if !url.contains("://") {
        return Err(
            "must be an address that begins with `https://`, such as \"https://gitlab.example.com\"".into()
        );
    }
    let parsed = Url::parse(url)
        .map_err(|error| format!("must be an address such as \"https://gitlab.example.com\": {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("must begin with `https://` or `http://`, not with `{}:`", parsed.scheme()));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must not contain a user name or password".into());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("must not contain `?` or `#`".into());
    }
    Ok(Instance { url: url.to_owned(), ci_stripped: stripped.is_some() })
}

/// Replaces `$NAME` and `${NAME}`. Any other `$` stays. A variable that is not set is an error, as an empty address or
/// token would fail later and say less.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{') {
            Some(inner) => match inner.split_once('}') {
                Some((name, tail)) if is_name(name) => (name, tail),
                _ => return Err("`${` must be followed by a variable's name and `}`".into()),
            },
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        rest = tail;
        if is_name(name) {
            let Some(value) = lookup(name) else {
                return Err(format!("the environment variable `{name}` is not set"));
            };
            out.push_str(&value);
        } else {
            out.push('$');
            out.push_str(name);
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOST").then(|| "gitlab.example.com".to_owned())
    }

    #[test]
    fn variables_are_replaced_in_both_forms() {
        assert_eq!(expand("https://$HOST/x", &lookup).as_deref(), Ok("https://gitlab.example.com/x"));
        assert_eq!(expand("https://${HOST}x", &lookup).as_deref(), Ok("https://gitlab.example.comx"));
        assert_eq!(expand("a$1b$", &lookup).as_deref(), Ok("a$1b$"));
    }

    #[test]
    fn an_unset_variable_is_named() {
        assert_eq!(expand("$OTHER", &lookup), Err("the environment variable `OTHER` is not set".into()));
        assert!(expand("${HOST", &lookup).is_err());
    }

    #[test]
    fn an_address_loses_its_ci_suffix_and_slashes() {
        let found = instance("https://gitlab.example.com/ci/").unwrap();
        assert_eq!((found.url.as_str(), found.ci_stripped), ("https://gitlab.example.com", true));
        let found = instance("https://example.com/gitlab/").unwrap();
        assert_eq!((found.url.as_str(), found.ci_stripped), ("https://example.com/gitlab", false));
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_refused() {
        for text in
            ["", "gitlab.com", "ftp://gitlab.com", "https://me:pw@gitlab.com", "https://gitlab.com/?a=b"]
        {
            assert!(instance(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}", dollars in "[$HOST{}_0a]{0,20}") {
            drop(instance(&text));
            drop(expand(&dollars, &lookup));
        }
    }
}
