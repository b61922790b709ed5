//! The real binary, real microVMs, real git, a strict GitLab server.
#![cfg(feature = "slow-tests")]

mod artifacts;
mod cache;
mod docker;
mod endings;
mod exec;
mod firecracker;
mod floods;
mod images;
mod jobs;
mod large;
mod netns;
mod network;
mod objects;
mod packaging;
mod peers;
mod registry;
mod secrets;
mod services;
mod signals;
mod sources;
mod starts;
mod terminal;
