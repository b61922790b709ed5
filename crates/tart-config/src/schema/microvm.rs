//! Tart's own keys: the VM of a job.

use super::{Default, Key, Kind, Section, flag, key, unset, with};

/// The most virtual processors a VM may be given.
const PROCESSORS: Kind = Kind::Int(1, 1024);

pub(super) static SECTIONS: &[Section] = &[
    Section {
        path: "runners.microvm",
        repeated: false,
        meaning: "The VM that each job gets. These keys are Tart's own.",
        keys: &[
            Key {
                name: "driver",
                alias: Some("vmm"),
                kind: Kind::Choice(&["auto", "qemu", "firecracker"]),
                default: Default::Toml("\"auto\""),
                meaning: "The virtual machine monitor; `auto` is QEMU, or Firecracker where `firecracker` is set",
            },
            unset(
                "firecracker",
                Kind::Path,
                "The Firecracker program, 1.7 or later; without it TART_FIRECRACKER, then that of the root helper or the search path",
            ),
            key(
                "jailer",
                Kind::Path,
                Default::Words(
                    "TART_JAILER, then that of the root helper or, for root, the one installed with Firecracker",
                ),
                "Firecracker's jailer, which puts each VM's monitor into a jail as a user of its own; `none` for no jail",
            ),
            unset("cpu_template", Kind::Text, "Name of one of Firecracker's CPU templates, such as `T2`"),
            with(
                "huge_pages",
                Kind::Choice(&["none", "2M", "transparent"]),
                "\"none\"",
                "Pages of the memory of Firecracker's guests; `2M` are those that the administrator reserved",
            ),
            with(
                "snapshot_memory",
                Kind::Choice(&["file", "uffd"]),
                "\"file\"",
                "How Firecracker's guests get memory that was saved: from a `file`, or page by page (`uffd`), as huge pages always",
            ),
            flag("balloon", "Firecracker's guests give memory back that they do not use"),
            unset(
                "disk_bandwidth",
                Kind::Size,
                "Bytes in a second that a VM reads from its disks and writes to them; with QEMU where cgroups have `io`",
            ),
            with(
                "uid_base",
                Kind::Int(1, 4_294_900_000),
                "1879048192",
                "Where Tart runs as root, monitors run as users and groups from this one on, each VM as one of its own",
            ),
            with(
                "uid_count",
                Kind::Int(0, 65_536),
                "4096",
                "How many of these users there are, and so VMs at a time on this host; 0 runs monitors as Tart's user",
            ),
            key(
                "cgroup_parent",
                Kind::Text,
                Default::Words("the service's own, else `tart` for root"),
                "The cgroup (version 2) below which each VM has one with limits of memory, threads, processor and disk",
            ),
            key(
                "root_helper",
                Kind::Path,
                Default::Words("`/run/tart/root-helper.sock` if it is there and Tart is not root"),
                "The socket of `tart root-helper`, which makes networks, users and jails of VMs for a Tart that is not root",
            ),
            with(
                "accel",
                Kind::Choice(&["auto", "kvm", "tcg"]),
                "\"auto\"",
                "`kvm` needs `/dev/kvm`, `tcg` emulates and is slow, `auto` takes KVM if it can",
            ),
            key("kernel", Kind::Path, Default::Words("the installed kernel"), "The guest's kernel"),
            key(
                "initrd",
                Kind::Path,
                Default::Words("the installed initramfs"),
                "The guest's initramfs, which holds the agent",
            ),
            unset("kernel_args", Kind::Text, "Words added to the kernel's command line"),
            key(
                "image",
                Kind::Text,
                Default::Words("the installed root disk"),
                "The image of jobs if `runners.docker.image` names none; a name, or the absolute path of a root file system",
            ),
            unset(
                "image_quota",
                Kind::Size,
                "How much disk fetched images may take; those that were not used for longest are removed",
            ),
            unset(
                "insecure_registries",
                Kind::List,
                "Registries, as `host` or `host:port`, that may speak plain HTTP or have any certificate",
            ),
            key(
                "registry_certs_dir",
                Kind::Path,
                Default::Words("`/etc/docker/certs.d`"),
                "Certificates of registries: `HOST:PORT/ca.crt`, `client.cert` and `client.key`",
            ),
            unset(
                "registry_mirrors",
                Kind::List,
                "Addresses of registries that are asked for Docker Hub's images first",
            ),
            with("vcpus", PROCESSORS, "2", "Virtual processors of a VM"),
            with("memory", Kind::Size, "\"1g\"", "Memory of a VM"),
            with(
                "disk",
                Kind::Size,
                "\"20g\"",
                "Size of the scratch disk of a VM; it takes room on the host only as it fills",
            ),
            key(
                "vcpus_max",
                PROCESSORS,
                Default::Words("`vcpus`"),
                "The most that a job may ask for with `TART_CPUS`",
            ),
            key(
                "memory_max",
                Kind::Size,
                Default::Words("`memory`"),
                "The most that a job may ask for with `TART_MEMORY`",
            ),
            key(
                "disk_max",
                Kind::Size,
                Default::Words("`disk`"),
                "The most that a job may ask for with `TART_DISK`",
            ),
            with("boot_timeout", Kind::Duration, "\"2m\"", "How long a VM may take until its agent answers"),
            with(
                "cache_quota",
                Kind::Size,
                "\"10g\"",
                "What caches of jobs on this host may take; those not used for longest go",
            ),
            with(
                "snapshots",
                Kind::Bool,
                "true",
                "Whether the VMs of jobs go on from a snapshot of a booted one, which saves each its boot",
            ),
            key(
                "state_dir",
                Kind::Path,
                Default::Words("`/var/lib/tart` for root, else `~/.local/state/tart`"),
                "Where the host keeps disks and sockets of running VMs",
            ),
            key(
                "assets_dir",
                Kind::Path,
                Default::Words("found by `tart`"),
                "Where the installed kernel, initramfs and root disks are",
            ),
        ],
    },
    Section {
        path: "runners.microvm.pool",
        repeated: false,
        meaning: "VMs that are kept ready for jobs to come. Each serves one job. It needs `snapshots`.",
        keys: &[unset("memory", Kind::Size, "The most memory that VMs without a job may have together")],
    },
    Section {
        path: "runners.microvm.pool.policy",
        repeated: true,
        meaning: "How many VMs are kept ready, and when: of the policies that hold, the last one counts.",
        keys: &[
            with(
                "periods",
                Kind::List,
                "[\"* * * * *\"]",
                "When it holds, as crontab has it: minute, hour, day, month, day of the week",
            ),
            unset(
                "timezone",
                Kind::Text,
                "The time zone of `periods`, such as `Europe/Berlin`; else the host's",
            ),
            with("idle_count", Kind::Int(0, 1000), "0", "VMs that are ready"),
            with("idle_time", Kind::Duration, "\"20m\"", "How long a VM beyond these is kept"),
            with(
                "scale_factor",
                Kind::Factor,
                "0.0",
                "VMs that are ready beside these, for each job that runs: with 0.5, one for every two",
            ),
            with(
                "scale_factor_limit",
                Kind::Int(0, 1000),
                "100",
                "The most VMs that `scale_factor` makes ready",
            ),
        ],
    },
    Section {
        path: "runners.microvm.network",
        repeated: false,
        meaning: "The network of the VM.",
        keys: &[
            with(
                "mode",
                Kind::Choice(&["auto", "netns", "relay", "passt", "none"]),
                "\"auto\"",
                "How the VM reaches the network: `netns` needs root, `passt` does not, `relay` reaches only GitLab, `none` \
                 nothing; `auto` takes the first of these that works",
            ),
            unset("dns", Kind::List, "Addresses of the name servers, instead of the host's"),
            unset("dns_search", Kind::List, "Domains that short names are looked up in"),
            unset("extra_hosts", Kind::List, "Entries of `/etc/hosts`, as `name:address`"),
            with(
                "egress",
                Kind::Choice(&["public", "listed"]),
                "\"public\"",
                "What `netns` lets a job reach: public addresses and `allow`, or only `allow`; jobs narrow it with \
                 `TART_EGRESS_ALLOW`",
            ),
            unset(
                "allow",
                Kind::List,
                "What jobs may reach, also in private networks: `10.0.0.0/8`, `[fd00::/8]:443`, `*.example.com:80-90`",
            ),
            unset("deny", Kind::List, "What jobs may not reach, whatever `allow` says, in the same form"),
            unset(
                "bandwidth",
                Kind::Size,
                "The most bytes that a job's network device carries in a second, each way, with `netns`",
            ),
        ],
    },
];
