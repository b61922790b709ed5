//! What can go wrong with one call.

use serde_json::Value;

/// The longest text of a server that is repeated in an error, in characters.
const MAX_MESSAGE_CHARS: usize = 1000;

/// Why a call did not give what was asked for. Texts of the server in it are cut and have no control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The call could not even be tried: a bad URL, an unreadable certificate (result code -100 of the reference).
    #[error("the connection to GitLab cannot be set up: {0}")]
    Client(String),
    /// No answer came, or its body was cut.
    #[error("{0}")]
    Transport(String),
    /// The status was right, but the body is not JSON; often a proxy or a login page answers instead of GitLab.
    #[error(
        "the server answered {status} with content of type {content_type:?} instead of JSON; check that the URL is \
         that of GitLab and that no proxy answers in its place"
    )]
    NotJson {
        /// The status.
        status: u16,
        /// The header `Content-Type`, or nothing.
        content_type: String,
    },
    /// The body is JSON of another shape.
    #[error("the server's answer cannot be read: {0}")]
    BadBody(String),
    /// The body is longer than any good one.
    #[error("the server's answer is longer than {0} bytes")]
    TooLarge(usize),
    /// A redirection that is not followed.
    #[error("the server redirects to {location}, which is not followed: {reason}")]
    Redirect {
        /// Scheme, host and port of the target.
        location: String,
        /// Why not.
        reason: &'static str,
    },
    /// The log cannot be read back from its file.
    #[error("the log kept on this machine cannot be read: {0}")]
    Log(String),
    /// Another status than the wanted one.
    #[error("{status}: {message}")]
    Status {
        /// The status.
        status: u16,
        /// What the server says about it.
        message: String,
    },
}

impl ApiError {
    /// The status, if the server answered with an unwanted one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The error of an answer with an unwanted status.
    pub(crate) fn from_answer(status: u16, body: &[u8]) -> Self {
        let message = message(body).unwrap_or_else(|| reason_phrase(status).to_owned());
        Self::Status { status, message: presentable(&message) }
    }
}

fn reason_phrase(status: u16) -> &'static str {
    let known = reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.unwrap_or("no explanation")
}

/// The explanation in a body: `{"message": ...}`, or the XML of object storage.
fn message(body: &[u8]) -> Option<String> {
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return flatten(value.get("message")?);
    }
    let text = std::str::from_utf8(body).ok()?;
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    text.contains("<Error>").then_some(())?;
    match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.or(message).map(String::from),
    }
}

/// `field: first; second` for a map of validation errors, fields separated by commas.
fn flatten(message: &Value) -> Option<String> {
    match message {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => {
            let words = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let fields: Vec<String> = fields
                .iter()
                .map(|(field, errors)| match errors {
                    Value::Array(errors) => {
                        let errors: Vec<String> = errors.iter().map(words).collect();
                        format!("{field}: {}", errors.join("; "))
                    }
                    other => format!("{field}: {}", words(other)),
                })
                .collect();
            Some(fields.join(", "))
        }
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// Text of the server for a log or a terminal: short, and without control characters.
pub(crate) fn presentable(text: &str) -> String {
    let mut short: String =
        text.chars().take(MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_MESSAGE_CHARS).is_some() {
        short.push('…');
    }
    short
}

/// An error of the HTTP library with its causes, which it does not show by itself, and without the URL.
pub(crate) fn transport(error: reqwest::Error) -> ApiError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    ApiError::Transport(presentable(&text))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn explanations_are_flattened() {
        let show = |status, body: &str| ApiError::from_answer(status, body.as_bytes()).to_string();
        assert_snapshot!(show(403, r#"{"message":"403 Forbidden - no"}"#), @"403: 403 Forbidden - no");
        assert_snapshot!(
            show(400, r#"{"message":{"note":["is too long"],"tags_list":["can not be empty","is odd"]}}"#),
            @"400: note: is too long, tags_list: can not be empty; is odd"
        );
        assert_snapshot!(
            show(400, "<?xml version='1.0'?><Error><Code>EntityTooLarge</Code><Message>big</Message></Error>"),
            @"400: EntityTooLarge: big"
        );
        assert_snapshot!(show(502, "<html>"), @"502: Bad Gateway");
        assert_snapshot!(show(500, r#"{"error":"x"}"#), @"500: Internal Server Error");
        assert_snapshot!(show(799, ""), @"799: no explanation");
    }

    #[test]
    fn control_characters_and_length_of_explanations_are_tamed() {
        let body = format!(r#"{{"message":"\u001b[2J{}"}}"#, "x".repeat(5000));
        let text = ApiError::from_answer(500, body.as_bytes()).to_string();
        assert!(!text.contains('\x1b') && text.len() < 1100, "{text}");
    }

    proptest! {
        #[test]
        fn any_body_has_an_explanation(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = ApiError::from_answer(400, &body).to_string();
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
