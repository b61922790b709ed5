//! The client against servers: the strict one of this project, scripted ones, and an independent mock.

mod artifacts;
mod independent;
mod jobs;
mod odd_answers;
mod polling;
mod registration;
mod support;
mod tls;
