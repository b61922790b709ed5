//! Waiting until somebody listens.

use std::{net::SocketAddr, time::Duration};

use tart_proto::time::scaled;
use tokio::net::TcpStream;

/// Between two attempts. A port that nobody listens on refuses at once, so the pause is what an attempt costs.
const PAUSE: Duration = Duration::from_millis(100);

/// How long an attempt may take: an address that nobody has answers never.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Returns when a connection was accepted.
pub(crate) async fn await_port(address: SocketAddr) {
    while !matches!(tokio::time::timeout(scaled(ATTEMPT), TcpStream::connect(address)).await, Ok(Ok(_))) {
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_ends_the_wait_and_nothing_else_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        await_port(address).await;
        drop(listener);
        assert!(tokio::time::timeout(PAUSE / 2, await_port(address)).await.is_err());
    }
}
