//! Host side of the guest agent: sessions, commands and file streams.
//!
//! [`Guest::connect`] shakes hands with the agent on any byte stream and waits until it says that it is ready. A
//! [`Guest`] then sets the machine up, moves files, and runs a [`Command`] with live output and control. Connections
//! that the guest opens towards the host go to a [`Relay`].
//!
//! The guest is hostile. What it may make the host keep is bounded by the limits of [`tart_proto`]: a command's output
//! waits in the guest until it is read here. Whatever breaks a rule ends the session with a [`GuestError`] that says
//! so; text from the guest is cut to a length and stripped of control characters before it is in an error.

mod command;
mod connect;
mod control;
mod error;
mod files;
mod guest;
mod listener;
mod relay;
mod request;
mod session;
mod text;

pub use command::{Command, CommandEvent};
pub use control::CommandControl;
pub use error::GuestError;
pub use guest::Guest;
pub use listener::Listener;
pub use relay::{NoRelay, Relay};
pub use text::{MAX_TEXT, plain};
