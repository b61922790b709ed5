//! HashiCorp Vault, and what speaks its API: login with a token of GitLab, then one read.
//!
//! GitLab's own secrets are in OpenBao, where login and read are one call ("inline authentication": the login's path
//! and parameters are headers of the read).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value, json};
use tart_spec::{GitlabSecret, VaultSecret};

use crate::endpoints::{address, server};
use crate::error::SecretError;
use crate::http::{Resolver, call, field, log_in, token};

const TOKEN: &str = "X-Vault-Token";
const NAMESPACE: &str = "X-Vault-Namespace";
const INLINE_PATH: &str = "X-Vault-Inline-Auth-Path";
const INLINE_PARAMETER: &str = "X-Vault-Inline-Auth-Parameter-";

/// Reads a field of a secret.
pub(crate) async fn resolve(
    resolver: &Resolver,
    secret: &VaultSecret,
    expand: &(dyn Fn(&str) -> String + Sync),
) -> Result<String, SecretError> {
    let base = server("a Vault server", &expand(&secret.server.url))?;
    let namespace = expand(&secret.server.namespace);
    let in_namespace = |request: reqwest::RequestBuilder| {
        if namespace.is_empty() { request } else { request.header(NAMESPACE, &namespace) }
    };
    let auth = &secret.server.auth;
    let method = expand(&auth.name);
    if method != "jwt" {
        return Err(SecretError::configuration(format!(
            "the Vault login `{method}` is not known, only `jwt` is"
        )));
    }
    let login = address(&base, &["v1", "auth", &expand(&auth.path), "login"])?;
    let data = expanded(&auth.data, expand);
    let engine = Engine::of(&expand(&secret.engine.name))?;
    let path = expand(&secret.path);
    let read = address(&base, &engine.parts(&expand(&secret.engine.path), &path))?;

    let what = "the Vault login";
    let answer = log_in(what, in_namespace(resolver.client().post(login).json(&data))).await?;
    let token = token(what, &answer, "/auth/client_token", "")?;
    let what = format!("the Vault secret `{path}`");
    let answer = call(&what, in_namespace(resolver.client().get(read).header(TOKEN, token))).await?;
    field(&what, engine.fields(&answer), &expand(&secret.field))
}

/// Reads a field of a secret of GitLab. The server wrote all of it, so nothing is expanded.
pub(crate) async fn resolve_of_gitlab(
    resolver: &Resolver,
    secret: &GitlabSecret,
) -> Result<String, SecretError> {
    let base = server("GitLab's secrets manager", &secret.server.url)?;
    let auth = &secret.server.inline_auth;
    let login = match (auth.path.as_str(), auth.auth_mount.as_str()) {
        ("", "") => return Err(SecretError::configuration("GitLab's secrets manager has no login")),
        ("", mount) => format!("auth/{mount}/login"),
        (path, _) => path.to_owned(),
    };
    let login = HeaderValue::from_str(&login)
        .map_err(|_| SecretError::configuration("the login of GitLab's secrets manager is no path"))?;
    let engine = Engine::of(&secret.engine.name)?;
    let read = address(&base, &engine.parts(&secret.engine.path, &secret.path))?;
    let mut request = resolver.client().get(read).header(INLINE_PATH, login);
    for (key, value) in [("jwt", &auth.jwt), ("role", &auth.role)] {
        if value.is_empty() {
            return Err(SecretError::configuration(format!(
                "the login of GitLab's secrets manager has no {key}"
            )));
        }
        request = request.header(format!("{INLINE_PARAMETER}{key}"), inline_parameter(key, value)?);
    }
    let what = format!("the secret `{}` of GitLab", secret.path);
    let answer = call(&what, request).await?;
    field(&what, engine.fields(&answer), &secret.field)
}

/// A parameter of a login in a header: base64 of JSON.
fn inline_parameter(key: &str, value: &str) -> Result<HeaderValue, SecretError> {
    let text = URL_SAFE_NO_PAD.encode(json!({ "key": key, "value": value }).to_string());
    let mut header = HeaderValue::from_str(&text)
        .map_err(|_| SecretError::configuration("the login of GitLab's secrets manager is too odd"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// A secrets engine, by what its paths and answers look like.
#[derive(Clone, Copy)]
enum Engine {
    /// `<mount>/data/<path>`, with the fields a level deeper.
    Versioned,
    /// `<mount>/<path>`.
    Plain,
}

impl Engine {
    fn of(name: &str) -> Result<Self, SecretError> {
        match name {
            "kv-v2" => Ok(Self::Versioned),
            "kv-v1" | "generic" => Ok(Self::Plain),
            other => Err(SecretError::configuration(format!(
                "the Vault engine `{other}` is not known, only kv-v1, kv-v2 and generic are"
            ))),
        }
    }

    fn parts<'a>(self, mount: &'a str, path: &'a str) -> Vec<&'a str> {
        match self {
            Self::Versioned => vec!["v1", mount, "data", path],
            Self::Plain => vec!["v1", mount, path],
        }
    }

    fn fields(self, answer: &Value) -> Option<&Value> {
        answer.pointer(match self {
            Self::Versioned => "/data/data",
            Self::Plain => "/data",
        })
    }
}

/// What the login wants, with variables in all of its texts.
fn expanded(data: &Map<String, Value>, expand: &dyn Fn(&str) -> String) -> Map<String, Value> {
    let value = |value: &Value| match value {
        Value::String(text) => Value::String(expand(text)),
        other => other.clone(),
    };
    data.iter().map(|(key, entry)| (key.clone(), value(entry))).collect()
}
