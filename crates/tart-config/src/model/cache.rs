//! `[runners.cache]`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::secret::Secret;

/// Where caches are kept between jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Cache {
    /// The kind of store; that of this host without it.
    #[serde(rename = "Type")]
    pub kind: Option<CacheType>,
    /// A prefix of all object names.
    pub path: String,
    /// Whether runners share caches.
    pub shared: bool,
    /// The largest archive stored, in bytes; 0 is no limit.
    pub max_uploaded_archive_size: u64,
    /// Whether addresses of the object store are left out of jobs' logs.
    #[serde(rename = "RedactURL")]
    pub redact_url: bool,
    /// S3.
    #[serde(rename = "s3")]
    pub s3: S3,
    /// Google Cloud Storage.
    #[serde(rename = "gcs")]
    pub gcs: Gcs,
    /// Azure Blob Storage.
    #[serde(rename = "azure")]
    pub azure: Azure,
}

/// The kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheType {
    /// S3.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// `[runners.cache.s3]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct S3 {
    /// `host` or `host:port`.
    pub server_address: Option<String>,
    /// Access key.
    pub access_key: Secret,
    /// Secret key.
    pub secret_key: Secret,
    /// Session token of temporary keys.
    pub session_token: Secret,
    /// Bucket.
    pub bucket_name: Option<String>,
    /// Region.
    pub bucket_location: Option<String>,
    /// Whether HTTP is spoken.
    pub insecure: bool,
    /// How to authenticate, as written.
    pub authentication_type: Option<AuthenticationType>,
    /// Encryption by the store: `S3`, `KMS` or `DSSE-KMS`.
    pub server_side_encryption: Option<String>,
    /// The key of that encryption.
    #[serde(rename = "ServerSideEncryptionKeyID")]
    pub server_side_encryption_key_id: Option<String>,
    /// Whether addresses with IPv6 are used.
    pub dual_stack: bool,
    /// Whether the bucket is in the path; chosen by the server's name without it.
    pub path_style: Option<bool>,
    /// Whether transfer acceleration is used.
    pub accelerate: bool,
    /// How many roles are taken at once; -1 is any number.
    pub assume_role_max_concurrency: i64,
    /// Whether roles are taken anew for each transfer.
    pub disable_assume_role_credentials_caching: bool,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            server_address: None,
            access_key: Secret::default(),
            secret_key: Secret::default(),
            session_token: Secret::default(),
            bucket_name: None,
            bucket_location: None,
            insecure: false,
            authentication_type: None,
            server_side_encryption: None,
            server_side_encryption_key_id: None,
            dual_stack: true,
            path_style: None,
            accelerate: false,
            assume_role_max_concurrency: 5,
            disable_assume_role_credentials_caching: false,
        }
    }
}

/// How to authenticate to S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationType {
    /// By the keys of the file.
    AccessKey,
    /// By the machine's role; refused by the checker until it is supported.
    Iam,
}

/// `[runners.cache.gcs]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Gcs {
    /// Service account.
    #[serde(rename = "AccessID")]
    pub access_id: Option<String>,
    /// Its key.
    pub private_key: Secret,
    /// A file with both.
    pub credentials_file: Option<PathBuf>,
    /// Bucket.
    pub bucket_name: Option<String>,
    /// Domain of the service.
    pub universe_domain: Option<String>,
}

/// `[runners.cache.azure]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Azure {
    /// Storage account.
    pub account_name: Option<String>,
    /// Its key.
    pub account_key: Secret,
    /// Container.
    pub container_name: Option<String>,
    /// Domain of the service.
    pub storage_domain: String,
}

impl Default for Azure {
    fn default() -> Self {
        Self {
            account_name: None,
            account_key: Secret::default(),
            container_name: None,
            storage_domain: "blob.core.windows.net".into(),
        }
    }
}
