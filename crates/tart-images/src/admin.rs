//! What the administrator does with images.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tart_assets::{DEFAULT_IMAGE, Evicted, ImageDisk, PulledImage};
use tart_registry::parse_reference;

use crate::{
    error::ImageError,
    images::{Images, host_platform},
};

/// What a prune removed.
pub type PruneReport = Evicted;

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its names; none for one whose name stands for another image now.
    pub names: Vec<String>,
    /// `os/architecture`.
    pub platform: String,
    /// Digest of its manifest; empty for images of the administrator.
    pub manifest: String,
    /// Digest of its configuration, or of its disk.
    pub id: String,
    /// Bytes of its disk.
    pub size: u64,
    /// Seconds since it was used.
    pub unused_seconds: u64,
    /// Whether a job has it.
    pub in_use: bool,
    /// Whether the administrator imported it: it is never evicted.
    pub imported: bool,
}

impl Images {
    /// All images: those of the administrator, then those that were used last. Blocks.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn ls(&self) -> Result<Vec<Listed>, ImageError> {
        let mut list = Vec::new();
        for image in self.store.all_local()? {
            // The default image may be there in several versions.
            if list.iter().any(|listed: &Listed| listed.names.contains(&image.name)) {
                continue;
            }
            list.push(Listed {
                platform: host_platform().to_owned(),
                manifest: String::new(),
                id: format!("sha256:{}", image.disk.digest),
                size: image.size,
                unused_seconds: image.unused_for.as_secs(),
                in_use: self.store.is_leased(&image.disk),
                imported: image.name != DEFAULT_IMAGE,
                names: vec![image.name],
            });
        }
        let references = self.store.references()?;
        for image in self.store.all_pulled()? {
            let names = references.iter().filter(|name| name.manifest == image.manifest);
            // Every image has its name with a digest too, which says nothing new.
            let tagged: Vec<_> = names.clone().filter(|name| !is_by_digest(&name.name)).collect();
            let names: Vec<_> = if tagged.is_empty() { names.collect() } else { tagged };
            let detail = |key: &str| {
                let found = image.details.iter().find(|(name, _)| name == key);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            list.push(Listed {
                names: names.into_iter().map(|name| name.name.clone()).collect(),
                platform: detail("platform"),
                id: image.id.clone(),
                size: image.size,
                unused_seconds: image.unused_for.as_secs(),
                in_use: self.store.is_leased(&image.disk),
                imported: false,
                manifest: image.manifest,
            });
        }
        Ok(list)
    }

    /// All about one image. Blocks.
    ///
    /// # Errors
    /// If there is none of that name, digest or ID.
    pub fn inspect(&self, name: &str) -> Result<Value, ImageError> {
        if let Some(disk) = self.store.local_image(name)? {
            let mut value = describe(&disk);
            value["Names"] = json!([name]);
            return Ok(value);
        }
        let image = self.find(name)?;
        let names = self.store.references()?;
        let names = names.into_iter().filter(|name| name.manifest == image.manifest).map(|name| name.name);
        let mut value = describe(&image.disk);
        value["Names"] = names.collect();
        value["Manifest"] = image.manifest.into();
        value["Id"] = image.id.into();
        value["Size"] = image.size.into();
        value["Details"] = image
            .details
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_iter()
            .map(|(key, value)| (key, Value::from(value)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        Ok(value)
    }

    /// Removes an image with all its names. Blocks.
    ///
    /// # Errors
    /// If there is none, or a job has it.
    pub fn rm(&self, name: &str) -> Result<(), ImageError> {
        if name != DEFAULT_IMAGE && self.store.local_image(name)?.is_some() {
            return Ok(self.store.remove_image(name)?);
        }
        let image = self.find(name)?;
        if self.store.remove_pulled(&image.manifest)? {
            return Ok(());
        }
        Err(ImageError::InUse { name: name.to_owned() })
    }

    /// Removes images and layers that were not used for that long. Those of the administrator and those in use stay.
    /// Blocks.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn prune(&self, unused_for: Duration) -> Result<PruneReport, ImageError> {
        Ok(self.store.prune_pulled(unused_for)?)
    }

    /// The disk of an image by its name, digest or ID. Blocks.
    ///
    /// # Errors
    /// If there is none.
    pub fn disk(&self, name: &str) -> Result<ImageDisk, ImageError> {
        match self.store.local_image(name)? {
            Some(disk) => Ok(disk),
            None => Ok(self.find(name)?.disk),
        }
    }

    /// An image that was fetched, by its name, or the beginning of its digest or ID.
    fn find(&self, name: &str) -> Result<PulledImage, ImageError> {
        let unknown = || ImageError::Unknown { name: name.to_owned() };
        let images = self.store.all_pulled()?;
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        if digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let starts = |digest: &str| digest.trim_start_matches("sha256:").starts_with(digits);
            let mut found = images.iter().filter(|image| starts(&image.manifest) || starts(&image.id));
            if let (Some(image), None) = (found.next(), found.next()) {
                return Ok(image.clone());
            }
        }
        let full = parse_reference(name).map_err(|_| unknown())?.whole();
        let mut names = self.store.references()?;
        names.retain(|known| known.name == full);
        // Guests' own platform first.
        names.sort_by_key(|known| known.platform != host_platform());
        let manifest = names.first().map(|known| known.manifest.clone()).ok_or_else(unknown)?;
        images.into_iter().find(|image| image.manifest == manifest).ok_or_else(unknown)
    }
}

fn is_by_digest(name: &str) -> bool {
    name.contains('@')
}

fn describe(disk: &ImageDisk) -> Value {
    let config = &disk.config;
    let env: Vec<_> = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "Disk": { "Path": disk.path, "Filesystem": disk.fstype, "Digest": format!("sha256:{}", disk.digest) },
        "Config": {
            "Env": env,
            "User": config.user,
            "WorkingDir": config.workdir,
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
        },
    })
}
