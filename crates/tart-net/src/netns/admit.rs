//! Which requests of a runner the helper carries out: it trusts the runner with the policies of guests, but not with
//! anything else of the host. Pure.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{
    request::{MAX_ELEMENTS, Request},
    rules::{Element, HOLD, MAX_NAMED, Match, Policy, Set, To},
};
use crate::policy::{MAX_RULES, bits, first};

/// Bytes in a second at most: what `tc` has numbers for.
const MAX_BYTES: u64 = 1 << 37;

/// Addresses that are in sets at once. A runner has half as many, but may forget some a moment before.
const MAX_HELD: usize = 2 * MAX_NAMED;

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this guest has no network yet")]
    NotMade,
    #[error("this guest has its network already")]
    Made,
    #[error("this guest has its policy already")]
    Ruled,
    #[error("this guest has its bandwidth already")]
    Shaped,
    #[error("a list of a policy has {0} entries; {MAX_RULES} are the most")]
    LongList(usize),
    #[error("{0}/{1} is no network: only its first address and a prefix of its family name it")]
    Net(IpAddr, u8),
    #[error("{0}-{1} are no ports")]
    Ports(u16, u16),
    #[error("{0} bytes in a second are no bandwidth; it is from 1 to {MAX_BYTES}")]
    Bandwidth(u64),
    #[error("the policy has no names whose addresses go to {0}")]
    NoSet(Set),
    #[error("{0} addresses at once; {MAX_ELEMENTS} are the most")]
    ManyElements(usize),
    #[error(
        "{0} seconds are no time for an address; it is from {first} to {last}",
        first = HOLD.start(),
        last = HOLD.end()
    )]
    Lifetime(u32),
    #[error("more than {MAX_HELD} addresses are let through by name")]
    Held,
}

/// How far the requests of one connection have come.
#[derive(Debug, Default)]
pub(super) struct Admission {
    made: bool,
    shaped: bool,
    policy: Option<Policy>,
    /// Until when addresses are in sets.
    held: HashMap<(Set, IpAddr), Instant>,
}

impl Admission {
    /// Whether a request is carried out, which it counts as then.
    pub(super) fn admit(&mut self, request: &Request, now: Instant) -> Result<(), Refusal> {
        if !self.made && !matches!(request, Request::Describe | Request::Create { .. }) {
            return Err(Refusal::NotMade);
        }
        match request {
            Request::Describe | Request::Counts | Request::Remove => {}
            Request::Create { .. } => once(&mut self.made, Refusal::Made)?,
            Request::Rule(_) if self.policy.is_some() => return Err(Refusal::Ruled),
            Request::Rule(policy) => {
                check(policy)?;
                self.policy = Some(policy.clone());
            }
            Request::Shape { bytes } if !(1..=MAX_BYTES).contains(bytes) => {
                return Err(Refusal::Bandwidth(*bytes));
            }
            Request::Shape { .. } => once(&mut self.shaped, Refusal::Shaped)?,
            Request::Hold(elements) => self.hold(elements, now)?,
        }
        Ok(())
    }

    fn hold(&mut self, elements: &[Element], now: Instant) -> Result<(), Refusal> {
        if elements.len() > MAX_ELEMENTS {
            return Err(Refusal::ManyElements(elements.len()));
        }
        for Element { set, seconds, .. } in elements {
            if !self.policy.as_ref().is_some_and(|policy| policy.has(*set)) {
                return Err(Refusal::NoSet(*set));
            }
            if !HOLD.contains(seconds) {
                return Err(Refusal::Lifetime(*seconds));
            }
        }
        self.held.retain(|_, until| *until > now);
        for Element { set, address, seconds } in elements {
            let until = now + Duration::from_secs((*seconds).into());
            if self.held.len() == MAX_HELD && !self.held.contains_key(&(*set, *address)) {
                return Err(Refusal::Held);
            }
            self.held.insert((*set, *address), until);
        }
        Ok(())
    }
}

fn once(done: &mut bool, refusal: Refusal) -> Result<(), Refusal> {
    if std::mem::replace(done, true) { Err(refusal) } else { Ok(()) }
}

/// Whether a policy is one that a configuration could have.
fn check(policy: &Policy) -> Result<(), Refusal> {
    for list in policy.lists() {
        if list.len() > MAX_RULES {
            return Err(Refusal::LongList(list.len()));
        }
        for Match { to, ports } in list {
            if let To::Net(address, prefix) = *to
                && (prefix > bits(address) || first(address, prefix) != address)
            {
                return Err(Refusal::Net(address, prefix));
            }
            if let Some((first, last)) = *ports
                && (first == 0 || first > last)
            {
                return Err(Refusal::Ports(first, last));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
