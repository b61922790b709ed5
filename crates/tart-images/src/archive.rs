//! Images of files: archives and root file systems.

use std::path::Path;

use tart_assets::{ImageDisk, NewImage};
use tart_oci::archive::{self, ArchivedImage};

use crate::{
    error::ImageError,
    images::{Images, host_platform},
};

impl Images {
    /// Stores what is at a path as an image of the administrator: an OCI layout, an OCI archive or what `docker save`
    /// writes, else a root file system in a directory or tarball. An image of that name is replaced. Blocks.
    ///
    /// # Errors
    /// If the name is none, or the source is nothing of that or damaged.
    pub fn import(&self, name: &str, source: &Path) -> Result<ImageDisk, ImageError> {
        let platform = tart_oci::parse_platform(host_platform())?;
        match archive::open(source, &platform, &self.store.temporary())? {
            Some(images) => self.import_archived(name, source, images),
            None => Ok(self.store.import_rootfs(name, source)?),
        }
    }

    fn import_archived(
        &self,
        name: &str,
        source: &Path,
        mut images: Vec<ArchivedImage>,
    ) -> Result<ImageDisk, ImageError> {
        // In an archive of several, the name says which.
        if images.len() > 1 {
            let known: Vec<_> = images.iter().flat_map(|image| image.tags.clone()).collect();
            images.retain(|image| image.tags.iter().any(|tag| tag == name));
            if images.is_empty() {
                let name = format!("{name} (the archive has {})", known.join(", "));
                return Err(ImageError::Unknown { name });
            }
        }
        let Some(image) = images.pop() else { return Err(ImageError::Unknown { name: name.to_owned() }) };
        let mut indexes = Vec::new();
        for (position, layer) in image.layers.iter().enumerate() {
            indexes.push(tart_oci::index(layer, position, &self.settings.limits)?);
        }
        let plan = tart_oci::merge(indexes, &self.settings.limits)?;
        let new = NewImage {
            manifest: image.manifest.clone(),
            id: image.id,
            config: tart_oci::image_config(&image.config),
            details: vec![
                ("source".to_owned(), source.display().to_string()),
                ("manifest".to_owned(), image.manifest),
            ],
        };
        self.store.add_named(name, new, |out| {
            plan.write(&image.layers, out)?;
            Ok::<_, ImageError>(())
        })
    }
}
