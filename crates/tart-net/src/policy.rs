//! What a job may reach beyond its own machine. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{NetError, endpoint::is_host_name};

/// Rules of one list at most.
pub(crate) const MAX_RULES: usize = 256;

/// What the guests of a runner may reach, and to what a job narrows that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// Nothing is reached but what `allow` names; otherwise also all public addresses.
    pub listed: bool,
    /// Reached even where it is a private network.
    pub allow: Vec<Rule>,
    /// Never reached, whatever `allow` says.
    pub deny: Vec<Rule>,
    /// The job's own list: of what it could reach, it reaches only this.
    pub job: Option<Vec<Rule>>,
}

impl Egress {
    /// Whether there is nothing to enforce beyond what every guest is subject to.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One entry of a list: an address, a network or a name, and perhaps ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    pub(crate) target: Destination,
    /// TCP and UDP ports; every protocol without them.
    pub(crate) ports: Option<RangeInclusive<u16>>,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A network: its first address and the length of its prefix.
    Net(IpAddr, u8),
    /// A name in lower case, without the `*.` of one that stands for all names below it.
    Name {
        /// The name.
        name: String,
        /// It stands for the names below it.
        below: bool,
    },
}

impl Rule {
    /// Whether it is about an address, on some port.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        match self.target {
            Destination::Net(start, prefix) => {
                start.is_ipv4() == address.is_ipv4() && first(address, prefix) == start
            }
            Destination::Name { .. } => false,
        }
    }

    /// Whether it is about a name that is looked up, in lower case and without a final dot.
    pub(crate) fn names(&self, looked_up: &str) -> bool {
        match &self.target {
            Destination::Net(..) => false,
            Destination::Name { name, below: false } => looked_up == name,
            Destination::Name { name, below: true } => looked_up
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Destination::Net(IpAddr::V6(address), prefix) if self.ports.is_some() => {
                write!(f, "[{address}/{prefix}]")?;
            }
            Destination::Net(address, prefix) if *prefix == bits(*address) => write!(f, "{address}")?,
            Destination::Net(address, prefix) => write!(f, "{address}/{prefix}")?,
            Destination::Name { name, below } => write!(f, "{}{name}", if *below { "*." } else { "" })?,
        }
        match &self.ports {
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
            None => Ok(()),
        }
    }
}

impl FromStr for Rule {
    type Err = NetError;

    /// Parses `10.0.0.0/8`, `192.0.2.1:443`, `fd00::/8`, `[2001:db8::1]:443`, `example.com:8000-8100` or
    /// `*.example.com`.
    fn from_str(text: &str) -> Result<Self, NetError> {
        let refuse = |reason: &str| NetError::Rule { text: text.to_owned(), reason: reason.to_owned() };
        let (host, ports) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or_default())),
            // More than one colon is an IPv6 address without a port.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, ports)| (host, Some(ports))),
        };
        let ports = match ports.map(parse_ports) {
            Some(None) => return Err(refuse("its port is no number from 1 to 65535")),
            ports => ports.flatten(),
        };
        let target = match host.split_once('/') {
            Some((address, prefix)) => {
                network(address, prefix).ok_or_else(|| refuse("it is no network such as 10.0.0.0/8"))?
            }
            None => match host.parse() {
                Ok(address) => Destination::Net(address, bits(address)),
                Err(_) => name(host).ok_or_else(|| refuse("it is neither an address nor a host name"))?,
            },
        };
        Ok(Self { target, ports })
    }
}

impl TryFrom<String> for Rule {
    type Error = NetError;

    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

fn network(address: &str, prefix: &str) -> Option<Destination> {
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= bits(address))?;
    Some(Destination::Net(first(address, prefix), prefix))
}

/// Bits of an address of its family.
pub(crate) fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of a network.
pub(crate) fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

fn name(text: &str) -> Option<Destination> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (below, name) = text.strip_prefix("*.").map_or((false, text.as_str()), |name| (true, name));
    is_host_name(name).then(|| Destination::Name { name: name.to_owned(), below })
}

/// Parses the entries of a list.
///
/// # Errors
/// [`NetError::Rule`] with the first entry that is none.
pub fn parse_rules<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Vec<Rule>, NetError> {
    let mut rules = Vec::new();
    for entry in entries {
        if rules.len() == MAX_RULES {
            let reason = format!("a list has at most {MAX_RULES} entries");
            return Err(NetError::Rule { text: entry.to_owned(), reason });
        }
        rules.push(entry.parse()?);
    }
    Ok(rules)
}

/// Parses what a job narrows its network to: entries between commas or blanks, or `none`. Blank means no narrowing.
///
/// # Errors
/// [`NetError::Rule`] with the first entry that is none: a job that cannot be narrowed as it asks must not run.
pub fn parse_job_rules(text: &str) -> Result<Option<Vec<Rule>>, NetError> {
    let mut entries =
        text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty()).peekable();
    if entries.peek().is_none() {
        return Ok(None);
    }
    if text.trim() == "none" {
        return Ok(Some(Vec::new()));
    }
    parse_rules(entries).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn entries_are_read_and_normalized() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0:53", "0.0.0.0/0:53"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1/32:80-90", "192.0.2.1:80-90"),
            ("Example.COM.", "example.com"),
            ("*.example.com:443", "*.example.com:443"),
            ("FD00::1/8", "fd00::/8"),
            ("::/0", "::/0"),
            ("[2001:db8::1]:443", "[2001:db8::1/128]:443"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(rule(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_with_the_reason() {
        let reasons: Vec<String> = [
            "10.0.0.0/33",
            "a b",
            "1.2.3",
            "x:0",
            "x:9-1",
            "x:http",
            "::1/129",
            "[::1]80",
            "[::1",
            "*",
            "*.*.x",
            "",
        ]
        .iter()
        .map(|text| text.parse::<Rule>().unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(reasons.join("\n"), @"
        `10.0.0.0/33` is no entry of a network policy: it is no network such as 10.0.0.0/8
        `a b` is no entry of a network policy: it is neither an address nor a host name
        `1.2.3` is no entry of a network policy: it is neither an address nor a host name
        `x:0` is no entry of a network policy: its port is no number from 1 to 65535
        `x:9-1` is no entry of a network policy: its port is no number from 1 to 65535
        `x:http` is no entry of a network policy: its port is no number from 1 to 65535
        `::1/129` is no entry of a network policy: it is no network such as 10.0.0.0/8
        `[::1]80` is no entry of a network policy: its port is no number from 1 to 65535
        `[::1` is no entry of a network policy: it is neither an address nor a host name
        `*` is no entry of a network policy: it is neither an address nor a host name
        `*.*.x` is no entry of a network policy: it is neither an address nor a host name
        `` is no entry of a network policy: it is neither an address nor a host name
        ");
    }

    #[test]
    fn a_network_covers_its_own_addresses_only() {
        let covers = |text: &str, address: &str| rule(text).covers(address.parse().unwrap());
        assert!(
            covers("10.0.0.0/8", "10.255.0.1") && covers("::/0", "::1") && covers("0.0.0.0/0", "1.2.3.4")
        );
        assert!(!covers("10.0.0.0/8", "11.0.0.0") && !covers("::/0", "1.2.3.4") && !covers("a.b", "1.2.3.4"));
    }

    #[test]
    fn a_star_stands_for_names_below_only() {
        let below = rule("*.example.com");
        assert!(below.names("a.example.com") && below.names("a.b.example.com"));
        assert!(
            !below.names("example.com") && !below.names("badexample.com") && !below.names(".example.com")
        );
        assert!(rule("example.com").names("example.com") && !rule("example.com").names("a.example.com"));
    }

    #[test]
    fn a_job_names_a_list_or_nothing() {
        assert_eq!(parse_job_rules(" , ").unwrap(), None);
        assert_eq!(parse_job_rules(" none ").unwrap(), Some(Vec::new()));
        assert_eq!(parse_job_rules("a.b, 10.0.0.0/8\nc.d:1").unwrap().unwrap().len(), 3);
        parse_job_rules("a.b, /").unwrap_err();
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(text in r"[a-z0-9*./:\[\]-]{0,20}") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
            }
        }
    }
}
