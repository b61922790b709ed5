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

/// Destinations whose bytes are told of.
const CARRIED: usize = 5;

/// What the job's network carried, if it did, with those that it carried most for.
pub(super) fn carried(usage: &Usage) -> Option<String> {
    let first = usage.carried.first()?;
    let counters = &usage.counters;
    let most = usage.carried.iter().take(CARRIED).map(|to| {
        let name = to.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        format!("{}{name} {} down, {} up", to.destination, size(to.bytes_down), size(to.bytes_up))
    });
    let more = usage.carried.len().saturating_sub(CARRIED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let all = format!("Network: {} down, {} up", size(counters.bytes_down), size(counters.bytes_up));
    let alone = usage.carried.len() == 1 && first.bytes() == counters.bytes_up + counters.bytes_down;
    Some(if alone {
        format!(
            "{all}, all with {}",
            first
                .name
                .as_ref()
                .map_or_else(|| first.destination.clone(), |name| format!("{} ({name})", first.destination))
        )
    } else {
        format!("{all}: {}{more}", most.collect::<Vec<_>>().join("; "))
    })
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(4);
    let unit = UNITS.get(usize::try_from(power - 1).unwrap_or_default()).copied().unwrap_or_default();
    let scaled = bytes >> (10 * (power - 1));
    format!("{}.{} {unit}", scaled / 1024, scaled % 1024 * 10 / 1024)
}

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
    fn what_the_network_carried_is_summed_up_by_destination() {
        let to = |number: u64, name: Option<&str>| tart_net::Carried {
            destination: format!("198.51.100.{number}:443/tcp"),
            name: name.map(str::to_owned),
            bytes_up: 1000 * number,
            bytes_down: 3 << 20,
        };
        let counters = tart_net::Counters { bytes_up: 2000, bytes_down: 3 << 20, ..Default::default() };
        let one = Usage { counters, carried: vec![to(2, Some("deb.example.com"))], ..Usage::default() };
        insta::assert_snapshot!(carried(&one).unwrap(), @"Network: 3.0 MiB down, 1.9 KiB up, all with 198.51.100.2:443/tcp (deb.example.com)");
        let counters = tart_net::Counters { bytes_up: 30_000, bytes_down: 5 << 30, ..Default::default() };
        let many = (1..=7).map(|number| to(number, (number == 1).then_some("a.example.com")));
        let many = Usage { counters, carried: many.collect(), ..Usage::default() };
        insta::assert_snapshot!(carried(&many).unwrap(), @"Network: 5.0 GiB down, 29.2 KiB up: 198.51.100.1:443/tcp (a.example.com) 3.0 MiB down, 1000 B up; 198.51.100.2:443/tcp 3.0 MiB down, 1.9 KiB up; 198.51.100.3:443/tcp 3.0 MiB down, 2.9 KiB up; 198.51.100.4:443/tcp 3.0 MiB down, 3.9 KiB up; 198.51.100.5:443/tcp 3.0 MiB down, 4.8 KiB up; and 2 more");
        assert_eq!(carried(&Usage::default()), None);
    }

    #[test]
    fn an_error_is_shown_without_the_console() {
        assert_eq!(first_line("it died; the last lines of its console:\n  a\n  b"), "it died");
        assert_eq!(first_line("it died"), "it died");
    }
}
