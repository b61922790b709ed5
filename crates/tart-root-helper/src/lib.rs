//! The connection between a runner without privileges and its helper, which is root and does the few things that only
//! root can: networks of guests, and monitors with users of their own.
//!
//! Every connection is one object of the host: its first message ([`Open`]) says of what kind, and when it closes, the
//! helper takes the object down. So nothing outlives the runner, whatever ends it. Messages are JSON, one to a packet,
//! with the descriptors that they are about; their types are with the code that carries them out.

mod connection;
mod error;
mod line;
mod listener;

pub use connection::{Connection, MAX_DESCRIPTORS, MAX_MESSAGE, Received};
pub use error::HelperError;
pub use line::Line;
pub use listener::{Listener, Peer};

use serde::{Deserialize, Serialize};

/// Where the helper listens, if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tart/root-helper.sock";

/// What a connection is about: its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Open {
    /// The network namespace of one guest.
    Network,
    /// The monitor of one machine.
    Monitor,
    /// A Firecracker in a jail.
    Jail,
}

/// An answer to a request: what was asked for, or what went wrong, for people.
pub type Answer<T> = Result<T, String>;
