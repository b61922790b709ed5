//! Azure's Key Vault: the job's ID token is the assertion of an application, whose access token reads the secret.

use reqwest::header::AUTHORIZATION;
use serde_json::Value;
use tart_spec::AzureSecret;
use url::Url;

use crate::endpoints::{address, name, server, service};
use crate::error::{Cause, SecretError};
use crate::http::{Resolver, call, log_in, token};

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The version of Key Vault's API.
const API_VERSION: &str = "7.4";

/// Domains of vaults, and the login of their clouds. What may be asked for with a token is the domain itself.
const CLOUDS: [(&str, &str); 3] = [
    ("vault.azure.net", "https://login.microsoftonline.com"),
    ("vault.azure.cn", "https://login.partner.microsoftonline.cn"),
    ("vault.usgovcloudapi.net", "https://login.microsoftonline.us"),
];

/// Reads a version of a secret.
pub(crate) async fn resolve(
    resolver: &Resolver,
    secret: &AzureSecret,
    expand: &(dyn Fn(&str) -> String + Sync),
) -> Result<String, SecretError> {
    let text = expand(&secret.server.url);
    let vault = server("an Azure Key Vault", &text)?;
    let replaced = resolver.endpoints().azure_login.as_ref();
    let (domain, login) = match cloud(&vault) {
        Some(found) => found,
        None if replaced.is_some() => CLOUDS[0],
        // A token must not go to just anybody.
        None => {
            return Err(SecretError::configuration(format!("`{text}` is no address of an Azure Key Vault")));
        }
    };
    let login = service(replaced, login)?;
    let (tenant, id) = (expand(&secret.server.tenant_id), expand(&secret.name));
    name("Azure tenant", &tenant)?;
    name("name of an Azure secret", &id)?;
    let version = expand(&secret.version);
    let parts = if version.is_empty() {
        vec!["secrets", id.as_str()]
    } else {
        vec!["secrets", id.as_str(), name("version of an Azure secret", &version)?]
    };
    let mut read = address(&vault, &parts)?;
    read.query_pairs_mut().append_pair("api-version", API_VERSION);

    let form = [
        ("client_assertion", expand(&secret.server.jwt)),
        ("client_assertion_type", ASSERTION.to_owned()),
        ("client_id", expand(&secret.server.client_id)),
        ("grant_type", "client_credentials".to_owned()),
        ("scope", format!("https://{domain}/.default")),
    ];
    let what = "the Azure login";
    let login = address(&login, &[&tenant, "oauth2", "v2.0", "token"])?;
    let answer = log_in(what, resolver.client().post(login).form(&form)).await?;
    let token = token(what, &answer, "/access_token", "Bearer ")?;

    let what = format!("the Azure secret `{id}`");
    let answer = call(&what, resolver.client().get(read).header(AUTHORIZATION, token)).await?;
    let value = answer.get("value").and_then(Value::as_str);
    value.map(str::to_owned).ok_or_else(|| SecretError::new(Cause::Missing, format!("{what} has no value")))
}

/// The domain and the login of the cloud that a vault is in.
fn cloud(vault: &Url) -> Option<(&'static str, &'static str)> {
    let host = vault.host_str().filter(|_| vault.scheme() == "https")?;
    let is_in = |domain: &str| host.strip_suffix(domain).is_some_and(|name| name.ends_with('.'));
    CLOUDS.into_iter().find(|(domain, _)| is_in(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vaults_of_azure_have_a_cloud() {
        let cloud = |text: &str| cloud(&Url::parse(text).unwrap()).map(|(domain, _)| domain);
        assert_eq!(cloud("https://team.vault.azure.net/"), Some("vault.azure.net"));
        assert_eq!(cloud("https://team.vault.azure.cn"), Some("vault.azure.cn"));
        assert_eq!(cloud("http://team.vault.azure.net"), None);
        assert_eq!(cloud("https://team-vault.azure.net"), None);
        assert_eq!(cloud("https://team.vault.azure.net.example.com"), None);
    }
}
