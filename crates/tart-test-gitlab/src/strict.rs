//! The shape a request must have, checked to the letter.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

/// Every key of `info.features`; all of them are always sent.
pub const FEATURES: [&str; 31] = [
    "artifacts",
    "artifacts_exclude",
    "cache",
    "cancel_gracefully",
    "cancelable",
    "fallback_cache_keys",
    "image",
    "image_executor_opts",
    "job_inputs",
    "masking",
    "multi_build_steps",
    "native_steps_integration",
    "proxy",
    "raw_variables",
    "refspecs",
    "return_exit_code",
    "service_executor_opts",
    "service_multiple_aliases",
    "service_variables",
    "services",
    "session",
    "shared",
    "terminal",
    "trace_checksum",
    "trace_reset",
    "trace_size",
    "two_phase_job_commit",
    "upload_multiple_artifacts",
    "upload_raw_artifacts",
    "variables",
    "vault_secrets",
];

/// Collects what is wrong with one request.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<String>,
}

impl Problems {
    pub(crate) fn add(&mut self, problem: impl Into<String>) {
        self.found.push(problem.into());
    }

    pub(crate) fn check(&mut self, good: bool, problem: impl FnOnce() -> String) {
        if !good {
            self.add(problem());
        }
    }

    /// Everything found, in one sentence.
    pub(crate) fn into_result(self) -> Result<(), String> {
        if self.found.is_empty() { Ok(()) } else { Err(self.found.join("; ")) }
    }

    /// A header that must be there once, as text.
    pub(crate) fn header<'a>(&mut self, headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
        if headers.get_all(name).iter().count() > 1 {
            self.add(format!("header {name} is there more than once"));
        }
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        self.check(value.is_some_and(|value| !value.is_empty()), || format!("header {name} is missing"));
        value
    }

    /// What every call of a runner carries.
    pub(crate) fn common_headers(&mut self, headers: &HeaderMap) {
        if let Some(id) = self.header(headers, &HeaderName::from_static("x-request-id")) {
            let uuid4 = id.len() == 32
                && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && id.as_bytes().get(12) == Some(&b'4');
            self.check(uuid4, || format!("X-Request-Id {id:?} is not a version 4 UUID without dashes"));
        }
        if let Some(agent) = self.header(headers, &axum::http::header::USER_AGENT) {
            self.check(is_user_agent(agent), || {
                format!("User-Agent {agent:?} is not `NAME VERSION (BRANCH; LANGVERSION; OS/ARCH)`")
            });
        }
    }

    pub(crate) fn json_headers(&mut self, headers: &HeaderMap, answer_is_json: bool) {
        self.media_type(headers, "application/json");
        if answer_is_json {
            let accept = self.header(headers, &axum::http::header::ACCEPT);
            self.check(accept.is_none_or(|accept| accept.contains("application/json")), || {
                "Accept does not name application/json".into()
            });
        }
    }

    pub(crate) fn media_type(&mut self, headers: &HeaderMap, wanted: &str) {
        if let Some(value) = self.header(headers, &axum::http::header::CONTENT_TYPE) {
            let essence = value.split(';').next().unwrap_or_default().trim();
            self.check(essence == wanted, || format!("Content-Type is {value:?} instead of {wanted}"));
        }
    }
}

fn is_user_agent(text: &str) -> bool {
    let Some((product, comment)) = text.strip_suffix(')').and_then(|text| text.split_once(" (")) else {
        return false;
    };
    let comment: Vec<&str> = comment.split("; ").collect();
    product.split(' ').filter(|word| !word.is_empty()).count() == 2
        && matches!(comment.as_slice(), [branch, language, platform]
            if !branch.is_empty() && !language.is_empty() && platform.contains('/'))
}

/// Reads the fields of a JSON object and remembers which ones it was asked for.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    name: &'a str,
    known: HashSet<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>, name: &'a str) -> Self {
        Self { object, name, known: HashSet::new() }
    }

    /// A field that may be absent, but not of another type.
    fn optional<T>(
        &mut self,
        problems: &mut Problems,
        key: &'static str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key);
        let value = self.object.get(key)?;
        let read = read(value);
        problems.check(read.is_some(), || format!("{}.{key} is not {kind}: {value}", self.name));
        read
    }

    fn required<T>(&self, problems: &mut Problems, key: &str, value: Option<T>) -> Option<T> {
        problems.check(self.object.contains_key(key), || format!("{}.{key} is missing", self.name));
        value
    }

    pub(crate) fn text(&mut self, problems: &mut Problems, key: &'static str) -> Option<&'a str> {
        self.optional(problems, key, "a string", Value::as_str)
    }

    /// A string that must be there and not be empty.
    pub(crate) fn word(&mut self, problems: &mut Problems, key: &'static str) -> Option<&'a str> {
        let value = self.text(problems, key);
        if value == Some("") {
            problems.add(format!("{}.{key} is empty", self.name));
        }
        self.required(problems, key, value)
    }

    pub(crate) fn boolean(&mut self, problems: &mut Problems, key: &'static str) -> Option<bool> {
        let value = self.optional(problems, key, "a boolean", Value::as_bool);
        self.required(problems, key, value)
    }

    pub(crate) fn integer(&mut self, problems: &mut Problems, key: &'static str) -> Option<i64> {
        self.optional(problems, key, "an integer", Value::as_i64)
    }

    pub(crate) fn object(
        &mut self,
        problems: &mut Problems,
        key: &'static str,
    ) -> Option<&'a Map<String, Value>> {
        self.optional(problems, key, "an object", Value::as_object)
    }

    pub(crate) fn required_object(
        &mut self,
        problems: &mut Problems,
        key: &'static str,
    ) -> Option<&'a Map<String, Value>> {
        let value = self.object(problems, key);
        self.required(problems, key, value)
    }

    /// Every field nobody asked for is a problem.
    pub(crate) fn finish(self, problems: &mut Problems) {
        for key in self.object.keys().filter(|key| !self.known.contains(key.as_str())) {
            problems.add(format!("{}.{key} is not a field of the protocol", self.name));
        }
    }
}

/// Checks the `info` object; before a runner is registered it has no executor yet.
pub(crate) fn check_info(problems: &mut Problems, info: &Map<String, Value>, registered: bool) {
    let mut fields = Fields::new(info, "info");
    for key in ["name", "version", "revision", "platform", "architecture"] {
        fields.word(problems, key);
    }
    if registered {
        fields.word(problems, "executor");
    } else {
        fields.text(problems, "executor");
    }
    fields.text(problems, "shell");
    if let Some(features) = fields.required_object(problems, "features") {
        let mut features = Fields::new(features, "info.features");
        for feature in FEATURES {
            features.boolean(problems, feature);
        }
        features.finish(problems);
    }
    if let Some(config) = fields.required_object(problems, "config") {
        let mut config = Fields::new(config, "info.config");
        let gpus = config.text(problems, "gpus");
        config.required(problems, "gpus", gpus);
        config.finish(problems);
    }
    if let Some(labels) = fields.object(problems, "labels") {
        check_labels(problems, labels);
    }
    fields.finish(problems);
}

fn check_labels(problems: &mut Problems, labels: &Map<String, Value>) {
    problems.check(labels.len() <= 32, || format!("{} labels, of which 32 are allowed", labels.len()));
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    for (key, value) in labels {
        let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let good_key = first && (3..=65).contains(&key.len()) && key.bytes().skip(1).all(inner);
        problems.check(good_key, || format!("label key {key:?} is not allowed"));
        let good_value =
            value.as_str().is_some_and(|text| (1..=256).contains(&text.len()) && text.bytes().all(inner));
        problems.check(good_value, || format!("label value {value} is not allowed"));
    }
}

/// `s_` or `r_` and 12 letters or digits.
pub(crate) fn check_system_id(problems: &mut Problems, id: &str) {
    let good = id
        .strip_prefix("s_")
        .or_else(|| id.strip_prefix("r_"))
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    problems.check(good, || format!("system_id {id:?} is not `s_` or `r_` with 12 letters or digits"));
}

/// The inclusive range of `Content-Range: <start>-<end>`, which has no unit and no total.
pub(crate) fn parse_content_range(text: &str) -> Option<(usize, usize)> {
    let digits = |part: &str| {
        let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse().ok()).flatten()
    };
    let (start, end) = text.split_once('-')?;
    Some((digits(start)?, digits(end)?))
}

/// `crc32:` and eight lower-case hexadecimal digits.
pub(crate) fn crc32_text(bytes: &[u8]) -> String {
    format!("crc32:{:08x}", crc32fast::hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_have_no_unit_no_total_and_no_sign() {
        assert_eq!(parse_content_range("0-9"), Some((0, 9)));
        for bad in ["bytes 0-9", "0-9/10", "-9", "0-", "+0-9", "", "0 - 9"] {
            assert_eq!(parse_content_range(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn user_agents_name_the_product_the_branch_the_language_and_the_platform() {
        assert!(is_user_agent("gitlab-runner 19.4.0 (HEAD; go1.x; linux/amd64)"));
        for bad in ["reqwest/0.13", "tart (HEAD; rust; linux/amd64)", "tart 1 (HEAD; linux/amd64)", "tart 1"]
        {
            assert!(!is_user_agent(bad), "{bad:?}");
        }
    }

    #[test]
    fn system_ids_are_exact() {
        for (id, good) in [
            ("s_0123456789ab", true),
            ("r_ABCxyz012345", true),
            ("x_0123456789ab", false),
            ("s_0123456789", false),
            ("s_0123456789ab\n", false),
        ] {
            let mut problems = Problems::default();
            check_system_id(&mut problems, id);
            assert_eq!(problems.into_result().is_ok(), good, "{id:?}");
        }
    }

    #[test]
    fn the_checksum_is_crc32_of_ieee() {
        assert_eq!(crc32_text(b"123456789"), "crc32:cbf43926");
    }
}
