//! Stores that speak S3.

use std::fmt;
use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use url::Url;

use crate::error::{ObjectError, SettingsError};
use crate::place::{Place, Signed, root};

/// The most bytes of one `PUT` (S3's API).
const LARGEST: u64 = 5 << 30;

/// The region of stores that have none (the official runner's default).
const DEFAULT_REGION: &str = "us-east-1";

/// The name that means Amazon's store in any region.
const AMAZON: &str = "s3.amazonaws.com";

/// `[runners.cache.s3]`, read. `Debug` shows no key.
#[derive(Clone, Default)]
pub struct S3Settings {
    /// `host` or `host:port`; Amazon's without it.
    pub server: Option<String>,
    /// Whether HTTP is spoken.
    pub insecure: bool,
    /// The bucket.
    pub bucket: String,
    /// The region; `us-east-1` without it.
    pub region: Option<String>,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// The token of temporary keys; empty without one.
    pub session_token: String,
    /// Whether the bucket is in the path; chosen by the server's name without it.
    pub path_style: Option<bool>,
    /// Whether Amazon's addresses with IPv6 are used.
    pub dual_stack: bool,
    /// Whether Amazon's transfer acceleration is used.
    pub accelerate: bool,
    /// What the store is to encrypt with.
    pub encryption: Option<Encryption>,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings")
            .field("server", &self.server)
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Encryption by the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With the store's own keys.
    S3,
    /// With a key of the key management, by its id; the account's default one if it is empty.
    Kms(String),
    /// The same, twice.
    DsseKms(String),
}

impl Encryption {
    /// The headers of an upload, as S3's API has them, in the order of their names.
    fn headers(&self) -> Vec<(&'static str, String)> {
        let (algorithm, key) = match self {
            Self::S3 => ("AES256", ""),
            Self::Kms(key) => ("aws:kms", key.as_str()),
            Self::DsseKms(key) => ("aws:kms:dsse", key.as_str()),
        };
        let mut headers = vec![("x-amz-server-side-encryption", algorithm.to_owned())];
        if !key.is_empty() {
            headers.push(("x-amz-server-side-encryption-aws-kms-key-id", key.to_owned()));
        }
        headers
    }
}

impl S3Settings {
    fn region(&self) -> &str {
        self.region.as_deref().filter(|region| !region.is_empty()).unwrap_or(DEFAULT_REGION)
    }

    /// The server. Acceleration and IPv6 are addresses of Amazon's own, which a server of another name does not have.
    fn endpoint(&self) -> Result<Url, SettingsError> {
        let given = self.server.as_deref().filter(|server| !server.is_empty());
        let host = match given {
            Some(server) if server != AMAZON => server.to_owned(),
            _ => {
                let region = self.region();
                let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                let stack = if self.dual_stack { ".dualstack" } else { "" };
                if self.accelerate {
                    format!("s3-accelerate{stack}.{domain}")
                } else {
                    format!("s3{stack}.{region}.{domain}")
                }
            }
        };
        root("ServerAddress", given.unwrap_or_default(), &host, self.insecure)
    }

    /// Whether the bucket is a part of the host's name. A certificate has no names with more dots.
    fn style(&self, endpoint: &Url) -> UrlStyle {
        let host = endpoint.host_str().unwrap_or_default();
        let shared = host.ends_with(".amazonaws.com")
            || host.ends_with(".amazonaws.com.cn")
            || host == "storage.googleapis.com"
            || (host.starts_with("oss-") && host.ends_with(".aliyuncs.com"));
        let dotted = endpoint.scheme() == "https" && self.bucket.contains('.');
        if self.path_style.unwrap_or(!shared || dotted) { UrlStyle::Path } else { UrlStyle::VirtualHost }
    }

    fn bucket(&self) -> Result<Bucket, SettingsError> {
        if self.bucket.is_empty() {
            return Err(SettingsError::NoBucket("BucketName"));
        }
        let endpoint = self.endpoint()?;
        let style = self.style(&endpoint);
        Bucket::new(endpoint, style, self.bucket.clone(), self.region().to_owned()).map_err(|_| {
            SettingsError::Server { key: "ServerAddress", found: self.server.clone().unwrap_or_default() }
        })
    }

    fn credentials(&self) -> Credentials {
        let (key, secret) = (self.access_key.as_str(), self.secret_key.as_str());
        match self.session_token.as_str() {
            "" => Credentials::new(key, secret),
            token => Credentials::new_with_token(key, secret, token),
        }
    }
}

/// A bucket and the keys to it.
#[derive(Debug)]
pub(crate) struct S3 {
    bucket: Bucket,
    /// Its `Debug` shows no secret.
    credentials: Credentials,
    encryption: Option<Encryption>,
}

impl S3 {
    pub(crate) fn new(settings: &S3Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            bucket: settings.bucket()?,
            credentials: settings.credentials(),
            encryption: settings.encryption.clone(),
        })
    }
}

impl Place for S3 {
    fn largest(&self) -> u64 {
        LARGEST
    }

    fn address(&self, name: &str) -> Url {
        self.bucket.object_url(name).unwrap_or_else(|_| self.bucket.base_url().clone())
    }

    fn get(&self, name: &str, valid: Duration) -> Result<Url, ObjectError> {
        Ok(self.bucket.get_object(Some(&self.credentials), name).sign(valid))
    }

    fn put(&self, name: &str, key: Option<&str>, valid: Duration) -> Result<Signed, ObjectError> {
        let mut headers = Vec::from_iter(key.map(|key| ("x-amz-meta-cachekey", key.to_owned())));
        headers.extend(self.encryption.iter().flat_map(Encryption::headers));
        let mut put = self.bucket.put_object(Some(&self.credentials), name);
        for (header, value) in &headers {
            put.headers_mut().insert(*header, value.as_str());
        }
        Ok(Signed { url: put.sign(valid), headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(change: impl FnOnce(&mut S3Settings)) -> String {
        let mut settings = S3Settings { bucket: "b".into(), dual_stack: true, ..S3Settings::default() };
        change(&mut settings);
        settings.bucket().map_or_else(|error| error.to_string(), |bucket| bucket.base_url().to_string())
    }

    #[test]
    fn servers_have_the_addresses_that_the_official_runner_uses() {
        let server = |name: &str| Some(name.to_owned());
        assert_eq!(base(|_| {}), "https://b.s3.dualstack.us-east-1.amazonaws.com/");
        assert_eq!(
            base(|s| {
                s.server = server(AMAZON);
                s.region = Some("cn-north-1".into());
                s.dual_stack = false;
            }),
            "https://b.s3.cn-north-1.amazonaws.com.cn/"
        );
        assert_eq!(base(|s| s.accelerate = true), "https://b.s3-accelerate.dualstack.amazonaws.com/");
        assert_eq!(base(|s| s.bucket = "a.b".into()), "https://s3.dualstack.us-east-1.amazonaws.com/a.b/");
        assert_eq!(
            base(|s| s.server = server("storage.googleapis.com")),
            "https://b.storage.googleapis.com/"
        );
        assert_eq!(base(|s| s.server = server("minio.test:443")), "https://minio.test/b/");
        assert_eq!(
            base(|s| {
                s.server = server("minio.test:9000");
                s.insecure = true;
            }),
            "http://minio.test:9000/b/"
        );
        assert_eq!(
            base(|s| {
                s.server = server("minio.test");
                s.path_style = Some(false);
            }),
            "https://b.minio.test/"
        );
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for server in ["http://minio.test", "minio.test/path", "user@minio.test", "a b"] {
            let text = base(|s| s.server = Some(server.to_owned()));
            assert_eq!(text, format!("`ServerAddress` must be `host` or `host:port`, found {server:?}"));
        }
        insta::assert_snapshot!(base(|s| s.bucket.clear()), @"the object store has no bucket: set `BucketName`");
    }

    #[test]
    fn no_key_is_shown() {
        let settings = S3Settings {
            access_key: "AKIA-hidden".into(),
            secret_key: "hidden".into(),
            session_token: "hidden".into(),
            ..S3Settings::default()
        };
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
