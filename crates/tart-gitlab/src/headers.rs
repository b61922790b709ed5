//! The headers of answers about a job.

use std::time::Duration;

use reqwest::header::{HeaderMap, RANGE};

/// The longest interval a server may ask for.
const MAX_INTERVAL: Duration = Duration::from_secs(15 * 60);

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// What `Job-Status` asks of the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobStatus {
    /// Nothing.
    Other,
    /// Somebody cancelled the job; it may end in order.
    Canceling,
    /// The job is over for the server.
    Over,
}

/// Reads `Job-Status`.
pub(crate) fn job_status(headers: &HeaderMap) -> JobStatus {
    match text(headers, "job-status") {
        Some("canceling") => JobStatus::Canceling,
        Some("canceled" | "failed") => JobStatus::Over,
        _ => JobStatus::Other,
    }
}

/// Reads `X-GitLab-Trace-Update-Interval`, in seconds; what is not positive is ignored.
pub(crate) fn update_interval(headers: &HeaderMap) -> Option<Duration> {
    let seconds: i64 = text(headers, "x-gitlab-trace-update-interval")?.parse().ok()?;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds).min(MAX_INTERVAL))
}

/// The number of log bytes the server has, from `Range: 0-N`; 0 if it does not say.
///
/// N is one past the last byte, unlike in the inclusive `Content-Range` of the request.
pub(crate) fn stored_bytes(headers: &HeaderMap) -> u64 {
    let parse = || {
        let (start, end) = text(headers, RANGE.as_str())?.split_once('-')?;
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        (plain(start) && plain(end)).then(|| end.parse().ok()).flatten()
    };
    parse().unwrap_or(0)
}

/// The largest `X-GitLab-Last-Update` that is remembered, in bytes.
const MAX_LAST_UPDATE_BYTES: usize = 1024;

/// Reads `X-GitLab-Last-Update`.
pub(crate) fn last_update(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-gitlab-last-update")
        .filter(|value| !value.is_empty() && value.len() <= MAX_LAST_UPDATE_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn header(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a header");
        [(HeaderName::from_static(name), value)].into_iter().collect()
    }

    #[test]
    fn useless_intervals_are_ignored_and_long_ones_are_capped() {
        let read = |text| update_interval(&header("x-gitlab-trace-update-interval", text));
        for useless in ["0", "-3", "", "3s", "1.5", "99999999999999999999"] {
            assert_eq!(read(useless), None, "{useless:?}");
        }
        assert_eq!(read("60"), Some(Duration::from_secs(60)));
        assert_eq!(read("86400"), Some(MAX_INTERVAL));
        assert_eq!(update_interval(&HeaderMap::new()), None);
    }

    #[test]
    fn a_missing_or_bad_range_means_that_nothing_is_stored() {
        for bad in ["", "0-", "-5", "bytes=0-5x", "0-+5", "0-99999999999999999999"] {
            assert_eq!(stored_bytes(&header("range", bad)), 0, "{bad:?}");
        }
        assert_eq!(stored_bytes(&header("range", "0-12")), 12);
        assert_eq!(stored_bytes(&HeaderMap::new()), 0);
    }

    #[test]
    fn only_three_words_of_job_status_mean_something() {
        let read = |text| job_status(&header("job-status", text));
        assert_eq!(read("canceling"), JobStatus::Canceling);
        assert_eq!([read("canceled"), read("failed")], [JobStatus::Over; 2]);
        for other in ["running", "success", "pending", "Canceled", ""] {
            assert_eq!(read(other), JobStatus::Other, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn ranges_are_read_back(stored in any::<u64>()) {
            prop_assert_eq!(stored_bytes(&header("range", &format!("0-{stored}"))), stored);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~]{0,30}") {
            let _ = stored_bytes(&header("range", &text));
            let interval = update_interval(&header("x-gitlab-trace-update-interval", &text));
            prop_assert!(interval.is_none_or(|interval| interval <= MAX_INTERVAL && !interval.is_zero()));
        }
    }
}
