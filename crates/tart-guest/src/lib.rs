//! Host side of the guest agent: sessions, commands and file streams.
