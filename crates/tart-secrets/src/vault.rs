//! HashiCorp Vault, and what speaks its API: login with a token of GitLab, then one read.

use serde_json::{Map, Value};
use tart_spec::VaultSecret;
use url::Url;

use crate::error::{Cause, SecretError};
use crate::http::{Resolver, call};

const TOKEN: &str = "X-Vault-Token";
const NAMESPACE: &str = "X-Vault-Namespace";

/// Reads a field of a secret.
pub(crate) async fn resolve(
    resolver: &Resolver,
    secret: &VaultSecret,
    expand: &(dyn Fn(&str) -> String + Sync),
) -> Result<String, SecretError> {
    let server = expand(&secret.server.url);
    let base = Url::parse(&server)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| SecretError::configuration(format!("`{server}` is no address of a Vault server")))?;
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
    let login = address(&base, &["auth", &expand(&auth.path), "login"])?;
    let data = expanded(&auth.data, expand);
    let answer = call("the Vault login", in_namespace(resolver.client().post(login).json(&data))).await;
    let answer = answer.map_err(|error| match error.cause {
        // No such way to log in, rather than no such secret.
        Cause::Missing => SecretError::configuration(error.to_string()),
        _ => error,
    })?;
    let token = answer.pointer("/auth/client_token").and_then(Value::as_str);
    let token = token.ok_or_else(|| SecretError::new(Cause::Provider, "the Vault login gave no token"))?;
    let token = reqwest::header::HeaderValue::from_str(token).map(|mut token| {
        token.set_sensitive(true);
        token
    });
    let token =
        token.map_err(|_| SecretError::new(Cause::Provider, "the Vault login gave a token that is none"))?;

    let (engine, path, field) = (expand(&secret.engine.path), expand(&secret.path), expand(&secret.field));
    let (parts, pointer): (Vec<&str>, &[&str]) = match expand(&secret.engine.name).as_str() {
        "kv-v2" => (vec![&engine, "data", &path], &["data", "data"]),
        "kv-v1" | "generic" => (vec![&engine, &path], &["data"]),
        other => {
            let known = "only kv-v1, kv-v2 and generic are";
            return Err(SecretError::configuration(format!(
                "the Vault engine `{other}` is not known, {known}"
            )));
        }
    };
    let read = in_namespace(resolver.client().get(address(&base, &parts)?).header(TOKEN, token));
    let what = format!("the Vault secret `{path}`");
    let answer = call(&what, read).await?;
    let fields = pointer.iter().try_fold(&answer, |value, key| value.get(key));
    match fields.and_then(|fields| fields.get(&field)) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) | None => {
            Err(SecretError::new(Cause::Missing, format!("{what} has no field `{field}`")))
        }
        Some(value) => Ok(value.to_string()),
    }
}

/// `<server>/v1/<parts>`; each part may be a path.
fn address(base: &Url, parts: &[&str]) -> Result<Url, SecretError> {
    let segments: Vec<_> =
        parts.iter().flat_map(|part| part.split('/')).filter(|part| !part.is_empty()).collect();
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(SecretError::configuration(format!("`{}` is no path of Vault", parts.join("/"))));
    }
    let mut url = base.clone();
    url.set_query(None);
    let mut path =
        url.path_segments_mut().map_err(|()| SecretError::configuration("the address has no path"))?;
    path.pop_if_empty().push("v1").extend(segments);
    drop(path);
    Ok(url)
}

/// What the login wants, with variables in all of its texts.
fn expanded(data: &Map<String, Value>, expand: &dyn Fn(&str) -> String) -> Map<String, Value> {
    let value = |value: &Value| match value {
        Value::String(text) => Value::String(expand(text)),
        other => other.clone(),
    };
    data.iter().map(|(key, entry)| (key.clone(), value(entry))).collect()
}
