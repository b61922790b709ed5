//! `timeout` in words: `1h 30m`, `90 minutes`, `3600`.

use std::time::Duration;

/// Parses a duration. A number alone counts seconds. `None` if it is none.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let spaced: String = spaces_between_numbers_and_words(text);
    let mut total = 0.0_f64;
    let mut pending: Option<f64> = None;
    for word in spaced.split_whitespace().filter(|word| *word != "and") {
        if let Ok(number) = word.parse::<f64>() {
            if pending.replace(number).is_some() {
                return None;
            }
        } else {
            total += pending.take()? * unit(word)?;
        }
    }
    if let Some(seconds) = pending {
        // A number without a unit is only clear if it stands alone.
        if total != 0.0 {
            return None;
        }
        total = seconds;
    }
    if spaced.trim().is_empty() {
        return None;
    }
    Duration::try_from_secs_f64(total).ok().filter(|duration| duration.as_secs() <= 100 * 365 * 86_400)
}

fn spaces_between_numbers_and_words(text: &str) -> String {
    let mut spaced = String::new();
    let mut digits = None;
    for c in text.to_lowercase().chars().map(|c| if c == ',' { ' ' } else { c }) {
        let now = c.is_ascii_digit() || c == '.';
        if digits.is_some_and(|before| before != now) {
            spaced.push(' ');
        }
        digits = (!c.is_whitespace()).then_some(now);
        spaced.push(c);
    }
    spaced
}

fn unit(word: &str) -> Option<f64> {
    Some(match word {
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "wk" | "wks" | "week" | "weeks" => 604_800.0,
        "mo" | "mos" | "month" | "months" => 2_592_000.0,
        "y" | "yr" | "yrs" | "year" | "years" => 31_557_600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("3600", 3600),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            ("90 minutes", 5400),
            ("1 hour and 30 minutes", 5400),
            ("1 day, 2 hours", 93_600),
            ("1.5 hours", 5400),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "1 2", "h", "1h 5", "-1h", "1 parsec", "1e300", "9999999999999 years", "..h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}", likely in "[0-9.hmsday ,]{0,24}") {
            parse(&text);
            parse(&likely);
        }
    }
}
