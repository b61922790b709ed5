//! From the kernel's first process to a guest that can serve a host.

pub mod cmdline;
mod cpus;
pub mod modules;
mod mounts;

use std::{fs, io, path::Path, time::Duration};

use rustix::process::{Resource, Rlimit};
use tart_proto::{message::Limits, time::set_factor};

use cmdline::Options;

use crate::{
    console,
    exec::{cgroup::Cgroups, reaper::Reaper},
    machine::Machine,
    network, stats,
    tree::Trees,
};

/// Where the agent keeps the files that trees get in their `/etc`.
const ETC: &str = "/run/tart/etc";

/// The cgroup of all jobs.
const JOBS: &str = "tart";

/// Files the agent may have open: every command and forwarded connection needs a few.
const MAX_OPEN_FILES: u64 = 65536;

/// Memory that jobs cannot take from the agent and the kernel, of what is available once all is started: this, or the
/// hundredth part below if that is more. Without it the whole machine would be out of memory before the jobs' cgroup,
/// and reclaim the same few pages for minutes before it kills anything.
const MIN_MEMORY_RESERVE: u64 = 64 * 1024 * 1024;
const MEMORY_RESERVE_PERCENT: u64 = 3;

/// Processes and threads that jobs cannot take, but never more than half.
const TASK_RESERVE: u64 = 1000;

/// Pages used within this time are not reclaimed: the kernel rather kills a process than to thrash.
const WORKING_SET_MS: &str = "1000";

/// Mounts the kernel's file systems, loads modules and sets limits. `init_uptime` is the guest's uptime at the start
/// of PID 1.
///
/// # Errors
/// If something is missing without which no command could run. What merely makes the guest poorer is said on the
/// console.
pub fn start(reaper: Reaper, init_uptime: Duration) -> io::Result<Machine> {
    mounts::kernel_file_systems()?;
    if let Some(factor) = Options::read().time_factor() {
        set_factor(factor);
    }
    for problem in modules::load(Path::new(modules::DIRECTORY)) {
        console::say(problem);
    }
    optional("cannot shield the agent from the OOM killer", fs::write("/proc/self/oom_score_adj", "-1000"));
    optional("cannot set the network up for everybody", network::relax());
    // Kernels without modules have no such file.
    let _missing = fs::write("/proc/sys/kernel/modprobe", modules::LOADER);
    // Kernels without this way to keep a working set have no such file.
    let _missing = fs::write("/sys/kernel/mm/lru_gen/min_ttl_ms", WORKING_SET_MS);
    let files = Rlimit { current: Some(MAX_OPEN_FILES), maximum: Some(MAX_OPEN_FILES) };
    optional(
        "cannot raise the limit of open files",
        rustix::process::setrlimit(Resource::Nofile, files).map_err(io::Error::from),
    );
    optional("cannot start the loopback", network::start_loopback());
    network::create_names(Path::new(ETC))?;
    let limits =
        Limits { memory_bytes: job_memory(stats::memory_available()), pids: job_tasks(task_limit()) };
    let root = Path::new(mounts::CGROUPS);
    mounts::enter_cgroup_namespace(&root.join(JOBS))?;
    let cgroups = Cgroups::create(root, JOBS, &limits)?;
    for problem in cpus::bring_online() {
        console::say(problem);
    }
    Ok(Machine::new(Trees::guest(), cgroups, reaper, ETC, init_uptime))
}

fn optional(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        console::say(format_args!("{what}: {error}"));
    }
}

/// Most processes and threads that the kernel makes at all.
fn task_limit() -> u64 {
    let read = |file| fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(read);
    limits.min().unwrap_or(0)
}

/// What all jobs together may have of the guest's available memory; 0, for no limit, if that is not known.
fn job_memory(available: u64) -> u64 {
    let reserve = MIN_MEMORY_RESERVE.max(available / 100 * MEMORY_RESERVE_PERCENT);
    available.saturating_sub(reserve.min(available / 2))
}

fn job_tasks(limit: u64) -> u64 {
    limit - TASK_RESERVE.min(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_leave_the_agent_memory() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(job_memory(512 * MIB), 448 * MIB);
        assert_eq!(job_memory(40 * MIB), 20 * MIB);
        assert_eq!(job_memory(0), 0);
        let large = 16 * 1024 * MIB;
        assert_eq!(job_memory(large), large - large / 100 * 3);
    }

    #[test]
    fn jobs_leave_the_agent_process_ids() {
        assert_eq!(job_tasks(32768), 31768);
        assert_eq!(job_tasks(1200), 600);
        assert_eq!(job_tasks(0), 0);
    }
}
