//! The server behind interactive web terminals (protocol reference section 9).
//!
//! [`SessionServer`] listens with TLS and a certificate of its own. Every request for a job offers GitLab a
//! [`Session`]: an address and a token that nobody can guess. Once there is a job, GitLab connects a person's browser
//! with it, and the session connects that with a shell, behind [`Terminal`].

mod certificate;
mod error;
mod frames;
mod request;
mod server;
mod session;
mod socket;
mod terminal;

pub use error::SessionError;
pub use frames::{BASE64, Control, PLAIN};
pub use server::{ServerOptions, SessionServer};
pub use session::{Offer, Session};
pub use terminal::{Terminal, TerminalInput, TerminalOutput};
