//! Secrets of jobs, fetched from where they are kept (protocol reference 3.12).
//!
//! [`Resolver::resolve`] turns a job's entry of `secrets` into the value of a variable. Values and tokens are in no
//! error, no log and no `Debug`. The servers are named by the job's author, so nothing that they say is trusted.

mod error;
mod http;
mod vault;

use tart_spec::Secret;

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
        if let Some(vault) = &secret.vault {
            return vault::resolve(self, vault, expand).await;
        }
        let provider = secret.provider().unwrap_or("no provider");
        Err(SecretError::configuration(format!(
            "secrets of `{provider}` are not supported by this version of Tart, only those of `vault`"
        )))
    }
}
