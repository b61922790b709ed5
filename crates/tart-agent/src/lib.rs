//! The agent that is PID 1 of every guest.
//!
//! It brings a bare kernel up ([`boot`]), finds the byte stream to the host ([`transport`]) and serves one host
//! session after the other on it ([`session`]): set-up, mounts, commands, files, forwards. It must outlive whatever
//! a job does to the guest, short of breaking the kernel: jobs run in cgroups that leave the agent memory and
//! process ids, and nothing that a job can make fail ends the agent.
//!
//! The crate is a library so that sessions run in tests on the host, over a socket pair and with real processes.

pub mod boot;
mod clock;
pub mod console;
mod entropy;
pub mod exec;
mod failure;
mod files;
mod forward;
pub mod machine;
mod mounts;
mod network;
mod readiness;
pub mod session;
pub mod shutdown;
mod stats;
pub mod transport;
pub mod tree;
mod uevent;
mod users;
