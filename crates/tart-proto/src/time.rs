//! One factor for all time limits that a slow host may need longer for: that of `TART_TIME_FACTOR`.

use std::{sync::OnceLock, time::Duration};

/// The variable that has the factor, a number from 1 to 1000.
pub const TIME_FACTOR: &str = "TART_TIME_FACTOR";

/// A time limit for this host: multiplied by the factor of the environment, as it was when it was first needed.
/// What is no number counts as 1.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| factor(std::env::var(TIME_FACTOR).ok().as_deref()));
    Duration::try_from_secs_f64(limit.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

fn factor(text: Option<&str>) -> f64 {
    let number = text.and_then(|text| text.trim().parse::<f64>().ok()).filter(|number| number.is_finite());
    number.unwrap_or(1.0).clamp(1.0, 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_give_more_time_count() {
        let factors = [None, Some("x"), Some("0.5"), Some("nan"), Some(" 4 "), Some("1e9")].map(factor);
        assert_eq!(factors.map(|factor| factor.to_string()), ["1", "1", "1", "1", "4", "1000"]);
        assert_eq!(scaled(Duration::from_secs(3)), Duration::from_secs(3));
    }
}
