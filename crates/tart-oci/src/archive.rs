//! Images in files: OCI layouts, as directories or tar archives, and what `docker save` writes.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Platform};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{LayerError, text},
    layer::{Layer, LayerSource, MAX_LAYERS, check_layers, decompressed},
    limits::Limits,
    platform::select,
    read::{Kind, Reader},
};

/// Most bytes of a manifest or configuration.
const MAX_JSON: u64 = 8 << 20;

/// The name of an image in an OCI layout.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// An image of an archive.
#[derive(Debug)]
pub struct ArchivedImage {
    /// Names it has there.
    pub tags: Vec<String>,
    /// Digest of its manifest; of its configuration in archives without manifests.
    pub manifest: String,
    /// Digest of its configuration.
    pub id: String,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Its layers, the base first.
    pub layers: Vec<Layer>,
}

/// The images of an archive for a platform. Nothing if the file or directory is no archive of images, such as a root
/// file system.
///
/// A compressed archive is decompressed into a file of `spool`, which has no name.
///
/// # Errors
/// If it is one, but damaged.
pub fn open(
    path: &Path,
    platform: &Platform,
    spool: &Path,
) -> Result<Option<Vec<ArchivedImage>>, LayerError> {
    let container = if path.is_dir() {
        Container::Directory(path.to_owned())
    } else {
        match Container::tar(path, spool)? {
            Some(container) => container,
            None => return Ok(None),
        }
    };
    if container.find("oci-layout").is_some() {
        return container.layout(platform).map(Some);
    }
    if container.find("manifest.json").is_some() && !path.is_dir() {
        return container.saved().map(Some);
    }
    Ok(None)
}

/// Files by their names.
enum Container {
    Directory(PathBuf),
    Tar { file: Arc<File>, files: HashMap<String, (u64, u64)> },
}

/// A part of a file.
struct Part {
    file: Arc<File>,
    start: u64,
    size: u64,
}

impl LayerSource for Part {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(PartReader { file: Arc::clone(&self.file), at: self.start, left: self.size }))
    }
}

struct PartReader {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

/// What `docker save` says about an image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Container {
    fn tar(path: &Path, spool: &Path) -> Result<Option<Self>, LayerError> {
        let what = path.display().to_string();
        let failed = |source: io::Error| LayerError::Read { layer: what.clone(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut start = [0; 4];
        let length = file.read(&mut start).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let start = start.get(..length).unwrap_or_default();
        if start.starts_with(&[0x1f, 0x8b]) || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let limits = Limits::default();
            let mut plain = decompressed(Box::new(file)).map_err(failed)?.take(limits.total_bytes);
            let mut spooled = tempfile::tempfile_in(spool).map_err(failed)?;
            io::copy(&mut plain, &mut spooled).map_err(failed)?;
            spooled.flush().map_err(failed)?;
            file = spooled;
        }
        let files = contents(&file);
        // What is no archive at all is somebody else's business.
        Ok(files.map(|files| Self::Tar { file: Arc::new(file), files }))
    }

    fn find(&self, name: &str) -> Option<(Arc<dyn LayerSource>, u64)> {
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                let metadata = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
                Some((Arc::new(path), metadata.len()))
            }
            Self::Tar { file, files } => {
                let (start, size) = *files.get(name)?;
                Some((Arc::new(Part { file: Arc::clone(file), start, size }), size))
            }
        }
    }

    /// A small file.
    fn bytes(&self, name: &str) -> Result<Vec<u8>, LayerError> {
        let missing = || LayerError::image("the archive", format!("`{}` is not in it", name.escape_debug()));
        let (source, size) = self.find(name).ok_or_else(missing)?;
        if size > MAX_JSON {
            return Err(LayerError::image(name, format!("it has {size} bytes, more than {MAX_JSON}")));
        }
        let mut bytes = Vec::new();
        let read = source.open().and_then(|reader| reader.take(MAX_JSON).read_to_end(&mut bytes));
        read.map_err(|source| LayerError::Read { layer: name.to_owned(), source })?;
        Ok(bytes)
    }

    /// A small blob, whose digest is checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayerError> {
        let digest = descriptor.digest().to_string();
        let bytes = self.bytes(&blob_name(&digest))?;
        let real = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if real != digest {
            return Err(LayerError::image(
                digest,
                format!("its content has the digest {real}: it is damaged"),
            ));
        }
        Ok(bytes)
    }

    fn layout(&self, platform: &Platform) -> Result<Vec<ArchivedImage>, LayerError> {
        let index: ImageIndex = parse("index.json", &self.bytes("index.json")?)?;
        let mut images = Vec::new();
        for descriptor in index.manifests() {
            let annotations = descriptor.annotations().iter().flatten();
            let tags =
                annotations.filter(|(key, _)| *key == REFERENCE).map(|(_, name)| name.clone()).collect();
            let mut manifest = descriptor.clone();
            if *manifest.media_type() == MediaType::ImageIndex || is_list(&manifest) {
                let inner: ImageIndex = parse("an index", &self.blob(&manifest)?)?;
                manifest = select(&inner, platform)?.clone();
            }
            images.push(self.image(&manifest, tags)?);
        }
        Ok(images)
    }

    fn image(&self, descriptor: &Descriptor, tags: Vec<String>) -> Result<ArchivedImage, LayerError> {
        let manifest: ImageManifest = parse("a manifest", &self.blob(descriptor)?)?;
        let config: ImageConfiguration = parse("a configuration", &self.blob(manifest.config())?)?;
        check_layers(manifest.layers(), config.rootfs().diff_ids())?;
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers().iter().zip(config.rootfs().diff_ids()) {
            let name = blob_name(layer.digest().as_ref());
            let missing = || LayerError::image("the archive", format!("the layer {name} is not in it"));
            let (source, _) = self.find(&name).ok_or_else(missing)?;
            layers.push(Layer::new(source, layer, diff_id)?);
        }
        let (manifest, id) = (descriptor.digest().to_string(), manifest.config().digest().to_string());
        Ok(ArchivedImage { tags, manifest, id, config, layers })
    }

    fn saved(&self) -> Result<Vec<ArchivedImage>, LayerError> {
        let list: Vec<Saved> = parse("manifest.json", &self.bytes("manifest.json")?)?;
        list.into_iter().map(|saved| self.saved_image(saved)).collect()
    }

    fn saved_image(&self, saved: Saved) -> Result<ArchivedImage, LayerError> {
        let bytes = self.bytes(&saved.config)?;
        let config: ImageConfiguration = parse(&saved.config, &bytes)?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != saved.layers.len() || diff_ids.is_empty() || diff_ids.len() > MAX_LAYERS {
            let problem = format!("it has {} layers and {} digests", saved.layers.len(), diff_ids.len());
            return Err(LayerError::image("the image", problem));
        }
        let mut layers = Vec::new();
        for (name, diff_id) in saved.layers.iter().zip(diff_ids) {
            let missing = || LayerError::image("the archive", format!("the layer {name} is not in it"));
            let (source, size) = self.find(name).ok_or_else(missing)?;
            layers.push(Layer::unnamed(source, diff_id, size, diff_id)?);
        }
        let id = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let tags = saved.repo_tags.unwrap_or_default();
        Ok(ArchivedImage { tags, manifest: id.clone(), id, config, layers })
    }
}

/// Names, places and sizes of the files in a tar archive; nothing if it is none.
fn contents(file: &File) -> Option<HashMap<String, (u64, u64)>> {
    let limits = Limits::default();
    let mut at = Counting { file, position: 0 };
    let mut files = HashMap::new();
    // The reader takes no more than it needs, so its place is known after each header.
    let mut reader = Reader::new(&mut at, &limits);
    for _ in 0..limits.entries {
        let Ok(Some(entry)) = reader.next() else { break };
        if entry.kind == Kind::File {
            let name = text(entry.path.strip_prefix(b"./").unwrap_or(&entry.path));
            files.insert(name, (reader.source().position, entry.size));
            // A root file system has many files, and these are not among the first.
            if files.len() > 100_000 {
                break;
            }
        }
        reader.seek_content().ok()?;
    }
    (!files.is_empty()).then_some(files)
}

/// A file whose place is known.
pub(crate) struct Counting<'a> {
    file: &'a File,
    pub(crate) position: u64,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let length = self.file.read_at(buffer, self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Reader<'_, &mut Counting<'_>> {
    /// Goes past the current entry's content without reading it.
    fn seek_content(&mut self) -> io::Result<()> {
        let skipped = self.take_content();
        self.source().position = self
            .source()
            .position
            .checked_add(skipped)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(())
    }
}

fn is_list(descriptor: &Descriptor) -> bool {
    descriptor.media_type().to_string() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, LayerError> {
    serde_json::from_slice(bytes).map_err(|error| LayerError::image(what, error.to_string()))
}
