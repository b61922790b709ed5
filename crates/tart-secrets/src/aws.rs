//! AWS Secrets Manager: the job's ID token takes a role, whose credentials sign the call that reads the secret.

mod sign;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Map, Value, json};
use tart_spec::AwsSecret;
use url::Url;

use crate::endpoints::service;
use crate::error::{Cause, SecretError};
use crate::http::{Answer, Resolver, send};
use sign::{Credentials, Signing};

/// Longest name of a session (`AssumeRoleWithWebIdentity`).
const MAX_SESSION_NAME: usize = 64;

/// How a session is called unless the job says otherwise.
const SESSION_NAME: &str = "${CI_JOB_ID}-${CI_PROJECT_ID}-${CI_SERVER_HOST}";

/// Reads a secret, or a key of one that is a JSON object.
pub(crate) async fn resolve(
    resolver: &Resolver,
    secret: &AwsSecret,
    expand: &(dyn Fn(&str) -> String + Sync),
) -> Result<String, SecretError> {
    // The secret's own words go before those of its server.
    let of = |own: &str, server: &str| expand(if own.is_empty() { server } else { own });
    let server = &secret.server;
    let region = of(&secret.region, &server.region);
    let role = of(&secret.role_arn, &server.role_arn);
    let jwt = expand(&server.jwt);
    let id = expand(&secret.secret_id);
    let is_region = !region.is_empty()
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_region {
        return Err(SecretError::configuration(format!("`{region}` is no region of AWS")));
    }
    if role.is_empty() {
        return Err(SecretError::configuration(
            "an AWS secret needs a role (`AWS_ROLE_ARN`) that the job's ID token may take",
        ));
    }
    if jwt.is_empty() {
        return Err(SecretError::configuration(
            "an AWS secret needs an ID token (`token:`); the host's own credentials are not for jobs",
        ));
    }
    let name = of(&secret.role_session_name, &server.role_session_name);
    let name = if name.is_empty() { expand(SESSION_NAME) } else { name };
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoints = resolver.endpoints();
    let tokens = service(endpoints.aws_tokens.as_ref(), &format!("https://sts.{region}.{domain}"))?;
    let secrets =
        service(endpoints.aws_secrets.as_ref(), &format!("https://secretsmanager.{region}.{domain}"))?;

    let credentials = take_role(resolver, tokens, &role, &session_name(&name), &jwt).await?;
    let mut wanted = Map::new();
    wanted.insert("SecretId".to_owned(), json!(id));
    for (key, value) in [("VersionId", &secret.version_id), ("VersionStage", &secret.version_stage)] {
        let value = expand(value);
        if !value.is_empty() {
            wanted.insert(key.to_owned(), json!(value));
        }
    }
    let what = format!("the AWS secret `{id}`");
    let body = Value::Object(wanted).to_string();
    let answer = read(resolver, &what, secrets, &region, &credentials, body).await?;
    let value = text(&what, &answer)?;
    match expand(&secret.field) {
        field if field.is_empty() => Ok(value),
        field => key(&what, &value, &field),
    }
}

/// What AWS allows in the name of a session.
fn session_name(text: &str) -> String {
    let is_allowed = |c: &char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(*c);
    text.chars().filter(is_allowed).take(MAX_SESSION_NAME).collect()
}

async fn take_role(
    resolver: &Resolver,
    tokens: Url,
    role: &str,
    session: &str,
    jwt: &str,
) -> Result<Credentials, SecretError> {
    let form = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", session),
        ("WebIdentityToken", jwt),
    ];
    let what = "the AWS login";
    let answer = send(what, resolver.client().post(tokens).header(ACCEPT, "text/xml").form(&form)).await?;
    let body = answer.text();
    if !answer.is_success() {
        let code = element(body, "Code").unwrap_or_default();
        let said = format!("{code} {}", element(body, "Message").unwrap_or_default());
        let refusal = answer.refusal(what, said.trim());
        return Err(match refusal.cause {
            Cause::Missing => answer.refusal_because_of(Cause::Configuration, what, said.trim()),
            _ => refusal,
        });
    }
    let part = |name: &str| {
        let found =
            element(body, name).filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()));
        found.ok_or_else(|| SecretError::new(Cause::Provider, format!("{what} gave no {name}")))
    };
    Ok(Credentials {
        key_id: part("AccessKeyId")?,
        secret_key: part("SecretAccessKey")?,
        session_token: part("SessionToken")?,
    })
}

/// The text of the first element of a name, which has no elements in it: answers of STS are that simple.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.into_iter().fold(text.trim().to_owned(), |text, (from, to)| text.replace(from, to)))
}

async fn read(
    resolver: &Resolver,
    what: &str,
    secrets: Url,
    region: &str,
    credentials: &Credentials,
    body: String,
) -> Result<Answer, SecretError> {
    let headers =
        [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];
    let signing =
        Signing { method: "POST", url: &secrets, region, service: "secretsmanager", headers: &headers };
    let signed = signing.headers(credentials, Timestamp::now(), body.as_bytes());
    let signed = signed
        .map_err(|_| SecretError::new(Cause::Provider, "the AWS login gave credentials that are none"))?;
    let request =
        resolver.client().post(secrets).header(CONTENT_TYPE, headers[0].1).header(headers[1].0, headers[1].1);
    let request = signed.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    let answer = send(what, request.body(body)).await?;
    if answer.is_success() {
        return Ok(answer);
    }
    let error = answer.json();
    let code = ["__type", "code"].into_iter().find_map(|key| error.get(key).and_then(Value::as_str));
    // `com.amazonaws.secretsmanager#ResourceNotFoundException`
    let code = code.and_then(|code| code.rsplit('#').next()).unwrap_or_default();
    let message = ["message", "Message"].into_iter().find_map(|key| error.get(key).and_then(Value::as_str));
    let said = format!("{code} {}", message.unwrap_or_default());
    Err(match code {
        "ResourceNotFoundException" => answer.refusal_because_of(Cause::Missing, what, said.trim()),
        _ => answer.refusal(what, said.trim()),
    })
}

/// The secret's text; what is binary stays in base64, as with the official runner.
fn text(what: &str, answer: &Answer) -> Result<String, SecretError> {
    let answer = answer.json();
    let value =
        ["SecretString", "SecretBinary"].into_iter().find_map(|key| answer.get(key).and_then(Value::as_str));
    value.map(str::to_owned).ok_or_else(|| SecretError::new(Cause::Missing, format!("{what} has no value")))
}

/// A key of a secret that is a flat JSON object.
fn key(what: &str, value: &str, field: &str) -> Result<String, SecretError> {
    // The parser's error would show a part of the secret.
    let fields: Map<String, Value> = serde_json::from_str(value).map_err(|_| {
        SecretError::configuration(format!("{what} is no JSON object, so it has no field `{field}`"))
    })?;
    match fields.get(field) {
        None => Err(SecretError::new(Cause::Missing, format!("{what} has no field `{field}`"))),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(_) => Err(SecretError::configuration(format!(
            "the field `{field}` of {what} is neither a text nor a number nor a boolean"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sessions_are_what_aws_allows() {
        assert_eq!(session_name("1-2-gitlab.example.com"), "1-2-gitlab.example.com");
        assert_eq!(session_name("a/b c:ü+=,.@-_"), "abc+=,.@-_");
        assert_eq!(session_name(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn elements_of_answers_are_found() {
        let xml = "<A><Code>AccessDenied</Code>\n<Message> a &lt;b&gt; &amp;amp; </Message></A>";
        assert_eq!(element(xml, "Code").as_deref(), Some("AccessDenied"));
        assert_eq!(element(xml, "Message").as_deref(), Some("a <b> &amp;"));
        assert_eq!(element(xml, "None"), None);
        assert_eq!(element("<Code>cut off", "Code"), None);
    }

    #[test]
    fn fields_are_texts_numbers_and_booleans() {
        let value = r#"{"a": "text", "b": 5432, "c": true, "d": null, "e": [1]}"#;
        let of = |field: &str| key("it", value, field).map_err(|error| error.cause);
        assert_eq!(of("a").unwrap(), "text");
        assert_eq!(of("b").unwrap(), "5432");
        assert_eq!(of("c").unwrap(), "true");
        assert_eq!(of("d"), Err(Cause::Configuration));
        assert_eq!(of("e"), Err(Cause::Configuration));
        assert_eq!(of("f"), Err(Cause::Missing));
        let error = key("it", "hunter2", "a").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
