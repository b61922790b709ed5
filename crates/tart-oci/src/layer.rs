//! Where the bytes of a layer come from.

use std::{
    fmt, fs, io,
    io::{BufRead as _, BufReader, Read},
    path::PathBuf,
    sync::Arc,
};

use oci_spec::image::Descriptor;

use crate::error::LayerError;

/// A layer's compressed bytes, which are read twice.
pub trait LayerSource: Send + Sync {
    /// Opens them at their beginning.
    ///
    /// # Errors
    /// If they cannot be opened.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl LayerSource for PathBuf {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(fs::File::open(self)?))
    }
}

/// A layer of an image.
#[derive(Clone)]
pub struct Layer {
    source: Arc<dyn LayerSource>,
    /// SHA-256 of the decompressed bytes, in hexadecimal digits.
    pub(crate) diff_id: String,
    /// Compressed bytes.
    pub(crate) size: u64,
    /// For messages.
    pub(crate) name: String,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("name", &self.name).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Layer {
    /// A layer by its descriptor in the manifest, and the digest of its decompressed bytes in the configuration.
    ///
    /// # Errors
    /// If the digest is none, or the layer is encrypted.
    pub fn new(
        source: Arc<dyn LayerSource>,
        descriptor: &Descriptor,
        diff_id: &str,
    ) -> Result<Self, LayerError> {
        let media_type = descriptor.media_type().to_string();
        if media_type.contains("+encrypted") {
            return Err(LayerError::layer(&short(descriptor.digest().as_ref()), "it is encrypted"));
        }
        Self::unnamed(source, descriptor.digest().as_ref(), descriptor.size(), diff_id)
    }

    /// A layer by its name for messages, and its compressed size in bytes.
    pub(crate) fn unnamed(
        source: Arc<dyn LayerSource>,
        name: &str,
        size: u64,
        diff_id: &str,
    ) -> Result<Self, LayerError> {
        let hex = diff_id.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let problem = format!("its diff_id `{}` is no SHA-256 digest", diff_id.escape_debug());
            return Err(LayerError::layer(&short(name), problem));
        }
        Ok(Self { source, diff_id: hex.to_owned(), size, name: short(name) })
    }

    /// Its decompressed bytes. The kind of compression is read off the bytes: media types are often wrong.
    pub(crate) fn decompressed(&self) -> io::Result<Box<dyn Read + Send>> {
        decompressed(self.source.open()?)
    }
}

/// Decompresses gzip and zstd, and passes on everything else.
pub(crate) fn decompressed(source: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::with_capacity(1 << 17, source);
    let start = reader.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(reader)?;
            // The largest window that ordinary decoders take: 128 MiB, and no more memory than that.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        _ => Box::new(reader),
    })
}

/// Most layers of an image.
pub(crate) const MAX_LAYERS: usize = 512;

/// The beginning of a digest.
pub(crate) fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// Checks that a manifest's layers and a configuration's digests belong together.
///
/// # Errors
/// If there are none, too many, or not as many as digests.
pub fn check_layers(descriptors: &[Descriptor], diff_ids: &[String]) -> Result<(), LayerError> {
    let problem = if descriptors.len() != diff_ids.len() {
        format!("the manifest has {} layers and the configuration {}", descriptors.len(), diff_ids.len())
    } else if descriptors.is_empty() {
        "it has no layers".to_owned()
    } else if descriptors.len() > MAX_LAYERS {
        format!("it has {} layers, more than {MAX_LAYERS}", descriptors.len())
    } else {
        return Ok(());
    };
    Err(LayerError::image("the image", problem))
}
