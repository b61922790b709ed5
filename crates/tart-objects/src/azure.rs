//! Azure Blob Storage: URLs with a shared access signature of a service, made with the key of a storage account.
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas>

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;
use url::Url;

use crate::error::{ObjectError, SettingsError};
use crate::place::{Place, Signed, below, in_path, in_query, root};

/// The version of the service whose rules signatures and requests follow.
const VERSION: &str = "2021-12-02";

/// The most bytes of one `Put Blob`.
const LARGEST: u64 = 5000 << 20;

const DEFAULT_DOMAIN: &str = "blob.core.windows.net";

/// `[runners.cache.azure]`, read. `Debug` shows no key.
#[derive(Clone, Default)]
pub struct AzureSettings {
    /// The storage account.
    pub account: String,
    /// Its key, as base64.
    pub key: String,
    /// The container.
    pub container: String,
    /// The domain below which the account has its own; `blob.core.windows.net` without it.
    pub domain: Option<String>,
    /// Instead of `https://<account>.<domain>`, for tests: emulators have the account in the path.
    pub endpoint: Option<Url>,
}

impl fmt::Debug for AzureSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureSettings")
            .field("account", &self.account)
            .field("container", &self.container)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// A container and the account that signs for it.
pub(crate) struct Azure {
    base: Url,
    account: String,
    container: String,
    key: Vec<u8>,
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// What a signature allows.
#[derive(Clone, Copy)]
enum Permission {
    Read,
    Write,
}

impl Azure {
    pub(crate) fn new(settings: &AzureSettings) -> Result<Self, SettingsError> {
        let AzureSettings { account, container, .. } = settings;
        if container.is_empty() {
            return Err(SettingsError::NoBucket("ContainerName"));
        }
        // It becomes a part of the host's name.
        if account.is_empty() || !account.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(SettingsError::Account(account.clone()));
        }
        let key = STANDARD.decode(settings.key.trim()).ok().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| SettingsError::Key("`AccountKey` is no base64".to_owned()))?;
        let domain = settings.domain.as_deref().filter(|domain| !domain.is_empty());
        let server = match &settings.endpoint {
            Some(endpoint) => below(endpoint, account),
            None => {
                let domain = domain.unwrap_or(DEFAULT_DOMAIN);
                root("StorageDomain", domain, &format!("{account}.{domain}"), false)?
            }
        };
        let base = below(&server, &in_path(container));
        Ok(Self { base, account: account.clone(), container: container.clone(), key })
    }

    fn sign(&self, name: &str, permission: Permission, valid: Duration, now: Timestamp) -> Url {
        let permission = match permission {
            Permission::Read => "r",
            Permission::Write => "w",
        };
        let mut url = self.address(name);
        // Emulators have no TLS, and the service takes no other words for it.
        let protocol = if url.scheme() == "https" { "https" } else { "https,http" };
        let expiry = SignedDuration::try_from(valid).ok().and_then(|valid| now.checked_add(valid).ok());
        let expiry = expiry.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // The name is signed as it is, not as the URL has it.
        let resource = format!("/blob/{}/{}/{name}", self.account, self.container);
        let fields = [
            permission, /* start */ "", &expiry, &resource, /* identifier */ "",
            /* addresses */ "", protocol, VERSION, /* a blob */ "b", /* snapshot */ "",
            /* encryption scope */ "", /* headers of the answer */ "", "", "", "", "",
        ];
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of HMAC may have any length");
        mac.update(fields.join("\n").as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let query = [
            ("se", expiry.as_str()),
            ("sp", permission),
            ("spr", protocol),
            ("sv", VERSION),
            ("sr", "b"),
            ("sig", &signature),
        ]
        .map(|(name, value)| format!("{name}={}", in_query(value)))
        .join("&");
        url.set_query(Some(&query));
        url
    }
}

impl Place for Azure {
    fn largest(&self) -> u64 {
        LARGEST
    }

    fn address(&self, name: &str) -> Url {
        below(&self.base, &in_path(name))
    }

    fn get(&self, name: &str, valid: Duration) -> Result<Url, ObjectError> {
        Ok(self.sign(name, Permission::Read, valid, Timestamp::now()))
    }

    fn put(&self, name: &str, key: Option<&str>, valid: Duration) -> Result<Signed, ObjectError> {
        let mut headers = vec![("x-ms-blob-type", "BlockBlob".to_owned())];
        headers.extend(key.map(|key| ("x-ms-meta-cachekey", key.to_owned())));
        Ok(Signed { url: self.sign(name, Permission::Write, valid, Timestamp::now()), headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> AzureSettings {
        AzureSettings {
            account: "acct".into(),
            key: "YSBrZXkgb2YgYW4gYWNjb3VudCBvZiB0ZXN0cw==".into(),
            container: "caches".into(),
            ..AzureSettings::default()
        }
    }

    fn error(change: impl FnOnce(&mut AzureSettings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        Azure::new(&settings).err().map(|error| error.to_string()).unwrap_or_default()
    }

    /// What Azure's own library for Python (azure-storage-blob 12.31.1, `generate_blob_sas`) makes of the same.
    #[test]
    fn signatures_are_those_of_azures_library() {
        let azure = Azure::new(&settings()).unwrap();
        let name = "ci/project/7/é +&=%2f~*'()!@$,;:#?[]/x y";
        let now = "2026-11-25T12:00:00Z".parse().unwrap();
        let sign = |permission| azure.sign(name, permission, Duration::from_secs(600), now);
        let url = sign(Permission::Write);
        assert_eq!(
            url.path(),
            "/caches/ci/project/7/%C3%A9%20%2B%26%3D%252f~%2A%27%28%29%21%40%24%2C%3B%3A%23%3F%5B%5D/x%20y"
        );
        assert_eq!(
            url.query().unwrap(),
            "se=2026-11-25T12%3A10%3A00Z&sp=w&spr=https&sv=2021-12-02&sr=b&sig=TUYb6UyOPah342aGoofyC6XQ4sMGvVRPYZgbnAeijmI%3D"
        );
        assert!(
            sign(Permission::Read)
                .query()
                .unwrap()
                .ends_with("&sig=dt5dLyaAzwoxV705kkdzkkVZgnk417AUF3URmUzLDsY%3D")
        );
    }

    #[test]
    fn accounts_have_hosts_of_their_own() {
        let address = |settings: &AzureSettings| Azure::new(settings).unwrap().address("a b").to_string();
        assert_eq!(address(&settings()), "https://acct.blob.core.windows.net/caches/a%20b");
        let china = AzureSettings { domain: Some("blob.core.chinacloudapi.cn".into()), ..settings() };
        assert_eq!(address(&china), "https://acct.blob.core.chinacloudapi.cn/caches/a%20b");
    }

    #[test]
    fn settings_that_lead_nowhere_are_refused_without_the_key() {
        insta::assert_snapshot!(error(|s| s.container.clear()), @"the object store has no bucket: set `ContainerName`");
        insta::assert_snapshot!(error(|s| s.account = "acct.example.com/".into()), @r#"`AccountName` must be the name of a storage account, found "acct.example.com/""#);
        insta::assert_snapshot!(error(|s| s.key = "hidden?".into()), @"the object store has no usable key: `AccountKey` is no base64");
        insta::assert_snapshot!(error(|s| s.domain = Some("https://example.com".into())), @r#"`StorageDomain` must be `host` or `host:port`, found "https://example.com""#);
        assert!(!format!("{:?}", AzureSettings { key: "hidden".into(), ..settings() }).contains("hidden"));
    }
}
