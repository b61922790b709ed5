//! What the host does and has.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tart_e2e::Scene;

/// How long a script takes on the host, in a new directory.
pub(crate) fn time(script: &str, directory: &Path) -> Result<Duration> {
    std::fs::create_dir(directory).context("cannot make a directory")?;
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().context("cannot start bash")?;
    ensure!(status.success(), "the script ended with {status} on the host");
    Ok(began.elapsed())
}

/// Resident memory of the machine that runs, in MiB.
pub(crate) fn resident_mib(scene: &Scene) -> Option<f64> {
    let processes = scene.leftovers().processes;
    let (pid, _) = processes.iter().find(|(_, command)| command.contains("qemu-system"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.split_whitespace().next()?.parse().ok()?;
    Some(f64::from(kib) / 1024.0)
}
