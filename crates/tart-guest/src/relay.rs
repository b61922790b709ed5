//! Connections from the guest to the host.

use async_trait::async_trait;
use tart_proto::Stream;

/// Serves the connections that listeners in the guest accept.
#[async_trait]
pub trait Relay: Send + Sync {
    /// Serves one connection: bytes flow on channel 0 both ways. `forward` names the listener, see
    /// [`tart_proto::message::Listen`], but is the guest's word. Dropping the stream resets the connection. The
    /// future is dropped when the session ends.
    async fn serve(&self, forward: u32, stream: Stream);
}

/// Refuses every connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRelay;

#[async_trait]
impl Relay for NoRelay {
    async fn serve(&self, _forward: u32, stream: Stream) {
        stream.split().1.reset("nothing is forwarded");
    }
}
