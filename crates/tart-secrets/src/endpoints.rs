//! Where the services of clouds are.

use url::Url;

use crate::error::SecretError;

/// Addresses that replace those of the clouds' public services: for tests, and for networks where the services are
/// reached by other names.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// Instead of `https://sts.googleapis.com`.
    pub gcp_tokens: Option<Url>,
    /// Instead of `https://secretmanager.googleapis.com`.
    pub gcp_secrets: Option<Url>,
    /// Instead of the login service of the cloud that the vault is in. With it, a vault may have any address.
    pub azure_login: Option<Url>,
    /// Instead of `https://sts.<region>.amazonaws.com`.
    pub aws_tokens: Option<Url>,
    /// Instead of `https://secretsmanager.<region>.amazonaws.com`.
    pub aws_secrets: Option<Url>,
}

/// The address of a service of a cloud.
pub(crate) fn service(replaced: Option<&Url>, address: &str) -> Result<Url, SecretError> {
    match replaced {
        Some(url) => Ok(url.clone()),
        None => Url::parse(address)
            .map_err(|_| SecretError::configuration(format!("`{address}` is no address of a service"))),
    }
}

/// An address that a job's author gives.
pub(crate) fn server(kind: &str, text: &str) -> Result<Url, SecretError> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| SecretError::configuration(format!("`{text}` is no address of {kind}")))
}

/// `<base>/<parts>`; each part may be a path. No part may lead out of the others.
pub(crate) fn address(base: &Url, parts: &[&str]) -> Result<Url, SecretError> {
    let segments: Vec<_> =
        parts.iter().flat_map(|part| part.split('/')).filter(|part| !part.is_empty()).collect();
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(SecretError::configuration(format!("`{}` is no path of a secret", parts.join("/"))));
    }
    let mut url = base.clone();
    url.set_query(None);
    let mut path =
        url.path_segments_mut().map_err(|()| SecretError::configuration("the address has no path"))?;
    path.pop_if_empty().extend(segments);
    drop(path);
    Ok(url)
}

/// A name that becomes one part of an address: letters, digits, `-`, `_` and `.`.
pub(crate) fn name<'a>(kind: &str, text: &'a str) -> Result<&'a str, SecretError> {
    let is_name = !text.is_empty()
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_name { Ok(text) } else { Err(SecretError::configuration(format!("`{text}` is no {kind}"))) }
}
