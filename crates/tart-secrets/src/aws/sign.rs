//! Signature version 4 of AWS, as its "Signing process" says. A crate for it would bring a runtime of its own.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::header::{HeaderValue, InvalidHeaderValue};
use sha2::{Digest, Sha256};
use url::Url;

/// Credentials of a session. They have no `Debug`.
pub(super) struct Credentials {
    pub(super) key_id: String,
    pub(super) secret_key: String,
    pub(super) session_token: String,
}

/// A request to sign. Its query, if any, is sorted and encoded already.
pub(super) struct Signing<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a Url,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// Names in lower case, with values that have no space to collapse.
    pub(super) headers: &'a [(&'a str, &'a str)],
}

impl Signing<'_> {
    /// The headers that sign the request, beside its own.
    pub(super) fn headers(
        &self,
        credentials: &Credentials,
        now: Timestamp,
        body: &[u8],
    ) -> Result<Vec<(&'static str, HeaderValue)>, InvalidHeaderValue> {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut added = vec![("x-amz-date", HeaderValue::from_str(&time)?)];
        if !credentials.session_token.is_empty() {
            added.push(("x-amz-security-token", sensitive(&credentials.session_token)?));
        }
        let authorization = self.authorization(credentials, &time, body);
        added.push(("authorization", sensitive(&authorization)?));
        Ok(added)
    }

    fn authorization(&self, credentials: &Credentials, time: &str, body: &[u8]) -> String {
        let host = match (self.url.host_str().unwrap_or_default(), self.url.port()) {
            (host, None) => host.to_owned(),
            (host, Some(port)) => format!("{host}:{port}"),
        };
        let mut headers = self.headers.to_vec();
        headers.extend([("host", host.as_str()), ("x-amz-date", time)]);
        if !credentials.session_token.is_empty() {
            headers.push(("x-amz-security-token", &credentials.session_token));
        }
        headers.sort_unstable();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut request =
            format!("{}\n{}\n{}\n", self.method, self.url.path(), self.url.query().unwrap_or_default());
        for (name, value) in &headers {
            writeln!(request, "{name}:{value}").expect("a String takes all");
        }
        write!(request, "\n{names}\n{}", digest(body)).expect("a String takes all");

        let date = time.get(..8).unwrap_or_default();
        let (region, service) = (self.region, self.service);
        let scope = format!("{date}/{region}/{service}/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", digest(request.as_bytes()));
        let secret = format!("AWS4{}", credentials.secret_key).into_bytes();
        let key = [date, region, service, "aws4_request"]
            .into_iter()
            .fold(secret, |key, part| authenticate(&key, part.as_bytes()));
        let signature = hex::encode(authenticate(&key, text.as_bytes()));
        let id = &credentials.key_id;
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn authenticate(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of HMAC may have any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn sensitive(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of AWS's documentation of the signing process.
    #[test]
    fn the_documented_example_has_the_documented_signature() {
        let credentials = Credentials {
            key_id: "AKIDEXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: String::new(),
        };
        let url = Url::parse("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08").unwrap();
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let signing =
            Signing { method: "GET", url: &url, region: "us-east-1", service: "iam", headers: &headers };
        insta::assert_snapshot!(
            signing.authorization(&credentials, "20150830T123600Z", b""),
            @"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn headers_of_a_session_are_signed_and_hidden() {
        let credentials = Credentials {
            key_id: "ASIAEXAMPLE".into(),
            secret_key: "secret".into(),
            session_token: "token==".into(),
        };
        let url = Url::parse("http://127.0.0.1:4566").unwrap();
        let signing = Signing {
            method: "POST",
            url: &url,
            region: "eu-central-1",
            service: "secretsmanager",
            headers: &[],
        };
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let headers = signing.headers(&credentials, now, b"{}").unwrap();
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["x-amz-date", "x-amz-security-token", "authorization"]);
        assert_eq!(headers[0].1, "20231114T221320Z");
        assert!(
            headers[2].1.to_str().unwrap().contains("SignedHeaders=host;x-amz-date;x-amz-security-token,")
        );
        assert!(!format!("{headers:?}").contains("token=="));
    }
}
