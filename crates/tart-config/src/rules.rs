//! Rules on values that go beyond their types.

mod cache;
mod docker;
mod runner;

use std::{net::IpAddr, ops::Range, str::FromStr};

use croner::Cron;
use jiff::tz::TimeZone;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    check::{Checker, entries},
    schema::{Key, Section},
    size::ByteSize,
    value,
};

/// The least memory that a guest's kernel and agent start in.
const MIN_MEMORY: ByteSize = ByteSize::mebibytes(128);
/// The least bytes in a second with which programs do not take the network for broken.
const MIN_BANDWIDTH: ByteSize = ByteSize(16 << 10);
/// The least useful scratch disk.
const MIN_DISK: ByteSize = ByteSize::mebibytes(64);

/// The message for a required key that is absent.
pub(crate) fn missing(section: &Section, key: &Key) -> String {
    match key.name {
        "token" => "the runner has no `token`: create a runner in GitLab and give its token to `tart register`".into(),
        "url" => "the runner has no `url`: write the address of the GitLab instance, such as \"https://gitlab.com\"".into(),
        name => format!("`{}` has no `{name}`", section.heading()),
    }
}

/// Checks the value of one key, whose type is right.
pub(crate) fn check_value(checker: &mut Checker<'_>, path: &str, spanned: &Spanned<DeValue<'_>>) {
    let span = spanned.span();
    let value = spanned.get_ref();
    let text = value.as_str().unwrap_or_default();
    match path {
        "labels" | "runners.labels" => labels(checker, path, value),
        "runners.microvm.state_dir" | "runners.microvm.assets_dir" if !text.is_empty() => {
            absolute(checker, path, text, span, "on the host");
        }
        "runners.microvm.kernel_args" if text.contains(['\n', '\r']) => {
            checker.error(span, format!("`{path}` must be one line"));
        }
        "runners.microvm.memory" => at_least(checker, path, value, span, MIN_MEMORY),
        "runners.microvm.disk" => at_least(checker, path, value, span, MIN_DISK),
        "runners.microvm.network.bandwidth" => at_least(checker, path, value, span, MIN_BANDWIDTH),
        "runners.microvm.pool.policy.periods" => {
            for period in value::strings(value).unwrap_or_default() {
                if period.split_whitespace().count() != 5 || Cron::from_str(period).is_err() {
                    let form = "crontab expressions such as \"* 8-17 * * mon-fri\"";
                    checker.error(span.clone(), format!("`{path}` must hold {form}, found {period:?}"));
                }
            }
        }
        "runners.microvm.pool.policy.timezone" if !text.is_empty() && TimeZone::get(text).is_err() => {
            checker.error(
                span,
                format!("`{path}` must be a time zone such as \"Europe/Berlin\", found {text:?}"),
            );
        }
        "runners.microvm.network.dns" | "runners.docker.dns" => {
            for address in value::strings(value).unwrap_or_default() {
                if address.parse::<IpAddr>().is_err() {
                    checker
                        .error(span.clone(), format!("`{path}` must hold IP addresses, found {address:?}"));
                }
            }
        }
        "runners.microvm.network.extra_hosts" | "runners.docker.extra_hosts" => {
            for entry in value::strings(value).unwrap_or_default() {
                if !is_host_entry(entry) {
                    let text = format!("`{path}` must hold `name:address` entries, found {entry:?}");
                    checker.error(span.clone(), text);
                }
            }
        }
        "runners.microvm.network.allow" | "runners.microvm.network.deny" => {
            for entry in value::strings(value).unwrap_or_default() {
                if !is_destination(entry) {
                    let form = "addresses, networks or names, perhaps with `:port`";
                    checker.error(span.clone(), format!("`{path}` must hold {form}, found {entry:?}"));
                }
            }
        }
        _ if path.starts_with("runners.cache.") => cache::check(checker, path, spanned),
        _ if path.starts_with("runners.docker.") => docker::check(checker, path, spanned),
        _ if path.starts_with("runners.") => runner::check(checker, path, spanned),
        _ => {}
    }
}

/// Checks what keys of one table mean together.
pub(crate) fn check_section(checker: &mut Checker<'_>, path: &str, table: &DeTable<'_>, at: Range<usize>) {
    match path {
        "runners" => runner::check_together(checker, table, at),
        "runners.cache" => cache::check_together(checker, table, at),
        "runners.microvm" => ceilings(checker, table),
        _ => {}
    }
}

/// A ceiling below the value that jobs get without asking makes no sense.
fn ceilings(checker: &mut Checker<'_>, table: &DeTable<'_>) {
    let of = |name: &str| {
        entries(table).into_iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
    };
    for (name, ceiling, default) in
        [("vcpus", "vcpus_max", 2), ("memory", "memory_max", 1 << 30), ("disk", "disk_max", 20 << 30)]
    {
        let Some(limit) = of(ceiling) else { continue };
        let amount = of(name).map_or(Some(default), |value| amount(value.get_ref()));
        if let (Some(most), Some(amount)) = (amount_set(limit.get_ref()), amount)
            && most < amount
        {
            let text = format!("`runners.microvm.{ceiling}` is below `{name}`, which every job gets");
            checker.error(limit.span(), text);
        }
    }
}

/// An integer or a size as a number.
fn amount(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::String(text) => ByteSize::parse(text).map(ByteSize::bytes),
        _ => value::integer(value).and_then(|number| u64::try_from(number).ok()),
    }
}

/// Like [`amount`]; an empty string counts as unset.
fn amount_set(value: &DeValue<'_>) -> Option<u64> {
    value.as_str().is_none_or(|text| !text.is_empty()).then(|| amount(value)).flatten()
}

fn at_least(checker: &mut Checker<'_>, path: &str, value: &DeValue<'_>, span: Range<usize>, least: ByteSize) {
    if let Some(bytes) = amount_set(value)
        && bytes < least.bytes()
    {
        checker.error(span, format!("`{path}` must be at least {least}, found {}", ByteSize(bytes)));
    }
}

fn absolute(checker: &mut Checker<'_>, path: &str, text: &str, span: Range<usize>, place: &str) {
    if !text.starts_with('/') {
        checker.error(span, format!("`{path}` must be an absolute path {place}, found {text:?}"));
    }
}

fn is_host_entry(entry: &str) -> bool {
    entry.split_once(':').is_some_and(|(name, address)| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
            && address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
    })
}

/// An entry of a list of destinations: `10.0.0.0/8`, `192.0.2.1:443`, `[fd00::/8]:22`, `*.example.com:80-90`.
fn is_destination(entry: &str) -> bool {
    let (host, ports) = match entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, "1"),
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or_default()),
        // More than one colon is an IPv6 address without a port.
        None if entry.matches(':').count() > 1 => (entry, "1"),
        None => entry.split_once(':').unwrap_or((entry, "1")),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let is_port = port(first).is_some_and(|first| port(last).is_some_and(|last| first <= last));
    let is_host = match host.split_once('/') {
        Some((address, prefix)) => address.parse::<IpAddr>().is_ok_and(|address| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest)
        }),
        None => host.parse::<IpAddr>().is_ok() || is_name(host.strip_prefix("*.").unwrap_or(host)),
    };
    is_port && is_host
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let text = text.strip_suffix('.').unwrap_or(text);
    let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    !numeric && text.split('.').all(|label| !label.is_empty() && label.chars().all(legal))
}

/// GitLab's limits on worker labels.
fn labels(checker: &mut Checker<'_>, path: &str, value: &DeValue<'_>) {
    let Some(table) = value.as_table() else { return };
    for (index, (name, value)) in entries(table).into_iter().enumerate() {
        if index == 32 {
            checker.error(name.span(), format!("`{path}` has more than 32 labels"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let key: &str = name.get_ref();
        if !(3..=65).contains(&key.len()) || !key.chars().all(allowed) || key.starts_with(['.', '-']) {
            let rule = "3 to 65 letters, digits, `.`, `_` and `-`, beginning with a letter, a digit or `_`";
            checker.error(name.span(), format!("`{path}.{key}` is no label: its name must have {rule}"));
        }
        let text = value.get_ref().as_str().unwrap_or_default();
        if !(1..=256).contains(&text.len()) || !text.chars().all(allowed) {
            let rule = "1 to 256 letters, digits, `.`, `_` and `-`";
            checker.error(value.span(), format!("`{path}.{key}` is no label: its value must have {rule}"));
        }
    }
}
