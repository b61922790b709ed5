//! What is told to the person who measures.

use std::io::{self, Write as _};
use std::time::Duration;

/// Prints a line.
pub(crate) fn line(text: &str) {
    // A closed pipe does not change what is measured.
    writeln!(io::stdout(), "{text}").ok();
}

/// Seconds with two digits.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A row of a table: a time, and its ratio to another.
pub(crate) fn row(what: &str, measured: Duration, other: Duration, of: &str) {
    let ratio = measured.as_secs_f64() / other.as_secs_f64();
    let shown = if measured < Duration::from_millis(100) {
        format!("{:.2} ms", measured.as_secs_f64() * 1000.0)
    } else {
        seconds(measured)
    };
    line(&format!("| {what} | {shown} | {ratio:.3} | {of} |"));
}

/// The value below which a share of all values is; zero of none.
pub(crate) fn quantile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a short list"
    )]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let list: Vec<Duration> = [3, 1, 2].map(Duration::from_secs).to_vec();
        assert_eq!(quantile(&list, 0.5), Duration::from_secs(2));
        assert_eq!(quantile(&list, 1.0), Duration::from_secs(3));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
