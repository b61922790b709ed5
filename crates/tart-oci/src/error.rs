//! What can be wrong with an image's content.

use std::io;

/// Why an image's content cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A layer cannot be read, or is no archive.
    #[error("layer {layer}: {problem}")]
    Layer {
        /// The layer's digest, shortened.
        layer: String,
        /// What is wrong.
        problem: String,
    },
    /// Reading a layer failed.
    #[error("layer {layer} cannot be read")]
    Read {
        /// The layer's digest, shortened.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// The merged archive could not be written.
    #[error("the image's files cannot be written")]
    Write(#[source] io::Error),
    /// An image, its manifest or its configuration is not as it should be.
    #[error("{what}: {problem}")]
    Image {
        /// The image or the part of it.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The image does not exist for the platform.
    #[error("no image for {wanted}; there are: {known}")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
}

impl LayerError {
    pub(crate) fn layer(layer: &str, problem: impl Into<String>) -> Self {
        Self::Layer { layer: layer.to_owned(), problem: problem.into() }
    }

    pub(crate) fn image(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Image { what: what.into(), problem: problem.into() }
    }
}

/// Bytes of an image, for messages.
pub(crate) fn text(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let (shown, more) = match bytes.get(..SHOWN) {
        Some(start) if bytes.len() > SHOWN => (start, "..."),
        _ => (bytes, ""),
    };
    format!("{}{more}", String::from_utf8_lossy(shown).escape_debug())
}
