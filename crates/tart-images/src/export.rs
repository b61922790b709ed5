//! Images as files for other programs.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
};

use serde_json::json;
use tart_assets::ImageDisk;

use crate::{error::ImageError, images::Images};

/// Hears what is written, for its digest.
struct Spool {
    file: File,
    hasher: tart_oci::Hasher,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..length).unwrap_or_default());
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Images {
    /// Writes the files of an image as a tar archive. Blocks.
    ///
    /// # Errors
    /// If there is no such image, or `out` takes no more.
    pub fn export_rootfs(&self, name: &str, out: &mut dyn Write) -> Result<(), ImageError> {
        let disk = self.disk(name)?;
        Ok(self.store.unpack(&disk, out)?)
    }

    /// Writes an image with one layer, as `docker load` reads it. Blocks; needs room for the image's files in the
    /// store's directory while it works.
    ///
    /// # Errors
    /// If there is no such image, or `out` takes no more.
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<(), ImageError> {
        let failed = |source| ImageError::File { action: "write", path: "the archive".to_owned(), source };
        let disk = self.disk(name)?;
        let file = tempfile::tempfile_in(self.store.temporary()).map_err(failed)?;
        let mut spool = Spool { file, hasher: tart_oci::Hasher::default() };
        self.store.unpack(&disk, &mut spool)?;
        let digest = spool.hasher.finish();
        write_archive(name, &disk, &digest, spool.file, out).map_err(failed)
    }
}

fn write_archive(
    name: &str,
    disk: &ImageDisk,
    diff_id: &str,
    mut layer: File,
    out: &mut dyn Write,
) -> io::Result<()> {
    let config = &disk.config;
    let env: Vec<_> = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": env,
            "User": config.user,
            "WorkingDir": config.workdir,
            "Entrypoint": (!config.entrypoint.is_empty()).then_some(&config.entrypoint),
            "Cmd": (!config.cmd.is_empty()).then_some(&config.cmd),
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
    });
    let config = serde_json::to_vec(&config)?;
    let mut hasher = tart_oci::Hasher::default();
    hasher.update(&config);
    let config_name = format!("{}.json", hasher.finish());
    let tag = if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    };
    let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"] }]);
    let mut builder = tar::Builder::new(out);
    let add = |builder: &mut tar::Builder<&mut dyn Write>, name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes)
    };
    add(&mut builder, &config_name, &config)?;
    let size = layer.seek(SeekFrom::End(0))?;
    layer.seek(SeekFrom::Start(0))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    builder.append_data(&mut header, "layer.tar", layer)?;
    add(&mut builder, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    builder.into_inner()?.flush()
}
