use reqwest::header::{HeaderName, HeaderValue, RANGE};

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn error() -> ApiError {
    ApiError::Transport("the error".into())
}

#[test]
fn every_row_of_the_table_of_updates() {
    let failed = || UpdateResult::Failed(error());
    for (status, word, result) in [
        (200, "running", UpdateResult::Succeeded),
        (200, "success", UpdateResult::Succeeded),
        (200, "canceling", UpdateResult::Succeeded),
        (200, "failed", UpdateResult::Abort { taken: true }),
        (200, "canceled", UpdateResult::Abort { taken: true }),
        (403, "running", UpdateResult::Abort { taken: false }),
        (404, "", UpdateResult::Abort { taken: false }),
        (202, "running", UpdateResult::Accepted),
        (202, "failed", UpdateResult::Abort { taken: false }),
        (412, "running", UpdateResult::LogMismatch),
        (400, "", failed()),
        (401, "", failed()),
        (409, "", failed()),
        (500, "", failed()),
        (204, "", failed()),
    ] {
        let answer = update_answer(status, &headers(&[("job-status", word)]), error);
        assert_eq!(answer.result, result, "{status} {word}");
        assert_eq!(answer.canceling, word == "canceling");
    }
}

#[test]
fn every_row_of_the_table_of_chunks() {
    let failed = || PatchResult::Failed(error());
    for (status, word, result) in [
        (202, "running", PatchResult::Stored),
        (202, "canceling", PatchResult::Stored),
        (202, "canceled", PatchResult::Abort),
        (202, "failed", PatchResult::Abort),
        (403, "", PatchResult::Abort),
        (404, "", PatchResult::NotFound),
        (416, "running", PatchResult::Mismatch { stored: 0 }),
        (200, "running", failed()),
        (400, "", failed()),
        (503, "", failed()),
    ] {
        let answer = patch_answer(status, &headers(&[("job-status", word)]), error);
        assert_eq!(answer.result, result, "{status} {word}");
    }
    let mut headers = headers(&[("x-gitlab-trace-update-interval", "60")]);
    headers.insert(RANGE, HeaderValue::from_static("0-17"));
    let answer = patch_answer(416, &headers, error);
    assert_eq!(answer.result, PatchResult::Mismatch { stored: 17 });
    assert_eq!(answer.interval, Some(Duration::from_secs(60)));
}

#[test]
fn checksums_have_eight_lower_case_digits() {
    let digest = LogDigest { crc32: 0x00ab_cdef, size: 1 };
    assert_eq!(digest.checksum(), "crc32:00abcdef");
}
