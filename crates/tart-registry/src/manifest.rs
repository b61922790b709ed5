//! What a registry says about an image.

use oci_spec::{
    distribution::Reference,
    image::{Digest, ImageConfiguration, ImageIndex, ImageManifest},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Most bytes of a manifest, as registries have it.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;

/// Most bytes of a configuration.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;

/// What is asked for. The digest of a name depends on it.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// An image of a registry, chosen for a platform.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Its name with the manifest's digest.
    pub reference: Reference,
    /// The digest of the index it was chosen from, if there is one.
    pub index_digest: Option<Digest>,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfiguration,
    /// Its bytes.
    pub config_json: Vec<u8>,
}

/// A document of a registry.
pub(crate) enum Document {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// What tells documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u32>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index.
pub(crate) fn document(json: &[u8]) -> Result<Document, String> {
    let outline: Outline =
        serde_json::from_slice(json).map_err(|error| format!("it is no manifest: {error}"))?;
    if outline.schema_version == Some(1) {
        return Err(
            "its manifest is of the old version 1, which Docker has given up: push it again".to_owned()
        );
    }
    if outline.manifests.is_some() && outline.layers.is_some() {
        // Others may read the other half (CVE-2021-41190).
        return Err("it is a manifest and an index at once".to_owned());
    }
    if outline.manifests.is_some() {
        return serde_json::from_slice(json).map(Document::Index).map_err(|error| error.to_string());
    }
    if outline.layers.is_none() {
        return Err("its manifest has no layers".to_owned());
    }
    serde_json::from_slice(json).map(Document::Manifest).map_err(|error| error.to_string())
}

/// SHA-256 as registries write it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(json: &str) -> String {
        document(json.as_bytes()).err().unwrap()
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        insta::assert_snapshot!(problem("<html>"), @"it is no manifest: expected value at line 1 column 1");
        insta::assert_snapshot!(problem(r#"{"schemaVersion":1,"fsLayers":[]}"#), @"its manifest is of the old version 1, which Docker has given up: push it again");
        insta::assert_snapshot!(problem(r#"{"schemaVersion":2}"#), @"its manifest has no layers");
        insta::assert_snapshot!(problem(r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#), @"it is a manifest and an index at once");
        insta::assert_snapshot!(problem(r#"{"schemaVersion":2,"layers":[]}"#), @"missing field `config` at line 1 column 31");
        insta::assert_snapshot!(problem(r#"{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"../../x","size":1}],"config":{"mediaType":"x","digest":"sha256:00","size":1}}"#), @"missing ':' in digest at line 1 column 64");
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..300)) {
            let _any = document(&junk);
        }
    }
}
