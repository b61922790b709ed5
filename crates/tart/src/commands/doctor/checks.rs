//! What `tart doctor` looks at.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tart_assets::{Kind, Store};
use tart_config::{LoadError, MicroVm, NetworkMode};
use tart_runner::{HostSetup, PrepareOptions, firecracker_program, run_root};

use super::check::Check;
use super::firecracker::{self, Wanted};
use super::system;
use crate::output::bytes;
use crate::product;
use crate::progress::Steps;

/// The check of what guests boot from.
const GUEST: &str = "guest";

/// Free disk space that jobs hardly get along without, in bytes.
const LITTLE_SPACE: u64 = 10 << 30;

/// Below this not even the guest's disks can be built, in bytes.
const NO_SPACE: u64 = 1 << 30;

/// The configuration, and the settings of its first runner's machines; defaults where there is none.
pub(super) fn configuration(path: &Path) -> (Check, MicroVm) {
    let shown = path.display();
    match tart_config::load(path) {
        Ok(loaded) => {
            let runners = loaded.config.runners;
            let check = match runners.len() {
                0 => Check::warn("config", format!("{shown} has no runners"), "tart register"),
                1 => Check::ok("config", format!("{shown}, 1 runner")),
                count => Check::ok("config", format!("{shown}, {count} runners")),
            };
            (check, runners.into_iter().next().map(|runner| runner.microvm).unwrap_or_default())
        }
        Err(LoadError::NotFound(_)) => {
            let text = format!("none yet at {shown}; `tart exec` needs none");
            (Check::warn("config", text, "tart register"), MicroVm::default())
        }
        Err(error) => {
            let error = anyhow::Error::new(error);
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            (
                Check::fail("config", causes.join(": "), "correct the file; `tart lint` checks it"),
                MicroVm::default(),
            )
        }
    }
}

/// What is seen at once. The service runs as `service`, or as who asks.
pub(super) async fn quick(config: &MicroVm, service: Option<&str>) -> Vec<Check> {
    let binary = firecracker_program(config);
    let firecracker = binary.is_some();
    let is_root = rustix::process::geteuid().is_root();
    let jailed_by_helper = firecracker && tart_runner::root_helper_socket(config, is_root).is_some();
    let mut checks = vec![user(!jailed_by_helper)];
    let facts = match binary {
        Some(binary) => Some(system::facts(config, binary, service).await),
        None => None,
    };
    match facts {
        Some(Ok(facts)) => checks.extend(firecracker::findings(&facts, Wanted::of(config))),
        Some(Err(text)) => checks.push(Check::fail("service", text, "or name another by `--user`")),
        None => checks.push(program("qemu", "qemu-system-x86_64", "qemu-system-x86", true)),
    }
    // Only `tart exec` needs it on the host.
    checks.push(program("git", "git", "git", false));
    if !firecracker && matches!(config.network.mode, NetworkMode::Auto | NetworkMode::Netns) {
        checks.push(program("nft", "nft", "nftables", config.network.mode == NetworkMode::Netns));
    }
    if !firecracker && matches!(config.network.mode, NetworkMode::Auto | NetworkMode::Passt) {
        checks.push(program("passt", "passt", "passt", config.network.mode == NetworkMode::Passt));
    }
    let state = run_root(config);
    let assets = config.assets_dir.clone().unwrap_or_else(tart_assets::default_root);
    checks.push(space("state", &state));
    checks.push(space("assets", &assets));
    checks.push(stored(&assets));
    checks
}

/// Who asks. `opens_kvm` says that the runner itself opens the device.
fn user(opens_kvm: bool) -> Check {
    let id = rustix::process::geteuid();
    let name = std::env::var("USER").unwrap_or_else(|_| "this user".to_owned());
    if id.is_root() {
        return Check::ok("user", "root");
    }
    let kvm = Path::new("/dev/kvm");
    let text = format!("{name} (uid {}), which is enough", id.as_raw());
    if opens_kvm && kvm.exists() && std::fs::OpenOptions::new().read(true).write(true).open(kvm).is_err() {
        let fix = format!("usermod --append --groups kvm {name}, then log in again");
        return Check::warn("user", format!("{text}, but /dev/kvm is not for this user"), fix);
    }
    Check::ok("user", text)
}

/// That the program can be run, by its version.
fn program(what: &'static str, program: &str, package: &str, needed: bool) -> Check {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let fix = format!("apt-get install {package}");
    let missing = match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            return Check::ok(what, text.lines().next().unwrap_or(program).to_owned());
        }
        Ok(output) => format!("`{program} --version` failed ({})", output.status),
        Err(error) => format!("`{program}` cannot be run: {error}"),
    };
    if needed { Check::fail(what, missing, fix) } else { Check::warn(what, missing, fix) }
}

/// That a directory can be written, and how much room it has.
fn space(what: &'static str, directory: &Path) -> Check {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let shown = directory.display();
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        let fix = format!("give this user the directory {}", existing.display());
        return Check::fail(what, format!("{shown} cannot be written"), fix);
    }
    let free = match rustix::fs::statvfs(existing) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            return Check::fail(what, format!("{shown} cannot be examined: {error}"), "check the disk");
        }
    };
    let text = format!("{shown}, {} free", bytes(free));
    let fix = "make room; `tart assets prune` removes what is not used";
    match free {
        0..NO_SPACE => Check::fail(what, text, fix),
        NO_SPACE..LITTLE_SPACE => Check::warn(what, text, fix),
        _ => Check::ok(what, text),
    }
}

/// What guests boot from, if it is there.
fn stored(root: &Path) -> Check {
    let entries = match Store::open(root).and_then(|store| store.ls()) {
        Ok(entries) => entries,
        Err(error) => {
            return Check::fail(GUEST, error.to_string(), "name another directory by TART_ASSETS_DIR");
        }
    };
    let missing: Vec<&str> = [Kind::Kernel, Kind::Helper, Kind::Image]
        .into_iter()
        .filter(|kind| !entries.iter().any(|entry| entry.kind == *kind))
        .map(Kind::as_str)
        .collect();
    if missing.is_empty() || shared(root) {
        return Check::ok(GUEST, "kernel, helper disk and image are there");
    }
    let text = format!("not built yet: {}", missing.join(", "));
    Check::warn(GUEST, text, "tart assets build (else the first job waits for it)")
}

/// Whether an ordinary user's store takes what it lacks from the machine's.
fn shared(root: &Path) -> bool {
    let system = PathBuf::from("/var/lib/tart/assets");
    let has = |kind: Kind| {
        let directory = system.join("entries").join(kind.as_str());
        std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
    };
    !rustix::process::geteuid().is_root() && root != system && Kind::ALL.into_iter().all(has)
}

/// Prepares the host as for a job: boots a guest, where it is not known whether one boots. Nothing is built for it.
pub(super) async fn host(config: &MicroVm, before: &[Check]) -> Vec<Check> {
    let built = |check: &Check| check.what() != GUEST || check.is_ok();
    if before.iter().any(Check::failed) || !before.iter().all(built) {
        let text = "no guest was tried, because of what is said above";
        return vec![Check::warn("host", text, "correct that, then run `tart doctor` again")];
    }
    let steps = Steps::show();
    let options = PrepareOptions { progress: steps.clone(), agent: product::agent(), pool: false };
    let setup = HostSetup::prepare(config, options).await;
    steps.finish();
    match setup {
        Ok(setup) => setup.describe().into_iter().map(|line| Check::ok("host", line)).collect(),
        Err(error) => {
            let error = anyhow::Error::new(error);
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            vec![Check::fail("host", causes.join(": "), "correct what is said here, then try again")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_fails_only_where_it_is_needed() {
        let check = |needed| program("x", "tart-no-such-program", "package", needed);
        assert!(check(true).failed() && !check(false).failed());
    }
}
