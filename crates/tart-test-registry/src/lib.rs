//! A real registry on loopback for tests, and images to fill it with.
//!
//! [`TestRegistry`] is Debian's `docker-registry` in a directory of its own; [`ImageBuilder`] and [`Files`] make images
//! of bytes, honest or hostile ones; [`samples`] has the images that most tests want. Needs the Debian packages
//! `docker-registry`, `skopeo` and, for users, `apache2-utils`.

mod files;
mod image;
mod process;
mod registry;
pub mod samples;

pub use files::Files;
pub use image::{Compression, ImageBuilder, write_index};
pub use registry::{Options, TestRegistry};
