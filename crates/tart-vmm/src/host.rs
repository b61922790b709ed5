//! Facts of the host.

use std::{
    fs,
    time::{Duration, Instant},
};

/// How long the time stamp counter is watched to learn its frequency. The error is below a thousandth.
const TSC_WINDOW: Duration = Duration::from_millis(20);

/// Frequency of the time stamp counter, in kHz.
pub(crate) fn tsc_khz() -> u64 {
    let (start, first) = tsc_now();
    std::thread::sleep(TSC_WINDOW);
    let (end, last) = tsc_now();
    let nanos = end.duration_since(start).as_nanos().max(1);
    u64::try_from(u128::from(last.saturating_sub(first)) * 1_000_000 / nanos).unwrap_or(0)
}

/// The time and the counter, read together: of several tries the one that was interrupted least.
fn tsc_now() -> (Instant, u64) {
    let read = || {
        let before = Instant::now();
        let counter = rdtsc();
        (before.elapsed(), before, counter)
    };
    let (_, time, counter) = (0..16).map(|_| read()).min_by_key(|read| read.0).unwrap_or_else(read);
    (time, counter)
}

fn rdtsc() -> u64 {
    #[expect(unsafe_code, reason = "reading the counter is an intrinsic")]
    // SAFETY: every x86-64 processor has the instruction, and it only reads a counter.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
}

/// A value of the first processor in `/proc/cpuinfo`.
pub(crate) fn cpuinfo(key: &str) -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    value(&text, key).unwrap_or("unknown").to_owned()
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(k, _)| k.trim() == key).map(|(_, v)| v.trim())
}

/// `uname -r`.
pub(crate) fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Changes with every boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_first_processor_are_found() {
        let text = "processor\t: 0\nmodel name\t: A: B\n\nprocessor\t: 1\nmodel name\t: C\n";
        assert_eq!(value(text, "model name"), Some("A: B"));
        assert_eq!(value(text, "flags"), None);
    }

    #[test]
    fn the_counter_runs_at_a_plausible_speed() {
        assert!((400_000..10_000_000).contains(&tsc_khz()));
    }
}
