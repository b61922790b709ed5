//! Where objects are, and how requests for them are signed.

use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::error::{ObjectError, SettingsError};

/// All that a path's part must not have as it is, by RFC 3986.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

/// A request of which all is signed that the kind of store signs.
pub(crate) struct Signed {
    pub(crate) url: Url,
    /// Headers that belong to it.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// A bucket or container, and the keys to it. `Debug` shows no key.
pub(crate) trait Place: fmt::Debug + Send + Sync {
    /// The most bytes of one `PUT`.
    fn largest(&self) -> u64;

    /// Where an object is, without a signature.
    fn address(&self, name: &str) -> Url;

    /// A download of an object.
    fn get(&self, name: &str, valid: Duration) -> Result<Url, ObjectError>;

    /// An upload of an object. `key` is the cache's key, if a header can have it.
    fn put(&self, name: &str, key: Option<&str>, valid: Duration) -> Result<Signed, ObjectError>;
}

/// A name as a part of a path; its slashes stay.
pub(crate) fn in_path(name: &str) -> String {
    utf8_percent_encode(name, IN_PATH).to_string()
}

/// A name or value of a query.
pub(crate) fn in_query(text: &str) -> String {
    utf8_percent_encode(text, IN_QUERY).to_string()
}

/// The root of a server at `host` or `host:port`, which comes of what was found at a key of the configuration.
pub(crate) fn root(key: &'static str, found: &str, host: &str, insecure: bool) -> Result<Url, SettingsError> {
    let scheme = if insecure { "http" } else { "https" };
    let url = Url::parse(&format!("{scheme}://{host}"));
    // A name with a path, a user or a query is none.
    url.ok()
        .filter(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none())
        .filter(|url| url.username().is_empty() && url.password().is_none() && url.has_host())
        .ok_or_else(|| SettingsError::Server { key, found: found.to_owned() })
}

/// An object below an address. Parts of the path are encoded already.
pub(crate) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

/// `host` or `host:port` of an address, as requests say it.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
