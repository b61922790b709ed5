//! The certificate that a session server shows. GitLab is told it with every request, and trusts nothing else.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::SessionError;

/// How long it is good: the server makes another when it starts again.
const YEARS: i64 = 2;

/// Makes a certificate for a host, by name or address. Returns it as PEM, and what shows it.
pub(crate) fn make(host: &str) -> Result<(String, TlsAcceptor), SessionError> {
    let failed = |error: rcgen::Error| SessionError::Certificate(error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    // An address becomes a name of its own kind there.
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Tart");
    params.distinguished_name.push(DnType::CommonName, "session server of a GitLab runner");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    // Clocks of the two hosts may differ.
    let (year, month, day) = parts(today.saturating_sub(1.day()));
    params.not_before = rcgen::date_time_ymd(year, month, day);
    let (year, month, day) = parts(today.saturating_add(YEARS.years()));
    params.not_after = rcgen::date_time_ymd(year, month, day);
    let certificate = params.self_signed(&key).map_err(failed)?;

    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // TLS 1.2 and later are the provider's defaults.
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private)
        });
    let config = config.map_err(|error| SessionError::Certificate(error.to_string()))?;
    Ok((certificate.pem(), TlsAcceptor::from(Arc::new(config))))
}

/// Year, month and day.
fn parts(date: Date) -> (i32, u8, u8) {
    let number = |number: i8| u8::try_from(number).unwrap_or(1);
    (date.year().into(), number(date.month()), number(date.day()))
}
