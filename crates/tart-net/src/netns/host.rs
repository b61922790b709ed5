//! The host's side: what is there once, whatever guests there are, and which slots are whose.
//!
//! Several runners may share a host. Each holds a shared lock while it lives and one lock for each slot it uses; what
//! belongs to an unlocked slot was left by a runner that was killed.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{
    address::{Link, MAX_SLOTS, slot_of},
    busy::Busy,
    routes::{Device, Routes, dropping_chain, mtu, parse_links},
    rules::{self, Connected, Guarded},
    system::{Namespace, get, ip, nft, on_thread, program, set},
};
use crate::NetError;

/// Which host, and what its parts are called.
#[derive(Debug, Clone)]
pub(super) struct HostOptions {
    /// Where locks are.
    pub(super) dir: PathBuf,
    /// How the names of devices begin.
    pub(super) prefix: String,
    /// Name of the host's table of rules.
    pub(super) table: String,
}

/// Where locks of all hosts are: a container with a network of its own is another host.
const LOCKS: &str = "/run/tart-net";

impl HostOptions {
    /// The host that a namespace is of.
    pub(super) fn of(namespace: &Namespace) -> Result<Self, NetError> {
        let key = namespace.key().map_err(|e| NetError::system("identify the host's network", e))?;
        Ok(Self { dir: Path::new(LOCKS).join(key), prefix: "tart-".to_owned(), table: "tart".to_owned() })
    }
}

/// The host, prepared for guests. The last one that is dropped leaves the host as it was.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) namespace: Namespace,
    pub(super) options: HostOptions,
    /// What was found out about it.
    pub(super) facts: Arc<Facts>,
    /// Threads that make and remove what guests have here.
    pub(super) busy: Busy,
    live: File,
    next: AtomicU16,
}

/// What guests have to do with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    /// MTU of the way out.
    pub(super) mtu: u32,
    /// There is a way out by IPv6, and the host can be made to forward it.
    pub(super) ipv6: bool,
    /// The networks that the host is part of.
    pub(super) connected: Connected,
    /// A chain of the host that may drop what guests send.
    pub(super) firewall: Option<String>,
}

/// A number that no other guest of this host has, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) link: Link,
    _lock: File,
}

impl Host {
    /// Prepares the host of a namespace's path, or that of this process.
    pub(super) async fn find(namespace: Option<PathBuf>) -> Result<Arc<Self>, NetError> {
        let prepare = move || {
            let namespace = match &namespace {
                None => Namespace::own(),
                Some(path) => Namespace::open(path),
            };
            let namespace =
                namespace.map_err(|e| NetError::system("open the host's network namespace", e))?;
            let options = HostOptions::of(&namespace)?;
            Self::prepare(namespace, options)
        };
        Ok(Arc::new(on_thread((), prepare).await?))
    }

    /// Prepares the host that the namespace is of. Blocks.
    fn prepare(namespace: Namespace, options: HostOptions) -> Result<Self, NetError> {
        let wanted = options.clone();
        let (facts, live) = namespace.run_blocking(move || prepare(&wanted))?;
        let facts = Arc::new(facts);
        Ok(Self { namespace, options, facts, busy: Busy::default(), live, next: AtomicU16::new(0) })
    }

    /// Takes a free slot. Slots are taken in turn, so that the host has forgotten the connections of the one before.
    pub(super) fn slot(&self) -> Result<Slot, NetError> {
        let Self { options, next, .. } = self;
        for _ in 0..MAX_SLOTS {
            let number = next.fetch_add(1, Ordering::Relaxed) % MAX_SLOTS;
            if let Some(lock) = lock_slot(options, number)? {
                return Ok(Slot { link: Link::new(&options.prefix, number), _lock: lock });
            }
        }
        let full = io::Error::other(format!("all {MAX_SLOTS} networks of this host are in use"));
        Err(NetError::system("take a network for a guest", full))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let options = self.options.clone();
        let ended = self.live.try_clone().map_err(|e| NetError::system("use a lock", e)).and_then(|live| {
            self.namespace.run_blocking(move || {
                let _setup = lock_setup(&options)?;
                if flock(&live, FlockOperation::NonBlockingLockExclusive).is_err() {
                    // Another runner lives. If it ends next, it must find this one gone.
                    return flock(&live, FlockOperation::Unlock)
                        .map_err(|e| NetError::system("release a lock", e));
                }
                restore(&options)?;
                let dir = &options.dir;
                fs::remove_dir_all(dir).map_err(|e| NetError::system(format!("remove {}", dir.display()), e))
            })
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "the host's rules for guests are left behind");
        }
    }
}

/// Held by whoever changes what all runners share.
const SETUP: &str = "setup.lock";
/// Held in common by all runners that live.
const LIVE: &str = "live.lock";
/// How the names of locks of slots begin.
const SLOT: &str = "slot-";
/// What was switched on in the kernel, one setting a line.
const GUARDED: &str = "guarded";

fn prepare(options: &HostOptions) -> Result<(Facts, File), NetError> {
    let _setup = lock_setup(options)?;
    make_dir(&options.dir)?;
    let live = open(&options.dir.join(LIVE))?;
    let alone = flock(&live, FlockOperation::NonBlockingLockExclusive).is_ok();
    if alone {
        restore(options)?;
    }
    flock(&live, FlockOperation::LockShared).map_err(|e| NetError::system("take a lock", e))?;
    let devices = parse_links(&program("ip", &["-json", "link", "show"], "")?);
    let routes = Routes::parse(&program("ip", &["-json", "-4", "route", "show"], "")?);
    let routes6 = Routes::parse(&program("ip", &["-json", "-6", "route", "show"], "")?);
    reap(options, &devices)?;
    let mtu = mtu(&devices, [&routes, &routes6]);
    let own = |routes: &Routes, setting: fn(&str) -> String| -> Vec<String> {
        let others = routes.devices().into_iter().filter(|device| !device.starts_with(&options.prefix));
        others.filter(|device| is_off(&setting(device))).map(str::to_owned).collect()
    };
    let mut guarded = Guarded { ipv4: own(&routes, forwarding), ipv6: Vec::new() };
    let mut ipv6 = routes6.has_default() && mtu >= MIN_MTU6;
    if ipv6 && is_off("ipv6/conf/all/forwarding") {
        // To switch it on for the whole host would end its listening to routers.
        ipv6 = routes6.devices().into_iter().all(|device| get(&forwarding6(device)).is_some());
        guarded.ipv6 = if ipv6 { own(&routes6, forwarding6) } else { Vec::new() };
    }
    if alone {
        guard(options, &guarded)?;
    }
    let chains = program("nft", &["--json", "list", "chains"], "")?;
    let connected = Connected::new(routes.connected().chain(routes6.connected()));
    Ok((Facts { mtu, ipv6, connected, firewall: dropping_chain(&chains) }, live))
}

/// Smallest MTU that IPv6 works with.
const MIN_MTU6: u32 = 1280;

/// Lets devices forward, behind rules that keep them from doing so for others than guests.
fn guard(options: &HostOptions, guarded: &Guarded) -> Result<(), NetError> {
    let ipv4 = guarded.ipv4.iter().map(|device| forwarding(device));
    let settings: Vec<_> = ipv4.chain(guarded.ipv6.iter().map(|device| forwarding6(device))).collect();
    // Whoever comes after a crash has to know what to undo.
    fs::write(options.dir.join(GUARDED), settings.join("\n"))
        .map_err(|e| NetError::system("remember which devices forward", e))?;
    nft(&rules::host(&options.table, &options.prefix, guarded))?;
    settings.iter().try_for_each(|setting| set(setting, "1"))
}

fn forwarding(device: &str) -> String {
    format!("ipv4/conf/{device}/forwarding")
}

/// Of kernels from 6.17 on.
fn forwarding6(device: &str) -> String {
    format!("ipv6/conf/{device}/force_forwarding")
}

fn is_off(setting: &str) -> bool {
    get(setting).is_some_and(|value| value == "0")
}

/// Removes what the host has of guests' networks when no runner lives.
fn restore(options: &HostOptions) -> Result<(), NetError> {
    let path = options.dir.join(GUARDED);
    let guarded = fs::read_to_string(&path).unwrap_or_default();
    for setting in guarded.lines() {
        set(setting, "0")?;
    }
    let table = &options.table;
    nft(&format!("table inet {table} {{}}\ndelete table inet {table}\n"))?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetError::system(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes devices of slots that nobody holds.
fn reap(options: &HostOptions, devices: &[Device]) -> Result<(), NetError> {
    for Device { ifname: device, .. } in devices {
        let Some(number) = slot_of(&options.prefix, device) else { continue };
        if let Some(_lock) = lock_slot(options, number)? {
            tracing::info!(device, "removing the network of a guest whose runner was killed");
            // The kernel may be removing it at the same time.
            let _gone = ip(&format!("link delete {device}\n"));
        }
    }
    Ok(())
}

fn lock_slot(options: &HostOptions, number: u16) -> Result<Option<File>, NetError> {
    let file = open(&options.dir.join(format!("{SLOT}{number}")))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(NetError::system("lock a guest's network", error)),
    }
}

/// Takes the lock of all hosts. It is outside of their directories, which are removed under it.
fn lock_setup(options: &HostOptions) -> Result<File, NetError> {
    let locks = options.dir.parent().unwrap_or(&options.dir);
    make_dir(locks)?;
    let file = open(&locks.join(SETUP))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|e| NetError::system(format!("use the locks in {}", locks.display()), e))?;
    Ok(file)
}

fn make_dir(dir: &Path) -> Result<(), NetError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| NetError::system(format!("make the directory {}", dir.display()), e))
}

fn open(path: &Path) -> Result<File, NetError> {
    // `O_CLOEXEC`, which the standard library sets, keeps the lock from living on in a machine's monitor.
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| NetError::system(format!("open {}", path.display()), e))
}
