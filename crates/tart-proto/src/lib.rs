//! The byte protocol between the host and the guest agent.
//!
//! One reliable byte stream (a virtio-serial port on QEMU, a vsock connection on Firecracker) carries many
//! multiplexed streams. Three layers, each usable alone:
//!
//! * [`frame`]: the codec. Pure, no I/O; every length is checked before anything is allocated.
//! * [`message`]: what the frames say: typed requests, events and controls, encoded with postcard.
//! * [`mux`]: a tokio multiplexer with per-stream credits, the same code on both ends.
//!
//! The host treats every byte from the guest as hostile: a frame that breaks a rule ends the connection with an
//! error and costs at most the limits named in [`limits`].

pub mod frame;
pub mod limits;
pub mod message;
pub mod mux;
pub mod time;

pub use frame::{Decoder, Frame, FrameError, FrameKind, Item, Preamble};
pub use mux::{Incoming, Mux, MuxError, Role, Stream, StreamItem, StreamReader, StreamWriter};
