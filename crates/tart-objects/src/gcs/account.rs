//! Service accounts of Google's cloud.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::sign::SigningKey;

use super::GcsSettings;
use crate::error::SettingsError;

/// The most bytes of a credentials file that are read.
const MAX_FILE: u64 = 64 * 1024;

/// The only kind of credentials that has a key.
const KIND: &str = "service_account";

/// An account that can sign.
pub(super) struct Account {
    pub(super) access_id: String,
    pub(super) key: Arc<dyn SigningKey>,
    /// The domain of the services that know it, if its file says so.
    pub(super) universe: Option<String>,
}

impl Account {
    pub(super) fn of(settings: &GcsSettings) -> Result<Self, SettingsError> {
        if let Some(file) = settings.credentials_file.as_deref().filter(|file| !file.as_os_str().is_empty()) {
            return Self::from_file(file);
        }
        if settings.access_id.is_empty() || settings.private_key.is_empty() {
            return Err(SettingsError::NoAccount);
        }
        let key = signing_key(&settings.private_key)
            .ok_or_else(|| SettingsError::Key("`PrivateKey` is no RSA key as PEM".to_owned()))?;
        Ok(Self { access_id: settings.access_id.clone(), key, universe: None })
    }

    fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let shown = path.display();
        let wrong = |why: String| SettingsError::Key(format!("the `CredentialsFile` {shown} {why}"));
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
            .map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let file: Value = serde_json::from_str(&text).map_err(|_| wrong("is no JSON".to_owned()))?;
        let field = |name: &str| file.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        match field("type") {
            Some(KIND) => {}
            Some(kind) => {
                let kind: String = kind.chars().take(40).collect();
                return Err(wrong(format!("is of the type {kind:?}: only {KIND:?} has a key that can sign")));
            }
            None => return Err(wrong(format!("has no `type`: it must be the key of a {KIND:?}"))),
        }
        let access_id = field("client_email").ok_or_else(|| wrong("has no `client_email`".to_owned()))?;
        let key = field("private_key").ok_or_else(|| wrong("has no `private_key`".to_owned()))?;
        let key =
            signing_key(key).ok_or_else(|| wrong("has a `private_key` that is no RSA key".to_owned()))?;
        let universe = field("universe_domain").map(str::to_owned);
        Ok(Self { access_id: access_id.to_owned(), key, universe })
    }
}

/// An RSA key in PKCS #8 or PKCS #1.
fn signing_key(pem: &str) -> Option<Arc<dyn SigningKey>> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    let key = any_supported_type(&key).ok()?;
    key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).is_some().then_some(key)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn error(settings: &GcsSettings) -> String {
        Account::of(settings).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn of_file(text: &str) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_owned();
        let shown = path.display().to_string();
        error(&GcsSettings { credentials_file: Some(path), ..GcsSettings::default() }).replace(&shown, "FILE")
    }

    #[test]
    fn what_cannot_sign_is_refused_without_its_contents() {
        insta::assert_snapshot!(error(&GcsSettings::default()), @"the object store has no account: set `CredentialsFile`, or `AccessID` and `PrivateKey` (identities of machines and workloads are not supported)");
        insta::assert_snapshot!(error(&GcsSettings {
            access_id: "ci@example.com".into(),
            private_key: "hidden".into(),
            ..GcsSettings::default()
        }), @"the object store has no usable key: `PrivateKey` is no RSA key as PEM");
        insta::assert_snapshot!(of_file("hidden"), @"the object store has no usable key: the `CredentialsFile` FILE is no JSON");
        insta::assert_snapshot!(of_file("{}"), @r#"the object store has no usable key: the `CredentialsFile` FILE has no `type`: it must be the key of a "service_account""#);
        insta::assert_snapshot!(of_file(r#"{"type": "external_account"}"#), @r#"the object store has no usable key: the `CredentialsFile` FILE is of the type "external_account": only "service_account" has a key that can sign"#);
        insta::assert_snapshot!(of_file(r#"{"type": "service_account"}"#), @"the object store has no usable key: the `CredentialsFile` FILE has no `client_email`");
        insta::assert_snapshot!(of_file(r#"{"type": "service_account", "client_email": "a", "private_key": "hidden"}"#), @"the object store has no usable key: the `CredentialsFile` FILE has a `private_key` that is no RSA key");
        let missing = GcsSettings { credentials_file: Some("/nonexistent".into()), ..GcsSettings::default() };
        insta::assert_snapshot!(error(&missing), @"the object store has no usable key: the `CredentialsFile` /nonexistent cannot be read: No such file or directory (os error 2)");
    }

    proptest! {
        #[test]
        fn no_key_panics(text in ".{0,80}") {
            prop_assert!(signing_key(&text).is_none());
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
            prop_assert!(signing_key(&pem).is_none());
        }
    }
}
