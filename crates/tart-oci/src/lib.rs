//! Images as registries and archives have them, and their layers merged into one tar stream.
//!
//! Layers are hostile input. They are read twice and never unpacked: [`index`] reads the headers of one layer and
//! checks its digest, [`merge`] applies all of them to an empty tree in memory, and [`Plan::write`] reads the layers
//! again and passes on the files that survived, as one archive. Memory grows with the number of files, which is
//! bounded by [`Limits`], never with their size. All functions block.

pub mod archive;
mod config;
mod error;
mod hash;
mod index;
mod layer;
mod limits;
mod merge;
mod platform;
mod read;
mod write;

pub use config::{ImageConfig, image_config};
pub use error::LayerError;
pub use hash::Hasher;
pub use index::{LayerIndex, index};
pub use layer::{Layer, LayerSource, check_layers};
pub use limits::Limits;
pub use merge::{Plan, merge};
pub use platform::{parse_platform, select, shown};
pub use write::Summary;
