//! One factor for all time limits that a slow host may need longer for: that of `TART_TIME_FACTOR`. The guest's kernel tells
//! the agent of it, by a word of its command line.

use std::{sync::OnceLock, time::Duration};

/// The variable that has the factor, a number from 1 to 1000.
pub const TIME_FACTOR: &str = "TART_TIME_FACTOR";

/// What the factor is called on the command line of the guest's kernel.
pub const TIME_FACTOR_OPTION: &str = "tart.time_factor";

/// Known as soon as anybody needs it, and never another one.
static FACTOR: OnceLock<f64> = OnceLock::new();

/// The factor, from 1 to 1000: that of the environment, as it was when it was first needed, unless [`set_factor`] came
/// before. What is no number counts as 1.
pub fn factor() -> f64 {
    *FACTOR.get_or_init(|| read(std::env::var(TIME_FACTOR).ok().as_deref()))
}

/// Sets the factor where no environment has it. It is too late, and changes nothing, once it was needed.
pub fn set_factor(text: &str) {
    let _late = FACTOR.set(read(Some(text)));
}

/// A time limit for this host: multiplied by the [`factor`].
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    Duration::try_from_secs_f64(limit.as_secs_f64() * factor()).unwrap_or(Duration::MAX)
}

fn read(text: Option<&str>) -> f64 {
    let number = text.and_then(|text| text.trim().parse::<f64>().ok()).filter(|number| number.is_finite());
    number.unwrap_or(1.0).clamp(1.0, 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_give_more_time_count() {
        let factors = [None, Some("x"), Some("0.5"), Some("nan"), Some(" 4 "), Some("1e9")].map(read);
        assert_eq!(factors.map(|factor| factor.to_string()), ["1", "1", "1", "1", "4", "1000"]);
    }

    // Nobody else in this process may have needed the factor, so this is the only test of it.
    #[test]
    fn the_factor_is_set_once() {
        set_factor("2.5");
        set_factor("9");
        assert_eq!(scaled(Duration::from_secs(2)), Duration::from_secs(5));
    }
}
