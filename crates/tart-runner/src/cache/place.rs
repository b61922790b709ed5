//! Where the caches of a job are, by its runner's configuration.

use tart_config::{Azure, CacheType, Gcs, Runner, S3};
use tart_objects::{AzureSettings, Encryption, GcsSettings, ObjectStore, S3Settings, SettingsError};

use super::CacheScope;

/// Where the caches of a job are.
#[derive(Debug, Clone)]
pub enum CachePlace {
    /// In the store of this host.
    Host(CacheScope),
    /// In an object store.
    Objects(ObjectCaches),
}

/// The part of an object store that belongs to a project.
#[derive(Debug, Clone)]
pub struct ObjectCaches {
    /// The store.
    pub(crate) store: ObjectStore,
    /// How the names of the project's objects begin, with a `/` at the end.
    prefix: String,
    /// Whether addresses may be shown.
    pub(crate) shown: bool,
}

impl ObjectCaches {
    /// Those of a project. `path` is of the configuration; without `runner`, all runners share them.
    pub(crate) fn new(
        store: ObjectStore,
        path: &str,
        runner: Option<&str>,
        project: i64,
        shown: bool,
    ) -> Self {
        let mut prefix: String = path
            .split('/')
            .filter(|part| !matches!(*part, "" | "." | ".."))
            .flat_map(|part| [part, "/"])
            .collect();
        if let Some(runner) = runner {
            prefix.push_str(&format!("runner/{runner}/"));
        }
        prefix.push_str(&format!("project/{project}/"));
        Self { store, prefix, shown }
    }

    /// The name of an object. A key that would lead elsewhere has none; cleaned keys never do.
    pub(crate) fn object(&self, key: &str) -> Option<String> {
        let inside = key.split('/').all(|part| !matches!(part, "" | "." | ".."));
        inside.then(|| format!("{}{key}", self.prefix))
    }
}

/// The object store of a runner, if its caches are in one.
pub(crate) fn object_store(runner: &Runner) -> Result<Option<ObjectStore>, SettingsError> {
    let cache = &runner.cache;
    let store = match cache.kind {
        Some(CacheType::S3) => ObjectStore::s3(&s3(&cache.s3)),
        Some(CacheType::Gcs) => ObjectStore::gcs(&gcs(&cache.gcs)),
        Some(CacheType::Azure) => ObjectStore::azure(&azure(&cache.azure)),
        None => return Ok(None),
    };
    store.map(Some)
}

fn gcs(gcs: &Gcs) -> GcsSettings {
    GcsSettings {
        bucket: gcs.bucket_name.clone().unwrap_or_default(),
        access_id: gcs.access_id.clone().unwrap_or_default(),
        private_key: gcs.private_key.expose().to_owned(),
        credentials_file: gcs.credentials_file.clone(),
        universe_domain: gcs.universe_domain.clone(),
        endpoint: None,
    }
}

fn azure(azure: &Azure) -> AzureSettings {
    AzureSettings {
        account: azure.account_name.clone().unwrap_or_default(),
        key: azure.account_key.expose().to_owned(),
        container: azure.container_name.clone().unwrap_or_default(),
        domain: Some(azure.storage_domain.clone()),
        endpoint: None,
    }
}

fn s3(s3: &S3) -> S3Settings {
    let key = || s3.server_side_encryption_key_id.clone().unwrap_or_default();
    S3Settings {
        server: s3.server_address.clone(),
        insecure: s3.insecure,
        bucket: s3.bucket_name.clone().unwrap_or_default(),
        region: s3.bucket_location.clone(),
        access_key: s3.access_key.expose().to_owned(),
        secret_key: s3.secret_key.expose().to_owned(),
        session_token: s3.session_token.expose().to_owned(),
        path_style: s3.path_style,
        dual_stack: s3.dual_stack,
        accelerate: s3.accelerate,
        encryption: match s3.server_side_encryption.as_deref() {
            Some("S3") => Some(Encryption::S3),
            Some("KMS") => Some(Encryption::Kms(key())),
            Some("DSSE-KMS") => Some(Encryption::DsseKms(key())),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caches(path: &str, runner: Option<&str>) -> ObjectCaches {
        let settings = S3Settings { bucket: "b".into(), ..S3Settings::default() };
        ObjectCaches::new(ObjectStore::s3(&settings).unwrap(), path, runner, 7, true)
    }

    #[test]
    fn objects_have_the_names_that_official_runners_give_them() {
        let name = |path, runner, key| caches(path, runner).object(key);
        assert_eq!(name("", Some("abc"), "a/b").as_deref(), Some("runner/abc/project/7/a/b"));
        assert_eq!(name("/x/../y/", None, "main").as_deref(), Some("x/y/project/7/main"));
        assert_eq!(name("", None, "../8/main"), None);
    }

    proptest! {
        #[test]
        fn no_key_leads_to_another_project(key in "[a./%]{0,20}") {
            if let Some(name) = caches("", None).object(&key) {
                prop_assert!(name.starts_with("project/7/"));
                prop_assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
