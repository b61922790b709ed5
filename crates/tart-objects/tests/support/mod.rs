//! What tests of all stores share.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use tart_objects::{Download, ObjectError, ObjectStore, Transfer};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn archive(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub(crate) async fn contents(store: &ObjectStore, name: &str) -> Result<Vec<u8>, ObjectError> {
    bytes(store.get(name, Transfer::Whole, LIMIT).await?).await
}

pub(crate) async fn bytes(mut download: Download) -> Result<Vec<u8>, ObjectError> {
    let mut bytes = Vec::new();
    while let Some(piece) = download.chunk().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
