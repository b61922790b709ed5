//! Google Cloud's Secret Manager: the job's ID token becomes a token of the workload identity federation, which reads
//! the secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use tart_spec::GcpSecret;

use crate::endpoints::{address, name, service};
use crate::error::{Cause, SecretError};
use crate::http::{Resolver, call, log_in, token};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Reads a version of a secret.
pub(crate) async fn resolve(
    resolver: &Resolver,
    secret: &GcpSecret,
    expand: &(dyn Fn(&str) -> String + Sync),
) -> Result<String, SecretError> {
    let server = &secret.server;
    let project = expand(&server.project_number);
    let pool = expand(&server.workload_identity_federation_pool_id);
    let provider = expand(&server.workload_identity_federation_provider_id);
    name("number of a Google Cloud project", &project)?;
    name("pool of workload identities", &pool)?;
    name("provider of workload identities", &provider)?;
    let (id, version) = (expand(&secret.name), expand(&secret.version));
    let version = if version.is_empty() { "latest" } else { name("version of a secret", &version)? };
    let (project_of_secret, id) = of_project(&id).unwrap_or((&project, &id));
    name("Google Cloud project", project_of_secret)?;
    name("name of a Google Cloud secret", id)?;

    let endpoints = resolver.endpoints();
    let tokens = service(endpoints.gcp_tokens.as_ref(), "https://sts.googleapis.com")?;
    let secrets = service(endpoints.gcp_secrets.as_ref(), "https://secretmanager.googleapis.com")?;
    let audience = format!(
        "//iam.googleapis.com/projects/{project}/locations/global/workloadIdentityPools/{pool}/providers/{provider}"
    );
    let exchange = json!({
        "audience": audience,
        "grantType": GRANT,
        "requestedTokenType": ACCESS_TOKEN,
        "scope": SCOPE,
        "subjectToken": expand(&server.jwt),
        "subjectTokenType": ID_TOKEN,
    });
    let what = "the Google Cloud login";
    let request = resolver.client().post(address(&tokens, &["v1", "token"])?).json(&exchange);
    let answer = log_in(what, request).await?;
    let token = token(what, &answer, "/access_token", "Bearer ")?;

    let what = format!("the Google Cloud secret `{id}`");
    let version = format!("{version}:access");
    let read =
        address(&secrets, &["v1", "projects", project_of_secret, "secrets", id, "versions", &version])?;
    let answer = call(&what, resolver.client().get(read).header(AUTHORIZATION, token)).await?;
    let payload = answer.get("payload").filter(|payload| !payload.is_null());
    let payload = payload.ok_or_else(|| SecretError::new(Cause::Missing, format!("{what} has no value")))?;
    value(&what, payload)
}

/// `projects/<project>/secrets/<name>` names a secret of another project.
fn of_project(name: &str) -> Option<(&str, &str)> {
    let (project, secret) = name.strip_prefix("projects/")?.split_once("/secrets/")?;
    (!project.contains('/') && !secret.contains('/')).then_some((project, secret))
}

/// The value, if it arrived whole.
fn value(what: &str, payload: &Value) -> Result<String, SecretError> {
    let data = payload.get("data").and_then(Value::as_str).unwrap_or_default();
    let damaged = || SecretError::new(Cause::Provider, format!("{what} arrived damaged"));
    let bytes = STANDARD.decode(data).map_err(|_| damaged())?;
    // 64-bit numbers are texts in Google's JSON.
    let expected = match payload.get("dataCrc32c") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(number) => number.as_i64(),
        None => None,
    };
    if expected.is_some_and(|expected| expected != i64::from(crc32c(&bytes))) {
        return Err(damaged());
    }
    String::from_utf8(bytes).map_err(|_| SecretError::configuration(format!("{what} is no text")))
}

/// CRC-32C (Castagnoli), bit by bit: a secret has 64 KiB at most.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| shift(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_name_may_say_the_project() {
        assert_eq!(of_project("projects/other/secrets/db"), Some(("other", "db")));
        assert_eq!(of_project("db"), None);
        assert_eq!(of_project("projects/a/b/secrets/db"), None);
        assert_eq!(of_project("projects/a/secrets/db/versions"), None);
    }
}
