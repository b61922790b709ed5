use std::fmt;

use serde_json::{Map, Value};

use crate::null::wire;

wire! {
    /// A secret that the runner fetches: exactly one provider is there. `Debug` shows only which.
    pub struct Secret {
        /// HashiCorp Vault.
        pub vault: Option<VaultSecret>,
        /// Google Cloud.
        pub gcp_secret_manager: Option<GcpSecret>,
        /// Azure.
        pub azure_key_vault: Option<AzureSecret>,
        /// AWS.
        pub aws_secrets_manager: Option<AwsSecret>,
        /// GitLab itself.
        pub gitlab_secrets_manager: Option<GitlabSecret>,
        /// Whether the variable is a file; not said means yes: [`Secret::is_file`].
        pub file: Option<bool>,
    }

    /// A secret of HashiCorp Vault.
    pub struct VaultSecret {
        /// The server.
        pub server: VaultServer,
        /// The secrets engine.
        pub engine: SecretEngine,
        /// The secret's path.
        pub path: String,
        /// The field of the secret.
        pub field: String,
    }

    /// A Vault server.
    pub struct VaultServer {
        /// Its address.
        pub url: String,
        /// Its namespace.
        pub namespace: String,
        /// How to authenticate.
        pub auth: VaultAuth,
    }

    /// How to authenticate to Vault.
    pub struct VaultAuth {
        /// The method, such as `jwt`.
        pub name: String,
        /// Where it is mounted.
        pub path: String,
        /// What it wants: `jwt`, `role` and others.
        pub data: Map<String, Value>,
    }

    /// A secrets engine.
    pub struct SecretEngine {
        /// Its kind, such as `kv-v2`.
        pub name: String,
        /// Where it is mounted.
        pub path: String,
    }

    /// A secret of Google Cloud.
    pub struct GcpSecret {
        /// Its name.
        pub name: String,
        /// Its version.
        pub version: String,
        /// How to authenticate.
        pub server: GcpServer,
    }

    /// How to authenticate to Google Cloud.
    pub struct GcpServer {
        /// The project.
        pub project_number: String,
        /// The pool of identities.
        pub workload_identity_federation_pool_id: String,
        /// The provider of identities.
        pub workload_identity_federation_provider_id: String,
        /// The identity token.
        pub jwt: String,
    }

    /// A secret of Azure.
    pub struct AzureSecret {
        /// Its name.
        pub name: String,
        /// Its version.
        pub version: String,
        /// How to authenticate.
        pub server: AzureServer,
    }

    /// How to authenticate to Azure.
    pub struct AzureServer {
        /// The application.
        pub client_id: String,
        /// The tenant.
        pub tenant_id: String,
        /// The identity token.
        pub jwt: String,
        /// The vault's address.
        pub url: String,
    }

    /// A secret of AWS.
    pub struct AwsSecret {
        /// Its name or ARN.
        pub secret_id: String,
        /// Its version.
        pub version_id: String,
        /// The label of its version.
        pub version_stage: String,
        /// A key of the secret, if it is a JSON object.
        pub field: String,
        /// The region.
        pub region: String,
        /// The role to take.
        pub role_arn: String,
        /// The session's name.
        pub role_session_name: String,
        /// How to authenticate.
        pub server: AwsServer,
    }

    /// How to authenticate to AWS.
    pub struct AwsServer {
        /// The region.
        pub region: String,
        /// The identity token.
        pub jwt: String,
        /// The role to take.
        pub role_arn: String,
        /// The session's name.
        pub role_session_name: String,
    }

    /// A secret of GitLab itself.
    pub struct GitlabSecret {
        /// The server.
        pub server: GitlabServer,
        /// The secrets engine.
        pub engine: SecretEngine,
        /// The secret's path.
        pub path: String,
        /// The field of the secret.
        pub field: String,
    }

    /// GitLab's secrets server.
    pub struct GitlabServer {
        /// Its address.
        pub url: String,
        /// How to authenticate.
        pub inline_auth: GitlabInlineAuth,
    }

    /// How to authenticate to GitLab's secrets server.
    pub struct GitlabInlineAuth {
        /// Where to log in.
        pub path: String,
        /// The identity token.
        pub jwt: String,
        /// The role.
        pub role: String,
        /// From before `path`: stands for `auth/<mount>/login`.
        pub auth_mount: String,
    }
}

impl Secret {
    /// Whether the variable holds the path of a file with the secret in it.
    pub fn is_file(&self) -> bool {
        self.file.unwrap_or(true)
    }

    /// The provider's key; `None` if there is none.
    pub fn provider(&self) -> Option<&'static str> {
        let providers = [
            (self.vault.is_some(), "vault"),
            (self.gcp_secret_manager.is_some(), "gcp_secret_manager"),
            (self.azure_key_vault.is_some(), "azure_key_vault"),
            (self.aws_secrets_manager.is_some(), "aws_secrets_manager"),
            (self.gitlab_secrets_manager.is_some(), "gitlab_secrets_manager"),
        ];
        providers.into_iter().find_map(|(is_there, name)| is_there.then_some(name))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("provider", &self.provider())
            .field("file", &self.is_file())
            .finish_non_exhaustive()
    }
}

/// The parts of a secret may hold tokens anywhere, so their `Debug` is the name of the type.
macro_rules! opaque {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque! {
    VaultSecret VaultServer VaultAuth SecretEngine GcpSecret GcpServer AzureSecret AzureServer AwsSecret AwsServer
    GitlabSecret GitlabServer GitlabInlineAuth
}
