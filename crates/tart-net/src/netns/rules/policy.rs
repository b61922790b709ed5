//! What a policy makes of a guest's rules. It is numbers and addresses only: which names a rule is about is the
//! forwarder's affair, so that nothing of a configuration's text gets into a script. Pure.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{FAMILIES, Family, MAX_NAMED, TABLE, family};
use crate::{Egress, Rule, policy::Destination};

/// A policy as the kernel's rules know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::netns) struct Policy {
    /// Nothing is reached but what `allow` has.
    pub(in crate::netns) listed: bool,
    pub(in crate::netns) allow: Vec<Match>,
    pub(in crate::netns) deny: Vec<Match>,
    pub(in crate::netns) job: Option<Vec<Match>>,
}

/// What one rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::netns) struct Match {
    pub(in crate::netns) to: To,
    /// First and last port of TCP and UDP; every protocol without them.
    pub(in crate::netns) ports: Option<(u16, u16)>,
}

/// Destinations of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::netns) enum To {
    /// A network: its first address and the length of its prefix.
    Net(IpAddr, u8),
    /// The addresses of names: what is put into its set.
    Named,
}

/// The lists of a policy whose names have sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::netns) enum List {
    /// [`Egress::allow`].
    Allow,
    /// [`Egress::job`].
    Job,
}

impl List {
    fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Job => "job",
        }
    }

    /// Both, with their rules.
    pub(in crate::netns) fn all(egress: &Egress) -> [(Self, &[Rule]); 2] {
        [(Self::Allow, &egress.allow), (Self::Job, egress.job.as_deref().unwrap_or_default())]
    }
}

/// Where the IPv4 addresses of a rule's names go to; those of IPv6 go to one with a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::netns) struct Set {
    pub(in crate::netns) list: List,
    /// The rule's position in it.
    pub(in crate::netns) rule: usize,
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.list.name(), self.rule)
    }
}

/// An address for a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::netns) struct Element {
    pub(in crate::netns) set: Set,
    pub(in crate::netns) address: IpAddr,
    /// How long it stays, in seconds.
    pub(in crate::netns) seconds: u32,
}

impl From<&Egress> for Policy {
    fn from(egress: &Egress) -> Self {
        let matches = |rules: &[Rule]| rules.iter().map(Match::from).collect();
        let mut deny: Vec<_> = matches(&egress.deny);
        // Denied names are not looked up; that is all.
        deny.retain(|rule| rule.to != To::Named);
        Self {
            listed: egress.listed,
            allow: matches(&egress.allow),
            deny,
            job: egress.job.as_deref().map(matches),
        }
    }
}

impl From<&Rule> for Match {
    fn from(rule: &Rule) -> Self {
        let to = match rule.target {
            Destination::Net(address, prefix) => To::Net(address, prefix),
            Destination::Name { .. } => To::Named,
        };
        Self { to, ports: rule.ports.as_ref().map(|ports| (*ports.start(), *ports.end())) }
    }
}

impl Policy {
    /// All its lists.
    pub(in crate::netns) fn lists(&self) -> [&[Match]; 3] {
        [&self.allow, &self.deny, self.job.as_deref().unwrap_or_default()]
    }

    /// Whether one of its rules has that set.
    pub(in crate::netns) fn has(&self, set: Set) -> bool {
        let list = match set.list {
            List::Allow => self.allow.as_slice(),
            List::Job => self.job.as_deref().unwrap_or_default(),
        };
        list.get(set.rule).is_some_and(|rule| rule.to == To::Named)
    }

    /// What changes the rules that every guest begins with to those of the policy.
    pub(in crate::netns) fn script(&self) -> String {
        let mut text = format!("flush chain inet {TABLE} egress\ntable inet {TABLE} {{\n");
        let job = self.job.as_deref();
        for (list, rules) in [(List::Allow, self.allow.as_slice()), (List::Job, job.unwrap_or_default())] {
            for (rule, _) in rules.iter().enumerate().filter(|(_, rule)| rule.to == To::Named) {
                for Family { suffix, address, .. } in FAMILIES {
                    let kind = format!("{{ type {address}; flags timeout; size {MAX_NAMED}; }}");
                    line(&mut text, &format!("set {}{suffix} {kind}", Set { list, rule }));
                }
            }
        }
        if let Some(rules) = job {
            line(&mut text, "chain job {");
            for (position, rule) in rules.iter().enumerate() {
                ending(&mut text, &rule.matching(Set { list: List::Job, rule: position }), "return");
            }
            line(&mut text, "  goto denied");
            line(&mut text, "}");
        }
        line(&mut text, "chain egress {");
        line(&mut text, "  ip daddr @never goto denied");
        line(&mut text, "  ip6 daddr @never_v6 goto denied");
        for rule in &self.deny {
            if let To::Net(address, prefix) = rule.to {
                ending(&mut text, &[rule.with_ports(net(address, prefix))], "goto denied");
            }
        }
        if job.is_some() {
            line(&mut text, "  jump job");
        }
        for (position, rule) in self.allow.iter().enumerate() {
            let set = Set { list: List::Allow, rule: position };
            ending(&mut text, &rule.matching(set), "goto allowed");
        }
        line(&mut text, "  ip daddr @private goto denied");
        line(&mut text, "  ip6 daddr @private_v6 goto denied");
        line(&mut text, if self.listed { "  goto denied" } else { "  goto allowed" });
        text.push_str("  }\n}\n");
        text
    }
}

impl Match {
    /// What packets to its destinations match, in either family.
    fn matching(self, set: Set) -> Vec<String> {
        match self.to {
            To::Net(address, prefix) => vec![self.with_ports(net(address, prefix))],
            To::Named => FAMILIES
                .iter()
                .map(|family| self.with_ports(format!("{} daddr @{set}{}", family.ip, family.suffix)))
                .collect(),
        }
    }

    fn with_ports(self, to: String) -> String {
        match self.ports {
            Some((first, last)) => format!("{to} meta l4proto {{ tcp, udp }} th dport {first}-{last}"),
            None => to,
        }
    }
}

fn net(address: IpAddr, prefix: u8) -> String {
    format!("{} daddr {address}/{prefix}", family(address).ip)
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _written = writeln!(text, "  {line}");
}

/// Lines of a chain: what ends how.
fn ending(text: &mut String, matches: &[String], verdict: &str) {
    for matching in matches {
        line(text, &format!("  {matching} {verdict}"));
    }
}

/// Puts addresses into sets for some seconds. Those that are there already are given the new time.
pub(in crate::netns) fn elements(added: &[Element]) -> String {
    let mut text = String::new();
    for Element { set, address, seconds } in added {
        let set = format!("inet {TABLE} {set}{}", family(*address).suffix);
        // An element's time is that of its first addition, and only what is there can be deleted.
        let _written = writeln!(
            text,
            "add element {set} {{ {address} }}\n\
             delete element {set} {{ {address} }}\n\
             add element {set} {{ {address} timeout {seconds}s }}"
        );
    }
    text
}
