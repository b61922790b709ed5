//! The retries under every call (protocol reference 0.1), as pure functions.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Attempts in total.
pub(crate) const MAX_ATTEMPTS: u32 = 5;
/// No server holds a runner back for longer than this at a time.
const MAX_WAIT: Duration = Duration::from_secs(15 * 60);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
const RESET_TIME: &str = "ratelimit-resettime";

/// Whether another attempt may be answered better.
pub(crate) fn is_retried(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504) || status >= 512
}

/// How long to wait before the attempt after the `attempts`-th, by what the answer asks for.
pub(crate) fn wait(headers: &HeaderMap, attempts: u32, now: SystemTime, jitter: f64) -> Duration {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text(RESET_TIME)
        .and_then(|date| until(date, now))
        .or_else(|| text(RETRY_AFTER.as_str()).and_then(seconds))
        .map_or_else(|| backoff(attempts, jitter), |wait| wait.min(MAX_WAIT))
}

/// The time until an RFC 1123 date, if that is in the future.
fn until(date: &str, now: SystemTime) -> Option<Duration> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date.trim()).ok()?;
    SystemTime::try_from(at).ok()?.duration_since(now).ok().filter(|wait| !wait.is_zero())
}

/// Whole seconds; the date form of `Retry-After` is not used by GitLab.
fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// Doubles with every attempt; the upper half of it is random.
fn backoff(attempts: u32, jitter: f64) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
    let full = doubled.min(MAX_BACKOFF);
    full / 2 + (full / 2).mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))
            })
            .collect()
    }

    /// 1994-11-06 08:49:37 UTC.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn statuses_of_overload_and_timeouts_are_retried() {
        let retried: Vec<u16> = (100..530).filter(|status| is_retried(*status)).take(8).collect();
        assert_eq!(retried, [408, 429, 500, 502, 503, 504, 512, 513]);
        assert!([501, 505, 511].iter().all(|status| !is_retried(*status)));
    }

    #[test]
    fn the_reset_time_goes_before_retry_after_which_goes_before_the_backoff() {
        let wait = |pairs: &[(&'static str, &str)]| wait(&headers(pairs), 1, now(), 1.0);
        let reset = ("ratelimit-resettime", "Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(wait(&[reset, ("retry-after", "7")]), Duration::from_secs(10));
        let past = ("ratelimit-resettime", "Sun, 06 Nov 1994 08:49:27 GMT");
        assert_eq!(wait(&[past, ("retry-after", "7")]), Duration::from_secs(7));
        assert_eq!(wait(&[("retry-after", "99999999")]), MAX_WAIT);
        for useless in ["0", "-1", "", "1.5", "Sun, 06 Nov 1994 08:49:47 GMT"] {
            assert_eq!(wait(&[("retry-after", useless)]), FIRST_BACKOFF, "{useless:?}");
        }
    }

    #[test]
    fn the_backoff_doubles_up_to_a_minute() {
        let waits: Vec<u128> = (1..=12).map(|attempts| backoff(attempts, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(backoff(1, 0.0), FIRST_BACKOFF / 2);
    }

    proptest! {
        #[test]
        fn no_header_makes_the_wait_endless(reset in "[ -~]{0,40}", after in "[ -~]{0,20}", attempts in 0_u32..) {
            let headers = headers(&[("ratelimit-resettime", &reset), ("retry-after", &after)]);
            prop_assert!(wait(&headers, attempts, now(), 0.5) <= MAX_WAIT);
        }

        #[test]
        fn every_second_within_the_limit_is_honoured(seconds in 1_u64..900) {
            let headers = headers(&[("retry-after", &seconds.to_string())]);
            prop_assert_eq!(wait(&headers, 1, now(), 0.5), Duration::from_secs(seconds));
        }
    }
}
