//! Values of flags.

use std::time::Duration;

use tart_config::ByteSize;

/// A boolean as Go's flags take it, which scripts for the official runner rely on. Nothing is `false`.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

/// A duration such as `90s` or `1h30m`. A number alone counts seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let days = || {
        let days: u32 = text.strip_suffix('d')?.parse().ok()?;
        (days <= 36_500).then(|| Duration::from_secs(u64::from(days) * 86_400))
    };
    seconds
        .or_else(days)
        .or_else(|| tart_config::parse_duration(text))
        .ok_or_else(|| "expected a duration such as `90s`, `15m`, `1h30m` or `30d`".to_owned())
}

/// A size such as `512m` or `4GiB`.
pub(crate) fn size(text: &str) -> Result<ByteSize, String> {
    let size = ByteSize::parse(text).filter(|size| size.bytes() > 0);
    size.ok_or_else(|| "expected a size such as `512m`, `4g` or `20GiB`".to_owned())
}

/// `KEY=value`.
pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "expected `KEY=value`".to_owned())?;
    let first = key.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("`{key}` is no name of a variable: letters, digits and `_`, not a digit first"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_plain_numbers_are_seconds() {
        let seconds = ["90", "15m", "1h30m", "2d"].map(|text| duration(text).map(|d| d.as_secs()));
        assert_eq!(seconds, [Ok(90), Ok(900), Ok(5400), Ok(172_800)]);
        for wrong in ["", "x", "-1", "5 m", "99999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables_need_a_name() {
        assert_eq!(assignment("A_1=b=c"), Ok(("A_1".to_owned(), "b=c".to_owned())));
        for wrong in ["A", "=b", "1A=b", "a-b=c"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }
}
