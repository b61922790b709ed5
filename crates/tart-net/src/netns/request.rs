//! What a runner asks its helper for, about the network of one guest.
//!
//! A connection begins with [`Request::Create`] (or is for [`Request::Describe`] only); what else there is comes after
//! that. Nothing here is a text that could get into a script.

use serde::{Deserialize, Serialize};

use super::{
    host::Facts,
    rules::{Element, Policy},
};

/// A request. Every one is answered by one [`Given`] or what was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// What the host is like.
    Describe,
    /// A namespace. With the answer come the sockets of its name server, UDP and TCP, and the guest's device.
    Create {
        /// Not the open tap device, but the namespace that a monitor opens it in.
        named_tap: bool,
    },
    /// Replaces the rules that every namespace begins with by those of a policy, once.
    Rule(Policy),
    /// Bounds the bytes in a second, once.
    Shape {
        /// So many, each way.
        bytes: u64,
    },
    /// Puts addresses into sets of the policy.
    Hold(Vec<Element>),
    /// What the rules have counted. With the answer comes a file of `nft`'s words, which may be long.
    Counts,
    /// Removes it; the answer comes when that is done.
    Remove,
}

/// Addresses of one [`Request::Hold`] at most, so that it fits into a message.
pub(super) const MAX_ELEMENTS: usize = 512;

/// What a request gave.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Given {
    /// It is done.
    Done,
    /// To [`Request::Describe`] and [`Request::Create`].
    Host(Described),
}

/// A host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Described {
    /// Names its network namespace, as of [`super::system::Namespace::key`].
    pub(super) namespace: String,
    /// What guests have to do with.
    pub(super) facts: Facts,
}
