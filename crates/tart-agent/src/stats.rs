//! Counters of the guest, read from `/proc`.

use std::{fs, time::Duration};

use tart_proto::message::Stats;

use crate::machine::{self, Machine};

/// Length of the clock tick that `/proc/stat` counts in: the kernel's `USER_HZ` is 100 on all common machines.
const TICK: Duration = Duration::from_millis(10);

/// The counters as they are now. What the kernel does not say is 0.
pub(crate) fn read(machine: &Machine) -> Stats {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let disk = machine.scratch().and_then(|scratch| rustix::fs::statvfs(scratch).ok());
    Stats {
        uptime_usec: micros(machine::uptime()),
        cpu_usec: busy_micros(&fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or(0),
        memory_total_bytes: memory(&meminfo, "MemTotal:").unwrap_or(0),
        memory_available_bytes: memory(&meminfo, "MemAvailable:").unwrap_or(0),
        disk_total_bytes: disk.as_ref().map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
        disk_free_bytes: disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        tasks: tasks(&fs::read_to_string("/proc/loadavg").unwrap_or_default()).unwrap_or(0),
    }
}

/// Memory that the kernel manages, in bytes.
pub(crate) fn memory_total() -> u64 {
    memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:").unwrap_or(0)
}

/// Memory that can be had without swapping, in bytes.
pub(crate) fn memory_available() -> u64 {
    memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:").unwrap_or(0)
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A line of `/proc/meminfo`, in bytes.
fn memory(meminfo: &str, key: &str) -> Option<u64> {
    let kib: u64 =
        meminfo.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Time that all CPUs together did something, from the first line of `/proc/stat`. Guest time (the fields after
/// `steal`) is already part of user time.
fn busy_micros(stat: &str) -> Option<u64> {
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else { return None };
    Some((user + nice + system + irq + softirq) * micros(TICK))
}

/// The total of `running/total` in `/proc/loadavg`.
fn tasks(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_idle_waiting_and_stolen_time_out() {
        let stat = "cpu  10 20 30 4000 500 1 2 70 9 9\ncpu0 1 1 1 1 1 1 1 0 0 0\n";
        assert_eq!(busy_micros(stat), Some(630_000));
        assert_eq!(busy_micros("cpu  1 2\n"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory("MemTotal:  1024 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(1 << 20));
        assert_eq!(memory("", "MemTotal:"), None);
    }

    #[test]
    fn tasks_are_all_and_not_only_the_running() {
        assert_eq!(tasks("0.00 0.01 0.05 2/137 4242\n"), Some(137));
    }
}
