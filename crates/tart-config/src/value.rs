//! Whether a TOML value fits a [`Kind`], and whether it is the default.

use toml::de::DeValue;

use crate::{
    duration::{self, parse_duration},
    schema::{Default, Key, Kind},
    size::{self, ByteSize},
    suggest,
};

/// What a value is, for messages: never the value itself, which may be secret.
pub(crate) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The integer of a value, if it is one that fits.
pub(crate) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Checks a value against its kind. The error completes "`key` must be ...".
pub(crate) fn check(kind: Kind, value: &DeValue<'_>) -> Result<(), String> {
    let wrong = |expected: &str| Err(format!("{expected}, found {}", describe(value)));
    match kind {
        Kind::Foreign => Ok(()),
        Kind::Bool => match value {
            DeValue::Boolean(_) => Ok(()),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                wrong("`true` or `false` without quotes")
            }
            _ => wrong("`true` or `false`"),
        },
        Kind::Int(low, high) => match integer(value) {
            Some(number) if (low..=high).contains(&number) => Ok(()),
            Some(number) if number < low => Err(format!("at least {low}, found {number}")),
            Some(number) => Err(format!("at most {high}, found {number}")),
            None => match value {
                DeValue::Integer(_) => Err(format!("at most {high}")),
                DeValue::String(text) if text.parse::<i64>().is_ok() => wrong("an integer without quotes"),
                _ => wrong("an integer"),
            },
        },
        Kind::Factor => {
            let number = match value {
                DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
                _ => integer(value).and_then(|number| i32::try_from(number).ok()).map(f64::from),
            };
            match number {
                Some(number) if number.is_finite() && number >= 0.0 => Ok(()),
                Some(number) => Err(format!("a number of at least 0, found {number}")),
                None => wrong("a number of at least 0"),
            }
        }
        Kind::Text | Kind::Secret | Kind::Path => match value {
            DeValue::String(text) if text.contains('\0') => Err("a string without a null character".into()),
            DeValue::String(_) => Ok(()),
            _ => wrong("a string"),
        },
        Kind::Url => value.is_str().then_some(()).map_or_else(|| wrong("a URL in quotes"), Ok),
        Kind::HostPort => match value.as_str() {
            Some(text) if text.is_empty() || is_host_port(text) => Ok(()),
            Some(text) => Err(format!("an address such as \"127.0.0.1:9252\" or \":9252\", found {text:?}")),
            None => wrong("an address in quotes"),
        },
        Kind::Duration => match value.as_str() {
            Some(text) if parse_duration(text).is_some() => Ok(()),
            Some(text) => Err(format!("{}, found {text:?}", duration::EXPECTED)),
            None => wrong(duration::EXPECTED),
        },
        Kind::Size => match value {
            DeValue::String(text) if text.is_empty() || ByteSize::parse(text).is_some() => Ok(()),
            DeValue::String(text) => Err(format!("{}, found {text:?}", size::EXPECTED)),
            DeValue::Integer(_) if integer(value).is_some_and(|bytes| bytes >= 0) => Ok(()),
            _ => wrong(size::EXPECTED),
        },
        Kind::Time => match value {
            DeValue::Datetime(time) if time.to_string().parse::<jiff::Timestamp>().is_ok() => Ok(()),
            DeValue::String(text) if text.parse::<jiff::Timestamp>().is_ok() => Ok(()),
            _ => wrong("a time with its zone, such as 2026-11-24T08:00:00Z"),
        },
        Kind::Choice(words) => match value.as_str() {
            Some(text) if text.is_empty() || words.contains(&text) => Ok(()),
            Some(text) => {
                let meant = suggest::nearest(text, words.iter().copied());
                let meant = meant.map(|word| format!("; did you mean \"{word}\"?")).unwrap_or_default();
                Err(format!("{}, found {text:?}{meant}", alternatives(words)))
            }
            None => wrong(&alternatives(words)),
        },
        Kind::List => strings(value).map_or_else(|| wrong("a list of strings"), |_| Ok(())),
        Kind::Environment => match strings(value) {
            Some(entries) if entries.iter().all(|entry| entry.find('=').is_some_and(|at| at > 0)) => Ok(()),
            Some(_) => Err("a list of \"KEY=value\" strings, and one of them is not of that form".into()),
            None => wrong("a list of \"KEY=value\" strings"),
        },
        Kind::TextOrList if value.is_str() || strings(value).is_some() => Ok(()),
        Kind::TextOrList => wrong("a string or a list of strings"),
        Kind::TextMap => every(value, DeValue::is_str).map_or_else(|| wrong("a table of strings"), Ok),
        Kind::BoolMap => every(value, DeValue::is_bool).map_or_else(|| wrong("a table of booleans"), Ok),
        Kind::ListMap => every(value, |item| strings(item).is_some())
            .map_or_else(|| wrong("a table of lists of strings"), Ok),
    }
}

fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The strings of a list, or `None` if it is not a list of strings.
pub(crate) fn strings<'v>(value: &'v DeValue<'_>) -> Option<Vec<&'v str>> {
    value.as_array()?.iter().map(|item| item.get_ref().as_str()).collect()
}

fn every<'i>(value: &DeValue<'i>, fits: impl Fn(&DeValue<'i>) -> bool) -> Option<()> {
    value.as_table()?.values().all(|item| fits(item.get_ref())).then_some(())
}

/// `host:port`, `host`, `:port` or `[v6]:port`.
fn is_host_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return false,
        },
        None => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return false,
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))
}

/// Whether a value of the right kind says no more than its absence would.
pub(crate) fn is_default(key: &Key, value: &DeValue<'_>) -> bool {
    let Default::Toml(default) = key.default else {
        return match value {
            DeValue::String(text) => text.is_empty(),
            DeValue::Integer(_) => integer(value) == Some(0),
            DeValue::Boolean(set) => !set,
            DeValue::Array(items) => items.is_empty(),
            DeValue::Table(table) => table.is_empty(),
            DeValue::Float(_) | DeValue::Datetime(_) => false,
        };
    };
    let default = default.trim_matches('"');
    match (key.kind, value) {
        (_, DeValue::Boolean(set)) => set.to_string() == default,
        (_, DeValue::Integer(_)) => integer(value)
            .is_some_and(|number| number.to_string() == default || (number == 0 && key.zero_is_default())),
        (Kind::Duration, DeValue::String(text)) => parse_duration(text) == parse_duration(default),
        (Kind::Size, DeValue::String(text)) => ByteSize::parse(text) == ByteSize::parse(default),
        (_, DeValue::String(text)) => text.is_empty() || text == default,
        _ => false,
    }
}
