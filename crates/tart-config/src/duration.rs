//! Durations as Go writes them: `1h30m`, `90s`, `1.5h`.

use std::time::Duration;

/// Why a text is not a duration.
pub(crate) const EXPECTED: &str = "a duration such as \"90s\", \"15m\" or \"1h30m\"";

/// Parses a non-negative duration in Go's notation. `None` if it is not one or does not fit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(scaled(number, nanoseconds(unit)?)?)?;
        rest = tail;
    }
    if text.is_empty() {
        return None;
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    // A century: beyond it, deadlines computed from the value could overflow.
    if seconds > 100 * 365 * 86_400 {
        return None;
    }
    Some(Duration::new(seconds, u32::try_from(total % 1_000_000_000).ok()?))
}

fn nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number`, which may have a fraction, times `unit`; what is below one is dropped.
pub(crate) fn scaled(number: &str, unit: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 15 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
    let total = whole.checked_mul(unit.into())?;
    if fraction.is_empty() {
        return Some(total);
    }
    let parts: u128 = fraction.parse::<u64>().ok()?.into();
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    total.checked_add(parts.checked_mul(unit.into())? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1h0m0s"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "5", "5 m", "-1s", "1d", "s", "1..5s", "1h5", "99999999999999h", "+1s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9.hmsnuµ+ -]{0,24}") {
            let _ = parse_duration(&text);
        }

        #[test]
        fn whole_units_add_up(h in 0_u64..1000, m in 0_u64..1000, s in 0_u64..1000) {
            proptest::prop_assert_eq!(
                parse_duration(&format!("{h}h{m}m{s}s")),
                Some(Duration::from_secs(h * 3600 + m * 60 + s))
            );
        }
    }
}
