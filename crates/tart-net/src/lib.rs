//! How a job's guest reaches the network: plans for the guest, and the host-side ends of its connections.
//!
//! A [`Network`] turns an [`AttachRequest`] (what a job may reach) into an [`Attachment`]: what the guest is to set
//! up ([`GuestNetwork`]), and what serves the connections that the guest's agent forwards ([`RelayTargets`]).
//!
//! * [`RelayNetwork`]: no network device at all. Every allowed endpoint is a listener on the guest's own loopback,
//!   whose connections are relayed over the agent's stream to exactly that endpoint. Needs no privileges.
//! * [`PasstNetwork`]: a network device whose packets the `passt` program turns into ordinary sockets of the host.
//!   What only the host can reach (its loopback, services of Tart itself) is still relayed.
//! * [`NetnsNetwork`]: a network device in a network namespace of the guest's own, whose rules are the kernel's. Needs
//!   the rights to make namespaces and rules, or a root helper that has them ([`serve_network`]).
//! * [`NoNetwork`]: nothing but services of Tart itself.

mod copy;
mod dial;
mod endpoint;
mod error;
mod guest;
mod netns;
mod network;
mod none;
mod passt;
mod plan;
mod policy;
mod relay;

pub use endpoint::Endpoint;
pub use error::NetError;
pub use guest::{GuestNetwork, Nic, NicLink};
pub use netns::{NetnsNetwork, NetnsOptions, NetworkServer, NetworkServerOptions, serve_network};
pub use network::{
    Allowed, AttachRequest, Attachment, Carried, Denied, Network, RelayTargets, Reservation, StreamService,
    Target, Usage,
};
pub use none::NoNetwork;
pub use passt::PasstNetwork;
pub use policy::{Egress, Rule, parse_job_rules, parse_rules};
pub use relay::{Counters, RelayNetwork, RelayOptions};
