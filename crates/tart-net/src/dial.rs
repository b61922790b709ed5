//! Connecting to an endpoint on behalf of a guest.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::{Endpoint, endpoint::is_localhost};

/// Addresses of a name that are tried at most.
const MAX_ADDRESSES: usize = 8;

/// Connects to an endpoint, trying the addresses of a name in order.
///
/// # Errors
/// The last address's error, `TimedOut` after `limit` for all together, or `NotFound` for a name without addresses.
pub(crate) async fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<TcpStream> {
    let connected = timeout(limit, async {
        let addresses = resolve(endpoint).await?;
        let each = limit / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = timed_out(),
            }
        }
        Err(last)
    });
    let stream = connected.await.unwrap_or_else(|_| Err(timed_out()))?;
    // Small messages of a request and its answer must not wait for each other; it fails only on a dead connection.
    let _dead = stream.set_nodelay(true);
    Ok(stream)
}

async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = (endpoint.host(), endpoint.port());
    if is_localhost(host) {
        // Not every resolver knows the names below `localhost`.
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Ok(lookup_host((host, port)).await?.take(MAX_ADDRESSES).collect())
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn names_of_the_loopback_are_dialled_without_a_resolver() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "gitlab.localhost"] {
            let endpoint = Endpoint::new(host, port).unwrap();
            let (connected, accepted) = tokio::join!(connect(&endpoint, LIMIT), listener.accept());
            assert_eq!(connected.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_an_error() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = connect(&Endpoint::new("127.0.0.1", port).unwrap(), LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
