//! Google Cloud Storage: URLs with signatures of version 4, made with the key of a service account.
//! <https://cloud.google.com/storage/docs/authentication/canonical-requests>

mod account;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::sign::SigningKey;
use url::Url;

use crate::error::{ObjectError, SettingsError};
use crate::place::{Place, Signed, below, host, in_path, in_query, root};
use account::Account;

/// The most bytes of an object.
const LARGEST: u64 = 5 << 40;

const DEFAULT_UNIVERSE: &str = "googleapis.com";

const ALGORITHM: &str = "GOOG4-RSA-SHA256";

/// `[runners.cache.gcs]`, read. `Debug` shows no key.
#[derive(Clone, Default)]
pub struct GcsSettings {
    /// The bucket.
    pub bucket: String,
    /// The address of the service account.
    pub access_id: String,
    /// Its key, as PEM.
    pub private_key: String,
    /// A file with both, which is used instead of them, as in the official runner.
    pub credentials_file: Option<PathBuf>,
    /// The domain of the service; that of the credentials file or `googleapis.com` without it.
    pub universe_domain: Option<String>,
    /// Instead of `https://storage.<universe_domain>`, for tests.
    pub endpoint: Option<Url>,
}

impl fmt::Debug for GcsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsSettings")
            .field("bucket", &self.bucket)
            .field("access_id", &self.access_id)
            .field("credentials_file", &self.credentials_file)
            .field("universe_domain", &self.universe_domain)
            .finish_non_exhaustive()
    }
}

/// A bucket and the account that signs for it.
pub(crate) struct Gcs {
    base: Url,
    access_id: String,
    key: Arc<dyn SigningKey>,
}

impl fmt::Debug for Gcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gcs").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Gcs {
    pub(crate) fn new(settings: &GcsSettings) -> Result<Self, SettingsError> {
        if settings.bucket.is_empty() {
            return Err(SettingsError::NoBucket("BucketName"));
        }
        let account = Account::of(settings)?;
        let given = settings.universe_domain.clone().filter(|domain| !domain.is_empty());
        let universe = given.or(account.universe).unwrap_or_else(|| DEFAULT_UNIVERSE.to_owned());
        let server = match &settings.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => root("UniverseDomain", &universe, &format!("storage.{universe}"), false)?,
        };
        let base = below(&server, &in_path(&settings.bucket));
        Ok(Self { base, access_id: account.access_id, key: account.key })
    }

    fn sign(
        &self,
        method: &str,
        name: &str,
        headers: Vec<(&'static str, String)>,
        valid: Duration,
    ) -> Result<Signed, ObjectError> {
        let url = self.address(name);
        let unsigned = Unsigned::new(method, &url, &self.access_id, &headers, valid, Timestamp::now());
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]);
        let signer = signer.ok_or(ObjectError::Signature)?;
        let signature =
            signer.sign(unsigned.text.as_bytes()).map_err(|_| ObjectError::Signature).map(hex::encode)?;
        Ok(Signed { url: unsigned.url(url, &signature), headers })
    }
}

impl Place for Gcs {
    fn largest(&self) -> u64 {
        LARGEST
    }

    fn address(&self, name: &str) -> Url {
        below(&self.base, &in_path(name))
    }

    fn get(&self, name: &str, valid: Duration) -> Result<Url, ObjectError> {
        Ok(self.sign("GET", name, Vec::new(), valid)?.url)
    }

    fn put(&self, name: &str, key: Option<&str>, valid: Duration) -> Result<Signed, ObjectError> {
        let headers = key.map(|key| ("x-goog-meta-cachekey", key.to_owned())).into_iter().collect();
        self.sign("PUT", name, headers, valid)
    }
}

/// What is signed, and the query that says how.
struct Unsigned {
    query: String,
    text: String,
}

impl Unsigned {
    /// `headers` have names in lower case, all behind `host` in the alphabet.
    fn new(
        method: &str,
        url: &Url,
        access_id: &str,
        headers: &[(&'static str, String)],
        valid: Duration,
        now: Timestamp,
    ) -> Self {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/auto/storage/goog4_request", now.strftime("%Y%m%d"));
        let host = host(url);
        let headers: Vec<(&str, &str)> = std::iter::once(("host", host.as_str()))
            .chain(headers.iter().map(|(name, value)| (*name, value.as_str())))
            .collect();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        // In the order of their names.
        let query = [
            ("X-Goog-Algorithm", ALGORITHM),
            ("X-Goog-Credential", &format!("{access_id}/{scope}")),
            ("X-Goog-Date", &time),
            ("X-Goog-Expires", &valid.as_secs().to_string()),
            ("X-Goog-SignedHeaders", &names),
        ]
        .map(|(name, value)| format!("{name}={}", in_query(value)))
        .join("&");
        let request = format!("{method}\n{}\n{query}\n{lines}\n{names}\nUNSIGNED-PAYLOAD", url.path());
        let digest = hex::encode(Sha256::digest(request));
        Self { query, text: format!("{ALGORITHM}\n{time}\n{scope}\n{digest}") }
    }

    fn url(&self, mut url: Url, signature: &str) -> Url {
        url.set_query(Some(&format!("{}&X-Goog-Signature={signature}", self.query)));
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsigned(method: &str, name: &str, headers: &[(&'static str, String)]) -> (String, String) {
        let base = Url::parse("https://storage.googleapis.com/caches").unwrap();
        let url = below(&base, &in_path(name));
        let now = "2026-11-25T12:00:00Z".parse().unwrap();
        let valid = Duration::from_secs(600);
        let unsigned = Unsigned::new(method, &url, "ci@project.iam.gserviceaccount.com", headers, valid, now);
        (unsigned.text.clone(), unsigned.url(url, "0102").to_string())
    }

    /// What Google's own library for Python (google-cloud-storage 3.17.1, `generate_signed_url_v4`) signs.
    #[test]
    fn the_same_is_signed_as_by_googles_library() {
        let header = [("x-goog-meta-cachekey", "main".to_owned())];
        let (text, url) = unsigned("PUT", "ci/project/7/é +&=%2f~*'()!@$,;:#?[]/x y", &header);
        assert_eq!(
            text,
            "GOOG4-RSA-SHA256\n20261125T120000Z\n20261125/auto/storage/goog4_request\n241f24b1706cac80ac6b74ba4245935fb43f34384db87d00e14146cd534b5226"
        );
        assert_eq!(
            url,
            "https://storage.googleapis.com/caches/ci/project/7/%C3%A9%20%2B%26%3D%252f~%2A%27%28%29%21%40%24%2C%3B%3A%23%3F%5B%5D/x%20y?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=ci%40project.iam.gserviceaccount.com%2F20261125%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20261125T120000Z&X-Goog-Expires=600&X-Goog-SignedHeaders=host%3Bx-goog-meta-cachekey&X-Goog-Signature=0102"
        );
        let (text, _) = unsigned("GET", "project/7/main", &[]);
        assert!(
            text.ends_with("\nb6eedc2263d50750e8e8f6f7a2d854bdfbdea10a44b403e2e728f4bcf53a5b4b"),
            "{text}"
        );
    }
}
