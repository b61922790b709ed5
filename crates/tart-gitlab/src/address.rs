//! The root of the API for a configured URL.

use url::{Host, Url};

use crate::error::ApiError;

/// `https://host/path/` or `https://host/ci` becomes `https://host/path/api/v4/`.
pub(crate) fn api_root(configured: &str) -> Result<Url, ApiError> {
    let text = configured.trim();
    let text = text.strip_suffix('/').unwrap_or(text);
    let text = text.strip_suffix("/ci").unwrap_or(text);
    let bad = |why: String| ApiError::Client(format!("the URL of the GitLab server is not usable: {why}"));
    let url = Url::parse(&format!("{text}/api/v4/")).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("its scheme is {:?}; use https or http", url.scheme())));
    }
    if url.host().is_none() {
        return Err(bad("it names no host".into()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it contains a user name or password, which GitLab does not take there".into()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a `?` or `#` part; only scheme, host, port and path belong there".into()));
    }
    Ok(url)
}

/// Scheme, host and port: what may be said of a URL in a log.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Whether tokens that go to one URL may go to another: the same host, and no step back from TLS.
pub(crate) fn may_share_tokens(from: &Url, to: &Url) -> bool {
    let host = |url: &Url| url.host().map(|host: Host<&str>| host.to_owned());
    host(from) == host(to) && (from.scheme() == to.scheme() || to.scheme() == "https")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_slash_and_the_old_path_of_ci_are_removed() {
        for (configured, root) in [
            ("https://gitlab.example.com", "https://gitlab.example.com/api/v4/"),
            ("https://gitlab.example.com/", "https://gitlab.example.com/api/v4/"),
            ("https://gitlab.example.com/ci", "https://gitlab.example.com/api/v4/"),
            ("https://gitlab.example.com/ci/", "https://gitlab.example.com/api/v4/"),
            ("http://10.0.0.1:8080/git/lab/", "http://10.0.0.1:8080/git/lab/api/v4/"),
            ("http://[::1]:80/ci", "http://[::1]/api/v4/"),
        ] {
            assert_eq!(api_root(configured).map(String::from), Ok(root.into()), "{configured}");
        }
    }

    #[test]
    fn unusable_urls_are_explained() {
        let explain = |url| api_root(url).expect_err("a bad URL").to_string();
        let prefix =
            "the connection to GitLab cannot be set up: the URL of the GitLab server is not usable: ";
        let explain = |url| explain(url).replace(prefix, "");
        assert_snapshot!(explain("gitlab.example.com"), @"relative URL without a base");
        assert_snapshot!(explain("ftp://host"), @r#"its scheme is "ftp"; use https or http"#);
        assert_snapshot!(
            explain("https://me:secret@host"),
            @"it contains a user name or password, which GitLab does not take there"
        );
    }

    #[test]
    fn tokens_stay_with_their_host_and_with_tls() {
        let share = |from: &str, to: &str| {
            may_share_tokens(&Url::parse(from).expect("a URL"), &Url::parse(to).expect("a URL"))
        };
        assert!(share("http://host/a", "https://host/b"));
        assert!(share("https://host/a", "https://host:8443/a"));
        assert!(!share("https://host/a", "http://host/a"));
        assert!(!share("https://host/a", "https://other/a"));
        assert!(!share("https://host/a", "https://sub.host/a"));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,40}") {
            if let Ok(url) = api_root(&text) {
                prop_assert!(url.path().ends_with("/api/v4/"));
            }
        }
    }
}
