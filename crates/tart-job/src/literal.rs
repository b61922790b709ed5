//! How users write booleans and durations in variables: as the Go programs they know read them.

use std::time::Duration;

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text does not have the form of a duration.
    #[error("not a duration such as `90s`, `45m` or `1h30m`")]
    Malformed,
    /// A duration below zero.
    #[error("a duration must not be negative")]
    Negative,
    /// More than about 292 years, the most that Go can express.
    #[error("the duration is too long")]
    TooLong,
}

/// Reads a duration as Go's `time.ParseDuration` does: `300ms`, `1.5h`, `1h30m`; a bare `0` is zero.
///
/// # Errors
/// A text that is malformed, negative, or beyond Go's range.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanoseconds, after) = parse_component(rest)?;
        total = total.checked_add(nanoseconds).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    if total > i64::MAX.unsigned_abs().into() {
        return Err(DurationError::TooLong);
    }
    if negative && total > 0 {
        return Err(DurationError::Negative);
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| DurationError::TooLong)
}

/// One number with its unit, in nanoseconds, and what follows it.
fn parse_component(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed);
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let scale: u128 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(DurationError::Malformed),
    };
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let mut nanoseconds = whole.checked_mul(scale).ok_or(DurationError::TooLong)?;
    // More digits than these are below a nanosecond even in hours.
    let fraction = &fraction[..fraction.len().min(18)];
    if let Ok(digits) = fraction.parse::<u128>() {
        nanoseconds += digits * scale / (0..fraction.len()).fold(1, |power, _| power * 10);
    }
    Ok((nanoseconds, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Writes a duration as Go's `Duration.String` does, for example `1h0m0s`, `1m30s`, `1.5s` or `250ms`.
pub fn format_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let unit = match nanoseconds {
        0 => return "0s".to_owned(),
        1..1_000 => Some((1, "ns")),
        1_000..1_000_000 => Some((1_000, "\u{b5}s")),
        1_000_000..1_000_000_000 => Some((1_000_000, "ms")),
        _ => None,
    };
    if let Some((scale, unit)) = unit {
        return format!("{}{unit}", decimal(nanoseconds, scale));
    }
    let seconds = duration.as_secs();
    let tail = u128::from(seconds % 60) * 1_000_000_000 + u128::from(duration.subsec_nanos());
    let tail = decimal(tail, 1_000_000_000);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{tail}s"),
        (0, minutes) => format!("{minutes}m{tail}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{tail}s"),
    }
}

/// `value / scale` with as many decimals as it needs. `scale` is a power of ten.
fn decimal(value: u128, scale: u128) -> String {
    let width = scale.ilog10() as usize;
    let fraction = format!("{:0width$}", value % scale);
    let fraction = fraction.trim_end_matches('0');
    match (value / scale, fraction) {
        (whole, "") => whole.to_string(),
        (whole, fraction) => format!("{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn booleans_are_those_of_go() {
        for (text, value) in
            [("1", Some(true)), ("True", Some(true)), ("F", Some(false)), ("false", Some(false))]
        {
            assert_eq!(parse_bool(text), value);
        }
        for text in ["", "yes", "on", "TrUe", " true"] {
            assert_eq!(parse_bool(text), None);
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [
            ("0", 0),
            ("90m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("+2s", 2_000),
            ("1m1m", 120_000),
            ("1h2m3.004s", 3_723_004),
            ("-0", 0),
            ("-0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "-", "5", "1h30", "h", ".s", "1 h", "1d", "1h-3m", "one"] {
            assert_eq!(parse_duration(text), Err(DurationError::Malformed), "{text}");
        }
        assert_eq!(parse_duration("-5m"), Err(DurationError::Negative));
        assert_eq!(parse_duration("99999999999h"), Err(DurationError::TooLong));
        assert_eq!(parse_duration(&"9".repeat(60)), Err(DurationError::Malformed));
        assert_eq!(parse_duration(&format!("{}s", "9".repeat(60))), Err(DurationError::TooLong));
    }

    #[test]
    fn durations_are_written_like_go_writes_them() {
        let cases = [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(3600), "1h0m0s"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::from_millis(250), "250ms"),
            (Duration::from_micros(1001), "1.001ms"),
            (Duration::from_nanos(7), "7ns"),
            (Duration::from_millis(3_600_250), "1h0m0.25s"),
        ];
        for (duration, text) in cases {
            assert_eq!(format_duration(duration), text);
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(nanoseconds in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn parsing_never_panics(text in "[0-9.hmsnuµ+-]{0,30}|.*") {
            let _ = parse_duration(&text);
        }
    }
}
