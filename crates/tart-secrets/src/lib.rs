//! Secrets of jobs, fetched from where they are kept (protocol reference 3.12).
//!
//! [`Resolver::resolve`] turns a job's entry of `secrets` into the value of a variable. Values and tokens are in no
//! error, no log and no `Debug`. The servers are named by the job's author, so nothing that they say is trusted.

mod aws;
mod azure;
mod endpoints;
mod error;
mod gcp;
mod http;
mod vault;

use tart_spec::Secret;

pub use endpoints::Endpoints;
pub use error::{Cause, SecretError};
pub use http::Resolver;

impl Resolver {
    /// The value of a secret. `expand` replaces the job's variables in what its author wrote.
    ///
    /// # Errors
    /// [`SecretError`], whose [`Cause`] says whose fault it is.
    pub async fn resolve(
        &self,
        secret: &Secret,
        expand: &(dyn Fn(&str) -> String + Sync),
    ) -> Result<String, SecretError> {
        if let Some(secret) = &secret.vault {
            vault::resolve(self, secret, expand).await
        } else if let Some(secret) = &secret.gcp_secret_manager {
            gcp::resolve(self, secret, expand).await
        } else if let Some(secret) = &secret.azure_key_vault {
            azure::resolve(self, secret, expand).await
        } else if let Some(secret) = &secret.aws_secrets_manager {
            aws::resolve(self, secret, expand).await
        } else if let Some(secret) = &secret.gitlab_secrets_manager {
            vault::resolve_of_gitlab(self, secret).await
        } else {
            Err(SecretError::configuration("no resolver that can handle the secret"))
        }
    }
}
