//! What can go wrong.

use std::error::Error;

use tart_ranges::RangeError;
use thiserror::Error;

/// Settings that lead to no store.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// There is no bucket. Holds the key that names it.
    #[error("the object store has no bucket: set `{0}`")]
    NoBucket(&'static str),
    /// The server's name is none.
    #[error("`{key}` must be `host` or `host:port`, found {found:?}")]
    Server {
        /// The key that names it.
        key: &'static str,
        /// The server.
        found: String,
    },
    /// There is nobody who could sign.
    #[error(
        "the object store has no account: set `CredentialsFile`, or `AccessID` and `PrivateKey` (identities of \
         machines and workloads are not supported)"
    )]
    NoAccount,
    /// The account's name is none.
    #[error("`AccountName` must be the name of a storage account, found {0:?}")]
    Account(String),
    /// The key is none, or its file cannot be used.
    #[error("the object store has no usable key: {0}")]
    Key(String),
    /// There is no TLS.
    #[error("the client of the object store cannot be made: {0}")]
    Client(String),
}

/// Why an object was not read or written. Says nothing of keys, signatures and URLs.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// There is none of this name.
    #[error("file does not exist")]
    Missing,
    /// The store refuses.
    #[error("Received: {status}{}", .code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// The status of HTTP.
        status: reqwest::StatusCode,
        /// The store's word for it, such as `AccessDenied`.
        code: Option<String>,
    },
    /// The store is not reached, or breaks off.
    #[error("{0}")]
    Transport(String),
    /// It takes too long.
    #[error("the object store did not answer within {0} seconds")]
    TimedOut(u64),
    /// The archive cannot be read.
    #[error("the archive cannot be read: {0}")]
    Source(#[from] std::io::Error),
    /// The key does not sign.
    #[error("the request cannot be signed with the key of the object store")]
    Signature,
    /// It has more bytes than one request may carry.
    #[error("the archive has {0} bytes, more than the object store takes at once")]
    TooLarge(u64),
}

impl ObjectError {
    /// Whether another try may help: the official runner's rule.
    pub(crate) fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Missing | Self::TimedOut(_) | Self::Source(_) | Self::Signature | Self::TooLarge(_) => {
                false
            }
        }
    }
}

impl From<RangeError> for ObjectError {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Transport(error) => Self::Transport(describe(error)),
            RangeError::TimedOut(limit) => Self::TimedOut(limit.as_secs()),
            error => Self::Transport(error.to_string()),
        }
    }
}

/// An error with its causes. The URL has the signature in it and is left out.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The word in an answer such as `<Error><Code>AccessDenied</Code>...`.
pub(crate) fn code(body: &str) -> Option<String> {
    const LONGEST: usize = 60;
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = !code.is_empty() && code.len() <= LONGEST && code.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_say_the_stores_own_word() {
        let refused =
            |body| ObjectError::Refused { status: reqwest::StatusCode::FORBIDDEN, code: code(body) };
        let body = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        insta::assert_snapshot!(refused(body).to_string(), @"Received: 403 Forbidden (AccessDenied)");
        insta::assert_snapshot!(refused("<Code>\u{1b}[31m</Code>").to_string(), @"Received: 403 Forbidden");
    }

    proptest! {
        #[test]
        fn no_answer_panics(body in ".{0,80}") {
            prop_assert!(code(&body).is_none_or(|code| code.bytes().all(|b| b.is_ascii_alphanumeric())));
        }
    }
}
