//! The guest's first file system: the agent and the kernel's modules.

use crate::{
    cpio::Archive,
    error::{AssetError, Result},
    kernel::{DEMAND, DEMAND_INDEX, MODULE},
    model::Kind,
    store::{Manifest, Opened, Store, key_of},
};

/// Changes with the layout.
const LAYOUT: &str = "2";

/// The key of the initramfs of a kernel and an agent.
pub(crate) fn key(kernel: &Manifest, agent: &[u8]) -> String {
    let modules = kernel.files.iter().filter(|file| {
        file.role == DEMAND_INDEX || [MODULE, DEMAND].iter().any(|role| file.role.starts_with(role))
    });
    let modules: Vec<&str> = modules.flat_map(|file| [&*file.role, &*file.digest]).collect();
    let agent = crate::store::digest(agent);
    key_of(&[&[LAYOUT, &agent], &modules[..]].concat())
}

/// Packs it.
pub(crate) fn build(store: &Store, _key: &str, kernel: &Opened, agent: &[u8]) -> Result<Manifest> {
    store.progress().step("packing the initramfs");
    let read = |file| {
        let path = kernel.path_of(file);
        std::fs::read(&path).map_err(|source| AssetError::Io { action: "read", path, source })
    };
    let mut modules = Modules::default();
    for file in &kernel.manifest.files {
        if let Some(name) = file.role.strip_prefix(MODULE) {
            modules.at_start.push((name, read(file)?));
        } else if let Some(name) = file.role.strip_prefix(DEMAND) {
            modules.on_demand.push((name, read(file)?));
        } else if file.role == DEMAND_INDEX {
            modules.index = read(file)?;
        }
    }
    let archive =
        pack(agent, &modules).map_err(|error| AssetError::malformed("the initramfs", error.to_string()))?;
    let release = kernel.manifest.detail("release").unwrap_or_default().to_owned();
    Ok(Manifest {
        kind: Kind::Initrd,
        name: release.clone(),
        files: vec![store.add_bytes("initrd", &archive)?],
        details: vec![("kernel".into(), release), ("agent".into(), crate::store::digest(agent))],
        ..Manifest::default()
    })
}

/// The modules of an initramfs: file names and contents.
#[derive(Debug, Default)]
struct Modules<'a> {
    /// Loaded at the start, in this order.
    at_start: Vec<(&'a str, Vec<u8>)>,
    on_demand: Vec<(&'a str, Vec<u8>)>,
    /// Tells which of the latter are asked for by which names.
    index: Vec<u8>,
}

/// The archive. It is not compressed: the kernel is faster that way.
fn pack(agent: &[u8], modules: &Modules<'_>) -> Result<Vec<u8>, crate::cpio::TooLarge> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "run", "sys"] {
        archive.directory(directory, 0o755)?;
    }
    archive.directory("tmp", 0o1777)?;
    // The kernel opens it for the first process before that can mount anything.
    archive.device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, agent)?;
    if !modules.at_start.is_empty() || !modules.on_demand.is_empty() {
        archive.directory("modules", 0o755)?;
        let order: String = modules.at_start.iter().map(|(name, _)| format!("{name}\n")).collect();
        archive.file("modules/order", 0o644, order.as_bytes())?;
        archive.file("modules/demand", 0o644, &modules.index)?;
        for (name, contents) in modules.at_start.iter().chain(&modules.on_demand) {
            archive.file(&format!("modules/{name}"), 0o644, contents)?;
        }
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::samples::list;

    #[test]
    fn the_agent_finds_its_modules() {
        let modules = Modules {
            at_start: vec![("virtio.ko", b"1".to_vec()), ("virtio_blk.ko", b"22".to_vec())],
            on_demand: vec![("veth.ko", b"333".to_vec())],
            index: b"veth\tveth.ko\n".to_vec(),
        };
        insta::assert_snapshot!(list(&pack(b"agent", &modules).unwrap()), @"
        040755 0 dev
        040755 0 proc
        040755 0 run
        040755 0 sys
        041777 0 tmp
        020600 0 dev/console
        100755 5 init
        040755 0 modules
        100644 24 modules/order
        100644 13 modules/demand
        100644 1 modules/virtio.ko
        100644 2 modules/virtio_blk.ko
        100644 3 modules/veth.ko
        000000 0 TRAILER!!!
        ");
    }

    #[test]
    fn a_monolithic_kernel_needs_no_modules() {
        assert!(!list(&pack(b"agent", &Modules::default()).unwrap()).contains("modules"));
    }
}
