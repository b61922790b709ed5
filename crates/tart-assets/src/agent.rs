//! Finding the guest's agent.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
};

use crate::{
    decompress,
    elf::Elf,
    error::{AssetError, IoContext, Result},
    model::AgentSource,
};

const NAME: &str = "tart-agent";
const SYSTEM: &str = "/usr/lib/tart/tart-agent";

/// The largest agent, in bytes. A debug build has some 60 MiB.
const MAX_SIZE: u64 = 256 << 20;

/// Reads the agent.
pub(crate) fn load(source: &AgentSource) -> Result<Vec<u8>> {
    let embedded = match source {
        AgentSource::File(path) => return read(path),
        AgentSource::Installed => None,
        AgentSource::Embedded(bytes) => Some(*bytes),
    };
    let named = env::var_os("TART_AGENT").filter(|path| !path.is_empty()).map(PathBuf::from);
    let sibling = env::current_exe().ok().map(|exe| exe.with_file_name(NAME));
    // A path that somebody named is meant; another one would surprise.
    if let Some(path) = &named {
        return read(path);
    }
    let places: Vec<PathBuf> = sibling.into_iter().chain([SYSTEM.into()]).collect();
    if let Some(path) = places.iter().find(|path| path.is_file()) {
        return read(path);
    }
    match embedded {
        Some(bytes) => check(bytes.to_vec(), "the embedded agent"),
        None => {
            let looked_at =
                places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            Err(AssetError::NoAgent { looked_at })
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).at("open the guest agent", path)?;
    let bytes = decompress::all(file, MAX_SIZE).at("read the guest agent", path)?;
    check(bytes, &format!("the guest agent {}", path.display()))
}

fn check(bytes: Vec<u8>, what: &str) -> Result<Vec<u8>> {
    let reason = match Elf::parse(&bytes) {
        None => "it is no program for x86-64",
        // The initramfs has no libraries.
        Some(elf) if elf.section(".interp").is_some() => {
            "it is not statically linked; build it with `cargo xtask agent`"
        }
        Some(_) => return Ok(bytes),
    };
    Err(AssetError::malformed(what, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::samples::elf;

    #[test]
    fn only_a_static_program_can_be_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let load_file = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            load(&AgentSource::File(path.clone()))
                .map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), ""))
        };
        assert!(load_file(&elf(".text", b"")).is_ok());
        insta::assert_snapshot!(load_file(&elf(".interp", b"/lib64/ld.so")).unwrap_err(), @"the guest agent /agent cannot be used: it is not statically linked; build it with `cargo xtask agent`");
        insta::assert_snapshot!(load_file(b"#!/bin/sh").unwrap_err(), @"the guest agent /agent cannot be used: it is no program for x86-64");
    }
}
