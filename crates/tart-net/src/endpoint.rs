//! A host and port that a job may reach.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use url::Url;

use crate::NetError;

/// Longest host name, in bytes (RFC 1035).
const MAX_NAME: usize = 253;

/// A host and port. The host is a lower case name or an IP address, without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// A valid host name in lower case, or an IP address.
    host: String,
    /// TCP port, not 0.
    port: u16,
}

impl Endpoint {
    /// An endpoint of a host name or IP address (an IPv6 one with or without brackets) and a port.
    ///
    /// # Errors
    /// [`NetError::Endpoint`] if the host is no valid name, or an address that is no single host's, or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, NetError> {
        let refuse = |reason: &str| {
            Err(NetError::Endpoint { text: format!("{host}:{port}"), reason: reason.to_owned() })
        };
        if port == 0 {
            return refuse("0 is no port");
        }
        if let Some(ip) = literal(host) {
            return match unreachable_because(ip) {
                Some(reason) => refuse(reason),
                None => Ok(Self { host: ip.to_string(), port }),
            };
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if is_host_name(&name) { Ok(Self { host: name, port }) } else { refuse("it has no valid host name") }
    }

    /// The endpoint of a URL; the port is the scheme's own if the URL names none.
    ///
    /// # Errors
    /// [`NetError::Endpoint`] if it has no host, or no port is known for its scheme, or as for [`Endpoint::new`].
    pub fn of_url(url: &Url) -> Result<Self, NetError> {
        // The text of the error is made of parts that hold no credentials.
        let refuse = |reason: &str| NetError::Endpoint {
            text: format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
            reason: reason.to_owned(),
        };
        let host = url.host_str().ok_or_else(|| refuse("it has no host"))?;
        let port = url
            .port_or_known_default()
            .or_else(|| (url.scheme() == "ssh").then_some(22))
            .ok_or_else(|| refuse("it names no port"))?;
        Self::new(host, port)
    }

    /// The host: a name in lower case, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as an address, if it is not a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// True if it is known, without asking anyone, to be on the host's own loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.ip() {
            Some(ip) => is_loopback(ip),
            None => is_localhost(&self.host),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = NetError;

    /// Parses `host:port` or `[v6]:port`.
    fn from_str(text: &str) -> Result<Self, NetError> {
        let refuse = |reason: &str| NetError::Endpoint { text: text.to_owned(), reason: reason.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| refuse("it names no port"))?;
        let port = port.parse().map_err(|_| refuse("its port is no number up to 65535"))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(refuse("an IPv6 address before a port needs brackets"));
        }
        Self::new(host, port)
    }
}

/// `localhost` and the names below it are loopback addresses by RFC 6761.
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// Why an address is no single host that can be listened for in the guest and dialled on the host.
fn unreachable_because(ip: IpAddr) -> Option<&'static str> {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() {
        Some("the unspecified address is no host")
    } else if ip.is_multicast() || broadcast {
        Some("a multicast or broadcast address is no host")
    } else if link_local {
        Some("a link-local address needs an interface, which a job does not have")
    } else {
        None
    }
}

/// Letters, digits, hyphens, underscores (which are in use, though no standard has them) in labels between dots.
/// What passes can stand in `/etc/hosts`.
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A last label of digits would be read as an address by some resolvers.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= MAX_NAME && !numeric && name.split('.').all(label)
}

#[cfg(test)]
mod tests;
