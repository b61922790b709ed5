//! How long a guest waits for its network, made for it and made before, and what the host's own `ip` takes for a
//! namespace and a link. Needs root; works in a network namespace of its own.

use std::{
    io::{self, Write as _},
    process::Command,
    time::{Duration, Instant},
};

use tart_net::{AttachRequest, NetError, NetnsNetwork, NetnsOptions, Network as _};

const ROUNDS: u32 = 30;

/// Long enough to make a namespace between two guests.
const PAUSE: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let name = format!("tb{}", std::process::id());
    ip(&["netns", "add", &name])?;
    let measured = measure(&format!("/run/netns/{name}")).await;
    let plain = plain(&name);
    ip(&["netns", "delete", &name])?;
    let ((cold, pooled, gone), plain) = (measured.map_err(io::Error::other)?, plain?);
    let mut out = io::stdout().lock();
    let ratio = |time: Duration| time.as_secs_f64() / plain.as_secs_f64();
    writeln!(out, "`ip netns add`, veth, addresses: {plain:.2?} (median of {ROUNDS})")?;
    writeln!(out, "attached, cold:   {cold:.2?}, {:.2} of that; with rules, tap, name server", ratio(cold))?;
    writeln!(out, "attached, pooled: {pooled:.2?}, {:.3} of that", ratio(pooled))?;
    writeln!(out, "detached:         {gone:.2?}, {:.2} of that", ratio(gone))
}

/// Medians of attaching without and with a pool, and of detaching.
async fn measure(host: &str) -> Result<(Duration, Duration, Duration), NetError> {
    let (mut gone, mut attached) = (Vec::new(), Vec::new());
    for ready in [0, 1] {
        let network = NetnsNetwork::start(NetnsOptions { namespace: Some(host.into()), ready }).await?;
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
fn plain(host: &str) -> io::Result<Duration> {
    let inner = format!("{host}-x");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        ip(&["netns", "add", &inner])?;
        ip(&["-n", &inner, "link", "add", "wan", "type", "veth", "peer", "name", "x0", "netns", host])?;
        ip(&["-n", &inner, "address", "add", "169.254.99.1/31", "dev", "wan"])?;
        ip(&["-n", &inner, "link", "set", "wan", "up"])?;
        ip(&["-n", host, "address", "add", "169.254.99.0/31", "dev", "x0"])?;
        ip(&["-n", host, "link", "set", "x0", "up"])?;
        times.push(start.elapsed());
        ip(&["-n", host, "link", "delete", "x0"])?;
        ip(&["netns", "delete", &inner])?;
    }
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let status = Command::new("ip").args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("ip {arguments:?}: {status}"))) }
}
