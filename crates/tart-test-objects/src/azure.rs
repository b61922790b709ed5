//! Shared access signatures of Azure Blob Storage.
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas>

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use jiff::{Timestamp, ToSpan};
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use url::form_urlencoded;

use crate::cloud::{Cloud, Refusal, Target, text};

/// The oldest version whose signatures have the fields of this one. Dates are compared as texts.
const OLDEST: &str = "2020-12-06";

/// A storage account.
pub(crate) struct Azure {
    pub(crate) account: String,
    key: [u8; 64],
}

const FAILED: Refusal = (StatusCode::FORBIDDEN, "AuthenticationFailed");
const INVALID: Refusal = (StatusCode::BAD_REQUEST, "InvalidUri");

impl Azure {
    /// A new account, and its key as base64.
    pub(crate) fn new() -> anyhow::Result<(Self, String)> {
        let mut key = [0; 64];
        getrandom::fill(&mut key)?;
        Ok((Self { account: "tartcaches".to_owned(), key }, STANDARD.encode(key)))
    }

    /// The path of the object in its account: hosts have the account's name, and the emulator has none.
    fn path(&self, request: &Parts) -> Result<String, Refusal> {
        let path = percent_decode_str(request.uri.path()).decode_utf8().map_err(|_| INVALID)?;
        let host = text(&request.headers, "host").unwrap_or_default();
        let path = if host.starts_with(&format!("{}.", self.account)) {
            path.strip_prefix('/')
        } else {
            path.strip_prefix(&format!("/{}/", self.account))
        };
        path.map(str::to_owned).ok_or(INVALID)
    }
}

impl Cloud for Azure {
    const MISSING: (&'static str, &'static str) = ("ContainerNotFound", "BlobNotFound");
    const CREATED: StatusCode = StatusCode::CREATED;

    fn check(&self, request: &Parts, tls: bool) -> Result<Target, Refusal> {
        let path = self.path(request)?;
        let mut query: HashMap<_, _> =
            form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let mut take = |name: &str| query.remove(name).unwrap_or_default();
        let signature = STANDARD.decode(take("sig")).map_err(|_| FAILED)?;
        let (permissions, start, expiry) = (take("sp"), take("st"), take("se"));
        let (protocol, version, resource) = (take("spr"), take("sv"), take("sr"));
        let rest = ["si", "sip", "ses", "rscc", "rscd", "rsce", "rscl", "rsct"].map(&mut take);
        let [identifier, addresses, scope, answer @ ..] = &rest;
        if !query.is_empty() || version.as_str() < OLDEST || version.len() != OLDEST.len() || resource != "b"
        {
            return Err(FAILED);
        }
        let mut to_sign = format!("{permissions}\n{start}\n{expiry}\n/blob/{}/{path}\n", self.account);
        to_sign += &format!("{identifier}\n{addresses}\n{protocol}\n{version}\n{resource}\n\n{scope}\n");
        to_sign += &answer.join("\n");
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|_| FAILED)?;
        mac.update(to_sign.as_bytes());
        mac.verify_slice(&signature).map_err(|_| FAILED)?;

        let now = Timestamp::now();
        let until: Timestamp = expiry.parse().map_err(|_| FAILED)?;
        if until <= now || until > now + (24 * 7 + 1).hours() {
            return Err(FAILED);
        }
        match protocol.as_str() {
            "https" if tls => {}
            "https" => return Err((StatusCode::FORBIDDEN, "AuthorizationProtocolMismatch")),
            "https,http" | "" => {}
            _ => return Err(FAILED),
        }
        let needed = if request.method == Method::PUT { 'w' } else { 'r' };
        if !permissions.contains(needed) || !matches!(request.method, Method::GET | Method::PUT) {
            return Err((StatusCode::FORBIDDEN, "AuthorizationPermissionMismatch"));
        }
        if request.method == Method::PUT && text(&request.headers, "x-ms-blob-type") != Some("BlockBlob") {
            return Err((StatusCode::BAD_REQUEST, "MissingRequiredHeader"));
        }
        let (container, name) = path.split_once('/').ok_or(INVALID)?;
        Ok(Target { container: container.to_owned(), name: name.to_owned() })
    }
}
