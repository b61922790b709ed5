//! Guest kernels: the distribution's or the user's, with their modules.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    bzimage::{self, MAX_KERNEL},
    deb,
    error::{AssetError, IoContext, Result},
    model::{KernelSource, Kind},
    modules::{self, Modules},
    packages,
    store::{Manifest, Store, key_of},
};

/// Roles of modules: this and the file name, in the order to load them.
pub(crate) const MODULE: &str = "module:";

/// Role of a module that is loaded when the kernel asks for it, before its file name.
pub(crate) const DEMAND: &str = "demand:";

/// Role of their list.
pub(crate) const DEMAND_INDEX: &str = "demand";

/// Changes with what is made of a kernel.
const LAYOUT: &str = "2";

/// All modules of a package together, in bytes.
const MAX_MODULES: usize = 1 << 30;

/// Names the package that was chosen last: newer ones are looked for only on request.
const CHOICE: &str = "packages/kernel";

/// The packages with kernels for guests, best first. Their names stay while their versions change.
const PACKAGES: &[&str] = &["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"];

/// The key of a kernel.
pub(crate) fn key(store: &Store, source: &KernelSource) -> Result<String> {
    match source {
        KernelSource::Distribution => Ok(choice(store)?.key()),
        KernelSource::File { kernel, modules } => {
            let file = File::open(kernel).at("open the kernel", kernel)?;
            let (digest, _) = crate::store::hash(&file).at("read the kernel", kernel)?;
            let modules = modules.as_deref().map(read_modules).transpose()?.map(|modules| modules.digest());
            Ok(key_of(&[LAYOUT, "file", &digest, &modules.unwrap_or_default()]))
        }
    }
}

/// Unpacks a kernel into the store.
pub(crate) fn build(store: &Store, _key: &str, source: &KernelSource) -> Result<Manifest> {
    match source {
        KernelSource::Distribution => from_package(store, &choice(store)?),
        KernelSource::File { kernel, modules } => from_file(store, kernel, modules.as_deref()),
    }
}

/// Looks for a package anew next time.
pub(crate) fn forget_choice(store: &Store) -> Result<()> {
    let path = store.root().join(CHOICE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// The package that was chosen last, here or by the machine's store, else the best there is.
fn choice(store: &Store) -> Result<packages::Package> {
    for root in store.roots() {
        let text = fs::read_to_string(root.join(CHOICE)).unwrap_or_default();
        if let Some(package) = packages::Package::parse(text.trim()) {
            return Ok(package);
        }
    }
    store.progress().step("looking for a guest kernel");
    let package = packages::best(PACKAGES)?;
    store.replace(&store.root().join(CHOICE), package.to_string().as_bytes())?;
    Ok(package)
}

impl packages::Package {
    fn key(&self) -> String {
        key_of(&[LAYOUT, "package", &self.name, &self.version])
    }
}

fn from_package(store: &Store, package: &packages::Package) -> Result<Manifest> {
    store.progress().step(&format!("downloading {}", package.name));
    let path = packages::download(package, &store.packages())?;
    store.progress().step(&format!("unpacking {}", package.name));
    let manifest = read_package(store, &path, package);
    // Its files are in the store now; another version of it would be another download.
    let _gone = fs::remove_file(&path);
    manifest
}

/// Unpacks a kernel's package.
fn read_package(store: &Store, path: &Path, package: &packages::Package) -> Result<Manifest> {
    let mut parts = Parts::default();
    let wanted = |path: &str| {
        path.starts_with("boot/vmlinuz-")
            || path.ends_with("/modules.builtin")
            || modules::name_of(path).is_some()
    };
    let file = File::open(path).at("open", path)?;
    deb::read(file, MAX_KERNEL, wanted, |path, contents| parts.take(path, contents)).at("unpack", path)?;
    let image = parts
        .image
        .ok_or_else(|| AssetError::malformed(format!("the package {}", package.name), "no kernel in it"))?;
    let details = vec![("package".into(), package.to_string())];
    store_kernel(store, &package.name, &image, Some(&parts.modules), details)
}

#[derive(Default)]
struct Parts {
    image: Option<Vec<u8>>,
    modules: Modules,
    size: usize,
}

impl Parts {
    fn take(&mut self, path: &str, contents: Vec<u8>) -> io::Result<()> {
        self.size += contents.len();
        if self.size > MAX_MODULES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too many modules"));
        }
        if path.starts_with("boot/vmlinuz-") {
            self.image = Some(contents);
        } else if path.ends_with("/modules.builtin") {
            self.modules.set_builtin(&String::from_utf8_lossy(&contents));
        } else {
            self.modules.insert(path, contents);
        }
        Ok(())
    }
}

fn from_file(store: &Store, kernel: &Path, modules: Option<&Path>) -> Result<Manifest> {
    store.progress().step(&format!("unpacking {}", kernel.display()));
    let image = read_bounded(kernel, MAX_KERNEL)?;
    let modules = modules.map(read_modules).transpose()?;
    let name = kernel.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let details = vec![("source".into(), kernel.display().to_string())];
    store_kernel(store, &name, &image, modules.as_ref(), details)
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).at("open", path)?;
    crate::decompress::all(file, limit).at("read", path)
}

/// Reads a directory like `/lib/modules/6.1.0`.
fn read_modules(root: &Path) -> Result<Modules> {
    let mut parts = Parts::default();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).at("list", &directory)? {
            let entry = entry.at("list", &directory)?;
            let kind = entry.file_type().at("look at", entry.path())?;
            let path: PathBuf = entry.path();
            let text = path.to_string_lossy();
            // Links, as `build`, lead elsewhere.
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file()
                && (text.ends_with("/modules.builtin") || modules::name_of(&text).is_some())
            {
                let contents = read_bounded(&path, MAX_KERNEL)?;
                parts.take(&text, contents).at("read", &path)?;
            }
        }
    }
    Ok(parts.modules)
}

fn store_kernel(
    store: &Store,
    name: &str,
    image: &[u8],
    modules: Option<&Modules>,
    mut details: Vec<(String, String)>,
) -> Result<Manifest> {
    let kernel = bzimage::open(image)?;
    let mut files = vec![
        store.add_bytes("kernel", image)?,
        store.add_bytes("vmlinux", kernel.vmlinux.as_deref().unwrap_or(image))?,
    ];
    for module in modules.map(Modules::for_guest).transpose()?.unwrap_or_default() {
        files.push(store.add_bytes(&format!("{MODULE}{}.ko", module.name), &module.contents)?);
    }
    if let Some(demand) =
        modules.map(Modules::on_demand).transpose()?.filter(|demand| !demand.index.is_empty())
    {
        files.push(store.add_bytes(DEMAND_INDEX, demand.index.as_bytes())?);
        for module in demand.modules {
            files.push(store.add_bytes(&format!("{DEMAND}{}.ko", module.name), &module.contents)?);
        }
    }
    details.insert(0, ("release".into(), kernel.release.unwrap_or_default()));
    Ok(Manifest { kind: Kind::Kernel, name: name.to_owned(), files, details, ..Manifest::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{elf::samples::elf, modules::samples};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("assets")).unwrap();
        (dir, store)
    }

    fn bzimage() -> Vec<u8> {
        let payload = zstd::encode_all(&*elf(".text", b"code"), 1).unwrap();
        bzimage::samples::bzimage(&payload, "6.12.9-cloud (x)")
    }

    fn roles(manifest: &Manifest) -> Vec<&str> {
        manifest.files.iter().map(|file| &*file.role).collect()
    }

    #[test]
    fn a_package_becomes_kernel_and_ordered_modules() {
        let (dir, store) = store();
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("boot/vmlinuz-6.12.9-cloud".into(), bzimage()),
            ("boot/config-6.12.9-cloud".into(), vec![0; 9]),
            ("lib/modules/6.12.9-cloud/modules.builtin".into(), samples::BUILTIN.into()),
        ];
        files.extend(
            samples::all().into_iter().map(|(path, file)| (format!("lib/modules/6.12.9-cloud/{path}"), file)),
        );
        let borrowed: Vec<_> = files.iter().map(|(path, file)| (&**path, &**file)).collect();
        let path = dir.path().join("kernel.deb");
        fs::write(&path, deb::samples::package(&borrowed)).unwrap();
        let package = packages::Package { name: "linux-image".into(), version: "6.12.9-1".into() };
        let manifest = read_package(&store, &path, &package).unwrap();
        insta::assert_debug_snapshot!(roles(&manifest), @r#"
        [
            "kernel",
            "vmlinux",
            "module:virtio_ring.ko",
            "module:virtio.ko",
            "module:virtio_mmio.ko",
            "module:virtio_blk.ko",
            "module:squashfs.ko",
            "module:overlay.ko",
            "module:virtio_rng.ko",
        ]
        "#);
        assert_eq!(manifest.detail("release"), Some("6.12.9-cloud"));
        // Nothing but the inputs decides.
        assert_eq!(read_package(&store, &path, &package).unwrap(), manifest);
    }

    #[test]
    fn a_users_kernel_may_have_no_modules() {
        let (dir, store) = store();
        let path = dir.path().join("vmlinux");
        fs::write(&path, elf(".rodata", b"Linux version 6.1.9-fc (x)")).unwrap();
        let source = KernelSource::File { kernel: path, modules: None };
        let manifest = build(&store, "", &source).unwrap();
        assert_eq!(roles(&manifest), ["kernel", "vmlinux"]);
        assert_eq!(manifest.files[0].digest, manifest.files[1].digest);
        assert_eq!(manifest.detail("release"), Some("6.1.9-fc"));
    }

    #[test]
    fn a_users_modules_are_taken_from_their_directory() {
        let (dir, store) = store();
        let root = dir.path().join("modules");
        for (path, contents) in samples::all() {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        fs::write(root.join("modules.builtin"), samples::BUILTIN).unwrap();
        std::os::unix::fs::symlink("/", root.join("build")).unwrap();
        let path = dir.path().join("bzImage");
        fs::write(&path, bzimage()).unwrap();
        let source = KernelSource::File { kernel: path, modules: Some(root) };
        assert_eq!(roles(&build(&store, "", &source).unwrap()).len(), 9);
    }
}
