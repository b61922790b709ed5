//! Object stores on loopback, for tests. They share no code with what they test.
//!
//! [`S3Server`] is `s3s-fs`, made by others: it checks signatures and their age, and refuses what S3 refuses.
//! [`CloudServer`] checks signatures as Google's and Azure's documents say, and keeps objects in memory. It is also a
//! proxy that answers as the clouds' own hosts. Before both is a gate that can answer as a store in trouble does.

mod azure;
mod cloud;
mod gate;
mod google;
mod s3;
mod tls;

pub use cloud::CloudServer;
pub use gate::Seen;
pub use s3::{ACCESS_KEY, S3Server, SECRET_KEY};
