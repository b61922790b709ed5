//! Signatures of version 4 of Google Cloud Storage, checked with the account's public key.
//! <https://cloud.google.com/storage/docs/authentication/signatures>

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use jiff::{Timestamp, ToSpan};
use percent_encoding::percent_decode_str;
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::alg_id::RSA_PKCS1_SHA256;

use crate::cloud::{Cloud, Refusal, Target, text};

/// How wrong a client's clock may be, in minutes.
const SKEW: i64 = 15;

/// The longest that a signature may hold, in seconds.
const LONGEST: i64 = 7 * 24 * 3600;

/// A service account.
pub(crate) struct Google {
    pub(crate) access_id: String,
    public_key: Vec<u8>,
}

const INVALID: Refusal = (StatusCode::BAD_REQUEST, "InvalidArgument");
const MALFORMED: Refusal = (StatusCode::BAD_REQUEST, "AuthenticationRequired");
const MISMATCH: Refusal = (StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
const EXPIRED: Refusal = (StatusCode::BAD_REQUEST, "ExpiredToken");

impl Google {
    /// A new account, and its private key as PEM.
    pub(crate) fn new() -> anyhow::Result<(Self, String)> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("an RSA key")?;
        let access_id = "caches@tests.iam.gserviceaccount.com".to_owned();
        Ok((Self { access_id, public_key: key.der_bytes().to_vec() }, key.serialize_pem()))
    }

    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let mut algorithms = algorithms.iter().filter(|of| of.signature_alg_id() == RSA_PKCS1_SHA256);
        algorithms.any(|of| of.verify_signature(&self.public_key, text.as_bytes(), signature).is_ok())
    }

    /// What the client must have signed, if the query is one that the service takes.
    fn text_to_sign(&self, request: &Parts, query: &Query<'_>) -> Result<String, Refusal> {
        let value = |name: &str| query.values.get(name).map(String::as_str).ok_or(MALFORMED);
        if value("X-Goog-Algorithm")? != "GOOG4-RSA-SHA256" || query.values.len() != 6 {
            return Err(INVALID);
        }
        let date = value("X-Goog-Date")?;
        let day = date.get(..8).ok_or(INVALID)?;
        if value("X-Goog-Credential")? != format!("{}/{day}/auto/storage/goog4_request", self.access_id) {
            return Err((StatusCode::FORBIDDEN, "AccessDenied"));
        }
        let made = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).map_err(|_| INVALID)?;
        let made = jiff::tz::TimeZone::UTC.to_timestamp(made).map_err(|_| INVALID)?;
        let seconds: i64 = value("X-Goog-Expires")?.parse().map_err(|_| INVALID)?;
        let now = Timestamp::now();
        if !(1..=LONGEST).contains(&seconds) || made > now + SKEW.minutes() {
            return Err(INVALID);
        }
        if made + seconds.seconds() < now {
            return Err(EXPIRED);
        }
        let names = value("X-Goog-SignedHeaders")?;
        let mut canonical =
            format!("{}\n{}\n{}\n", request.method, request.uri.path(), query.without_signature());
        for name in names.split(';') {
            let host = request.uri.authority().map(|authority| authority.as_str());
            let value = text(&request.headers, name).or(host.filter(|_| name == "host"));
            writeln!(canonical, "{name}:{}", value.ok_or(MISMATCH)?.trim()).map_err(|_| INVALID)?;
        }
        write!(canonical, "\n{names}\nUNSIGNED-PAYLOAD").map_err(|_| INVALID)?;
        let mut sorted: Vec<_> = names.split(';').collect();
        sorted.sort_unstable();
        sorted.dedup();
        let signed = |name: &str| sorted.contains(&name);
        let extensions = request.headers.keys().filter(|name| name.as_str().starts_with("x-goog-"));
        if sorted.join(";") != names || !signed("host") || !extensions.into_iter().all(|n| signed(n.as_str()))
        {
            return Err(MALFORMED);
        }
        let digest = hex::encode(Sha256::digest(&canonical));
        Ok(format!("GOOG4-RSA-SHA256\n{date}\n{day}/auto/storage/goog4_request\n{digest}"))
    }
}

impl Cloud for Google {
    const MISSING: (&'static str, &'static str) = ("NoSuchBucket", "NoSuchKey");
    const CREATED: StatusCode = StatusCode::OK;

    fn check(&self, request: &Parts, _tls: bool) -> Result<Target, Refusal> {
        if !matches!(request.method, Method::GET | Method::PUT) {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"));
        }
        let query = Query::parse(request.uri.query().unwrap_or_default())?;
        let to_sign = self.text_to_sign(request, &query)?;
        let signature = query.values.get("X-Goog-Signature").and_then(|text| hex::decode(text).ok());
        let path = percent_decode_str(request.uri.path()).decode_utf8().map_err(|_| INVALID)?;
        // The service makes the canonical path of what it has decoded.
        if !signature.is_some_and(|signature| self.verify(&to_sign, &signature))
            || encode(&path) != request.uri.path()
        {
            return Err(MISMATCH);
        }
        let (container, name) = path.trim_start_matches('/').split_once('/').ok_or(INVALID)?;
        Ok(Target { container: container.to_owned(), name: name.to_owned() })
    }
}

/// A query with its parts as they were sent.
struct Query<'q> {
    parts: Vec<&'q str>,
    values: BTreeMap<&'q str, String>,
}

impl<'q> Query<'q> {
    fn parse(text: &'q str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = text.split('&').collect();
        let mut values = BTreeMap::new();
        for part in &parts {
            let (name, value) = part.split_once('=').ok_or(INVALID)?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| INVALID)?.into_owned();
            if values.insert(name, value).is_some() {
                return Err(INVALID);
            }
        }
        Ok(Self { parts, values })
    }

    fn without_signature(&self) -> String {
        let mut parts: Vec<_> =
            self.parts.iter().copied().filter(|part| !part.starts_with("X-Goog-Signature=")).collect();
        parts.sort_unstable();
        parts.join("&")
    }
}

/// A path as the canonical request has it.
fn encode(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
