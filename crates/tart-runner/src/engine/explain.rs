//! Telling people why a script failed when the reason is not in its output.

use tart_config::ByteSize;
use tart_net::Usage;

/// A disk with less than this is full, in bytes. Small files still fit, but nothing of a build.
const FULL: u64 = 1 << 20;

/// The warning about processes that the guest's kernel killed: who, what the limit was, what to do. `names` come from
/// the guest's console and may be empty.
pub(super) fn out_of_memory(kills: u64, names: &[String], memory: ByteSize) -> String {
    let count = if kills == 1 { "a process".to_owned() } else { format!("{kills} processes") };
    let who = if names.is_empty() { String::new() } else { format!(" (`{}`)", names.join("`, `")) };
    let verb = if kills == 1 { "was" } else { "were" };
    format!(
        "the job ran out of memory: {count}{who} {verb} killed by the guest's kernel. The microVM has {memory} of \
         memory; give it more with `memory` in [runners.microvm] (`tart exec --memory`), or let the job use less, \
         for example by fewer parallel processes"
    )
}

/// Whether nothing more fits on a disk. One without a size is not there.
pub(super) fn is_full(free: u64, total: u64) -> bool {
    total > 0 && free < FULL
}

/// The warning about a full disk.
pub(super) fn disk_full(disk: ByteSize) -> String {
    format!(
        "the job's disk of {disk} is full; give it more with `disk` in [runners.microvm] (`tart exec --disk`)"
    )
}

/// Destinations that are named at most.
const DESTINATIONS: usize = 10;

/// The warnings about what the network policy did not let through.
pub(super) fn network(usage: &Usage) -> Vec<String> {
    let mut warnings = Vec::new();
    if !usage.denied.is_empty() {
        let named: Vec<_> = usage.denied.iter().take(DESTINATIONS).map(ToString::to_string).collect();
        let more = usage.denied.len().saturating_sub(DESTINATIONS);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        warnings.push(format!("the network policy denied {}{more}", named.join(", ")));
    }
    if usage.forged > 0 {
        let frames = if usage.forged == 1 { "a network packet" } else { "network packets" };
        warnings.push(format!(
            "the job sent {frames} with forged addresses ({}), which went nowhere",
            usage.forged
        ));
    }
    warnings
}

/// An error without the console that its further lines show.
pub(super) fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_suffix("; the last lines of its console:").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_says_who_what_and_what_to_do() {
        let names = ["cc1plus".to_owned()];
        insta::assert_snapshot!(out_of_memory(1, &names, ByteSize::gibibytes(1)), @"the job ran out of memory: a process (`cc1plus`) was killed by the guest's kernel. The microVM has 1g of memory; give it more with `memory` in [runners.microvm] (`tart exec --memory`), or let the job use less, for example by fewer parallel processes");
        assert!(out_of_memory(1, &[], ByteSize(1)).contains("memory: a process was killed"));
        assert!(
            out_of_memory(3, &names, ByteSize(1)).contains("memory: 3 processes (`cc1plus`) were killed")
        );
    }

    #[test]
    fn a_disk_is_full_before_its_last_byte_is_used() {
        assert!(is_full(4096, 1 << 30));
        assert!(!is_full(1 << 25, 1 << 30));
        assert!(!is_full(0, 0));
    }

    #[test]
    fn denied_connections_are_named_and_counted() {
        let denied = |port: u16| tart_net::Denied { destination: format!("10.0.0.1:{port}/tcp"), packets: 1 };
        let usage = Usage { denied: (1..=12).map(denied).collect(), forged: 2, ..Usage::default() };
        insta::assert_snapshot!(network(&usage).join("\n"), @"
        the network policy denied 10.0.0.1:1/tcp, 10.0.0.1:2/tcp, 10.0.0.1:3/tcp, 10.0.0.1:4/tcp, 10.0.0.1:5/tcp, 10.0.0.1:6/tcp, 10.0.0.1:7/tcp, 10.0.0.1:8/tcp, 10.0.0.1:9/tcp, 10.0.0.1:10/tcp and 2 more
        the job sent network packets with forged addresses (2), which went nowhere
        ");
        assert!(network(&Usage::default()).is_empty());
    }

    #[test]
    fn an_error_is_shown_without_the_console() {
        assert_eq!(first_line("it died; the last lines of its console:\n  a\n  b"), "it died");
        assert_eq!(first_line("it died"), "it died");
    }
}
