//! The kernel modules that a guest needs before it has any file system, and the order to load them in.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use crate::{
    decompress,
    elf::Elf,
    error::{AssetError, Result},
};

/// Without these drivers, built in or as modules, no job can run.
const REQUIRED: &[&str] = &["virtio_mmio", "virtio_blk", "virtio_console", "squashfs", "overlay", "ext4"];

/// These make the guest better.
const OPTIONAL: &[&str] =
    &["virtio_net", "virtio_rng", "virtio_balloon", "vmw_vsock_virtio_transport", "erofs"];

/// Names of modules that the kernel may ask for while a job runs; a final `*` stands for anything. They are what
/// containers, their networks and builds of disk images need.
const ON_DEMAND: &[&str] = &[
    "8021q",
    "arp_tables",
    "arptable_filter",
    "br_netfilter",
    "bridge",
    "configfs",
    "dm_mod",
    "dummy",
    "ebtable_*",
    "ebtables",
    "fuse",
    "inet_diag",
    "ip6_tables",
    "ip6t_*",
    "ip6table_*",
    "ip_set*",
    "ip_tables",
    "ip_vs*",
    "ipip",
    "ipt_*",
    "iptable_*",
    "ipvlan",
    "isofs",
    "loop",
    "macvlan",
    "nf_conntrack*",
    "nf_log*",
    "nf_nat*",
    "nf_tables",
    "nfnetlink*",
    "nft_*",
    "sch_fq",
    "sch_htb",
    "sch_ingress",
    "sch_netem",
    "sch_tbf",
    "sit",
    "tap",
    "tcp_diag",
    "tun",
    "udp_diag",
    "veth",
    "vfat",
    "vxlan",
    "wireguard",
    "x_tables",
    "xt_*",
];

/// Largest module, in bytes, uncompressed.
const MAX_MODULE: u64 = 64 << 20;

/// The modules of a kernel by name, as packaged: possibly compressed.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    files: BTreeMap<String, Vec<u8>>,
    builtin: BTreeSet<String>,
}

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
}

/// Modules to load when the kernel asks for them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OnDemand {
    /// Their files, but those that are loaded at the start.
    pub(crate) modules: Vec<Module>,
    /// What the agent reads: for each module its names, a tab, and the files to load in order.
    pub(crate) index: String,
}

/// The name of a module's file: hyphens and underscores are the same to the kernel.
pub(crate) fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let name = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|end| file.strip_suffix(end))?;
    (!name.is_empty()).then(|| name.replace('-', "_"))
}

impl Modules {
    /// Adds a module's file.
    pub(crate) fn insert(&mut self, path: &str, contents: Vec<u8>) {
        if let Some(name) = name_of(path) {
            self.files.insert(name, contents);
        }
    }

    /// Reads `modules.builtin`.
    pub(crate) fn set_builtin(&mut self, list: &str) {
        self.builtin = list.lines().filter_map(name_of).collect();
    }

    /// Names all of them and their contents.
    pub(crate) fn digest(&self) -> String {
        let files =
            self.files.iter().map(|(name, contents)| format!("{name} {}", crate::store::digest(contents)));
        let all: Vec<String> = files.chain(self.builtin.iter().cloned()).collect();
        crate::store::digest(all.join("\n").as_bytes())
    }

    /// Everything a guest needs, each module after those it needs.
    pub(crate) fn for_guest(&self) -> Result<Vec<Module>> {
        for name in REQUIRED {
            if !self.builtin.contains(*name) && !self.files.contains_key(*name) {
                let reason = format!("it has no {name}, neither as a module nor built in");
                return Err(AssetError::malformed("the kernel", reason));
            }
        }
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in REQUIRED.iter().chain(OPTIONAL) {
            if self.files.contains_key(*name) {
                self.add(name, &mut seen, &mut order)?;
            }
        }
        Ok(order)
    }

    /// What a guest may come to need. A module that cannot be had with all it needs is left out.
    pub(crate) fn on_demand(&self) -> Result<OnDemand> {
        let at_start: BTreeSet<_> = self.for_guest()?.into_iter().map(|module| module.name).collect();
        let wanted = self.files.keys().filter(|name| ON_DEMAND.iter().any(|wanted| fits(wanted, name)));
        let mut files = BTreeMap::new();
        let mut index = String::new();
        for name in wanted.filter(|name| !at_start.contains(*name)) {
            let mut order = Vec::new();
            if self.add(name, &mut at_start.clone(), &mut order).is_err() {
                continue;
            }
            let names = order.last().map(|module| names(name, &module.contents)).unwrap_or_default();
            let list: Vec<_> = order.iter().map(|module| format!("{}.ko", module.name)).collect();
            index.push_str(&format!("{}\t{}\n", names.join(" "), list.join(" ")));
            files.extend(order.into_iter().map(|module| (module.name, module.contents)));
        }
        let modules = files.into_iter().map(|(name, contents)| Module { name, contents }).collect();
        Ok(OnDemand { modules, index })
    }

    /// Depth is bounded by `seen`: a module that needs itself is visited once.
    fn add(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let what = || format!("the kernel's module {name}");
        let file = self
            .files
            .get(name)
            .ok_or_else(|| AssetError::malformed(what(), "another module needs it, but it is missing"))?;
        let contents = unpack(file).map_err(|error| AssetError::malformed(what(), error.to_string()))?;
        let needs =
            depends(&contents).ok_or_else(|| AssetError::malformed(what(), "it is no module for x86-64"))?;
        for need in &needs.hard {
            self.add(need, seen, order)?;
        }
        // These may also be names of something that is built in or does not exist.
        for need in needs.soft.iter().filter(|need| self.files.contains_key(*need)) {
            self.add(need, seen, order)?;
        }
        order.push(Module { name: name.to_owned(), contents });
        Ok(())
    }
}

fn unpack(file: &[u8]) -> io::Result<Vec<u8>> {
    decompress::first_stream(file, MAX_MODULE)
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// By what names the kernel asks for a module. Those of devices are left out: a guest has what it starts with.
fn names(name: &str, module: &[u8]) -> Vec<String> {
    let info = Elf::parse(module).and_then(|elf| elf.section(".modinfo")).unwrap_or_default();
    let fields = info.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
    let aliases = fields.filter_map(|field| field.strip_prefix("alias=")).filter(|alias| {
        let start = alias.strip_suffix('*').unwrap_or(alias);
        !start.is_empty() && !start.contains(|c: char| c == ':' || c == '*' || c.is_whitespace())
    });
    let mut names = vec![name.to_owned()];
    names.extend(aliases.map(|alias| alias.replace('-', "_")));
    names
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    hard: Vec<String>,
    /// To be loaded before, if they exist.
    soft: Vec<String>,
}

/// What a module says of others.
fn depends(module: &[u8]) -> Option<Needs> {
    let info = Elf::parse(module)?.section(".modinfo")?;
    let mut needs = Needs::default();
    for field in info.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok()) {
        let names = |list: &str, at: &[char]| -> Vec<String> {
            list.split(at).filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
        };
        if let Some(list) = field.strip_prefix("depends=") {
            needs.hard = names(list, &[',']);
        } else if let Some(list) = field.strip_prefix("softdep=pre: ") {
            let before = list.split("post:").next().unwrap_or_default();
            needs.soft.extend(names(before, &[' ', ',']));
        }
    }
    Some(needs)
}

/// Modules for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    pub(crate) fn module(info: &str) -> Vec<u8> {
        crate::elf::samples::elf(".modinfo", info.as_bytes())
    }

    /// All that is required: some built in, some compressed, some with dependencies.
    pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
        let xz =
            decompress::all(liblzma::read::XzEncoder::new(&*module("depends=virtio"), 0), 1 << 20).unwrap();
        vec![
            ("kernel/drivers/virtio/virtio_mmio.ko.xz", xz),
            ("kernel/drivers/virtio/virtio.ko", module("depends=virtio-ring\0license=GPL")),
            ("kernel/drivers/virtio/virtio_ring.ko", module("depends=")),
            ("kernel/drivers/block/virtio_blk.ko", module("depends=virtio,virtio_ring")),
            (
                "kernel/drivers/char/virtio-rng.ko.zst",
                zstd::encode_all(&*module("depends=virtio"), 1).unwrap(),
            ),
            ("kernel/fs/squashfs/squashfs.ko", module("softdep=pre: crc32c virtio-net post: ext4")),
            ("kernel/fs/overlayfs/overlay.ko", module("")),
            ("kernel/sound/beep.ko", module("")),
        ]
    }

    pub(crate) const BUILTIN: &str = "kernel/fs/ext4/ext4.ko\nkernel/drivers/char/virtio_console.ko\n";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Modules {
        let mut modules = Modules::default();
        for (path, contents) in samples::all() {
            modules.insert(path, contents);
        }
        modules.set_builtin(samples::BUILTIN);
        modules
    }

    #[test]
    fn modules_come_after_those_they_need() {
        let names: Vec<_> = sample().for_guest().unwrap().into_iter().map(|module| module.name).collect();
        assert_eq!(
            names,
            ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "squashfs", "overlay", "virtio_rng"]
        );
    }

    #[test]
    fn what_may_be_asked_for_has_names_and_an_order() {
        let mut modules = sample();
        modules.insert("veth.ko", samples::module("alias=rtnl-link-veth\0depends="));
        modules.insert("bridge.ko", samples::module("alias=rtnl-link-bridge\0depends=stp,virtio"));
        modules.insert("stp.ko", samples::module("depends=llc"));
        modules.insert("llc.ko", samples::module("alias=net-pf-26\0alias=pci:v1d*\0depends="));
        modules.insert("xt_broken.ko", samples::module("depends=gone"));
        modules.insert("loop.ko", samples::module("alias=block-major-7-*"));
        let demand = modules.on_demand().unwrap();
        insta::assert_snapshot!(demand.index.replace('\t', " <- "), @"
        bridge rtnl_link_bridge <- llc.ko stp.ko bridge.ko
        loop block_major_7_* <- loop.ko
        veth rtnl_link_veth <- veth.ko
        ");
        let files: Vec<_> = demand.modules.iter().map(|module| &*module.name).collect();
        assert_eq!(files, ["bridge", "llc", "loop", "stp", "veth"]);
    }

    #[test]
    fn a_soft_need_that_exists_comes_first() {
        let mut modules = sample();
        modules.insert("virtio_net.ko", samples::module("depends="));
        let names: Vec<_> = modules.for_guest().unwrap().into_iter().map(|module| module.name).collect();
        let at = |name: &str| names.iter().position(|other| other == name).unwrap();
        assert!(at("virtio_net") < at("squashfs"));
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let mut modules = sample();
        modules.files.remove("virtio_ring");
        insta::assert_snapshot!(modules.for_guest().unwrap_err(), @"the kernel's module virtio_ring cannot be used: another module needs it, but it is missing");
        modules.insert("virtio_ring.ko", b"junk".to_vec());
        insta::assert_snapshot!(modules.for_guest().unwrap_err(), @"the kernel's module virtio_ring cannot be used: it is no module for x86-64");
        modules.files.remove("overlay");
        insta::assert_snapshot!(modules.for_guest().unwrap_err(), @"the kernel cannot be used: it has no overlay, neither as a module nor built in");
    }

    #[test]
    fn a_circle_ends() {
        let mut modules = sample();
        modules.insert("virtio_ring.ko", samples::module("depends=virtio_blk"));
        assert_eq!(modules.for_guest().unwrap().len(), 7);
    }

    proptest! {
        #[test]
        fn any_information_is_read(info in ".{0,80}") {
            let _any = depends(&samples::module(&info)).unwrap();
        }
    }
}
