//! Images as OCI layouts.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As most images are.
    Gzip,
    /// As newer images are.
    Zstd,
}

/// An image to be made.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<(Vec<u8>, Compression)>,
    config: Map<String, Value>,
    architecture: String,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// An image of no layers for `amd64`.
    #[must_use]
    pub fn new() -> Self {
        Self { layers: Vec::new(), config: Map::new(), architecture: "amd64".to_owned() }
    }

    /// Puts a layer, a tar archive, on top.
    #[must_use]
    pub fn layer(mut self, tar: Vec<u8>, compression: Compression) -> Self {
        self.layers.push((tar, compression));
        self
    }

    /// Sets a key of the configuration's `config`: `Env`, `User`, `WorkingDir`, `Entrypoint`, `Cmd`, ...
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// For another processor than `amd64`.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// Writes the image into the OCI layout at a directory, which is made if missing, and tags it.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write(&self, layout: &Path, tag: &str) -> anyhow::Result<()> {
        let manifest = self.store(layout)?;
        add_to_index(layout, tag, manifest)
    }

    /// Writes all but the tag, and returns the manifest's descriptor.
    fn store(&self, layout: &Path) -> anyhow::Result<Value> {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (tar, compression) in &self.layers {
            let (bytes, suffix) = match compression {
                Compression::None => (tar.clone(), ""),
                Compression::Gzip => (gzip(tar)?, "+gzip"),
                Compression::Zstd => (zstd::encode_all(&**tar, 3)?, "+zstd"),
            };
            layers.push(store(layout, &format!("{LAYER}{suffix}"), &bytes)?);
            diff_ids.push(digest(tar));
        }
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "test" })).collect::<Vec<_>>(),
        });
        let config = store(layout, CONFIG, &serde_json::to_vec(&config)?)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let mut manifest = store(layout, MANIFEST, &serde_json::to_vec(&manifest)?)?;
        manifest["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
        Ok(manifest)
    }
}

/// Writes an index of images for several processors into an OCI layout, and tags it.
///
/// # Errors
/// If something cannot be written.
pub fn write_index(layout: &Path, tag: &str, images: &[ImageBuilder]) -> anyhow::Result<()> {
    let manifests = images.iter().map(|image| image.store(layout)).collect::<anyhow::Result<Vec<_>>>()?;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let index = store(layout, INDEX, &serde_json::to_vec(&index)?)?;
    add_to_index(layout, tag, index)
}

fn add_to_index(layout: &Path, tag: &str, mut descriptor: Value) -> anyhow::Result<()> {
    let path = layout.join("index.json");
    let mut index = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("in {}", path.display()))?,
        Err(_) => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
    };
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    index["manifests"].as_array_mut().context("an index has manifests")?.push(descriptor);
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(&path, serde_json::to_vec(&index)?).with_context(|| format!("cannot write {}", path.display()))
}

fn store(layout: &Path, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest = digest(bytes);
    let path = blob(layout, &digest);
    fs::create_dir_all(path.parent().context("a blob is in a directory")?)?;
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replacen(':', "/", 1))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
