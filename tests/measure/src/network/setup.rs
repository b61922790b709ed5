//! How long a guest waits for its network, made for it and made before, and what the host's own `ip` takes for a
//! namespace and a link.

use std::time::{Duration, Instant};

use anyhow::Result;
use tart_net::{AttachRequest, NetnsNetwork, NetnsOptions, Network as _};

use super::lab::ip;
use crate::report::{quantile, row};

const ROUNDS: u32 = 30;

/// Long enough to make a namespace between two guests.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints the rows. `host` is the name of a namespace that is the host.
pub(super) async fn rows(host: &str) -> Result<()> {
    let (cold, pooled, gone) = measure(&format!("/run/netns/{host}")).await?;
    let plain = plain(host)?;
    let of = "`ip netns add`, a link and addresses";
    row("a guest's network, made for it", cold, plain, of);
    row("a guest's network, from the pool", pooled, plain, of);
    row("a guest's network, removed", gone, plain, of);
    Ok(())
}

/// Medians of attaching without and with a pool, and of detaching.
async fn measure(host: &str) -> Result<(Duration, Duration, Duration)> {
    let (mut gone, mut attached) = (Vec::new(), Vec::new());
    for ready in [0, 1] {
        let network = NetnsNetwork::start(NetnsOptions {
            namespace: Some(host.into()),
            ready,
            ..NetnsOptions::default()
        })
        .await?;
        // The first namespace is made at the start.
        network.attach(&AttachRequest::default()).await?.detach().await;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            let attachment = network.attach(&AttachRequest::default()).await?;
            times.push(start.elapsed());
            let start = Instant::now();
            attachment.detach().await;
            gone.push(start.elapsed());
        }
        attached.push(median(times));
    }
    let pooled = attached.pop().unwrap_or_default();
    Ok((attached.pop().unwrap_or_default(), pooled, median(gone)))
}

/// What the plainest namespace with a link costs.
fn plain(host: &str) -> Result<Duration> {
    let inner = format!("{host}-x");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        ip(&format!("netns add {inner}"))?;
        ip(&format!("-n {inner} link add wan type veth peer name x0 netns {host}"))?;
        ip(&format!("-n {inner} address add 169.254.99.1/31 dev wan"))?;
        ip(&format!("-n {inner} link set wan up"))?;
        ip(&format!("-n {host} address add 169.254.99.0/31 dev x0"))?;
        ip(&format!("-n {host} link set x0 up"))?;
        times.push(start.elapsed());
        ip(&format!("-n {host} link delete x0"))?;
        ip(&format!("netns delete {inner}"))?;
    }
    Ok(median(times))
}

fn median(times: Vec<Duration>) -> Duration {
    quantile(&times, 0.5)
}
