//! Which network guests get, and what it lets them reach.

use std::sync::Arc;

use tart_config::{EgressMode, NetworkMode};
use tart_net::{
    AttachRequest, Egress, NetError, NetnsNetwork, NetnsOptions, Network, NoNetwork, PasstNetwork,
    RelayNetwork, parse_rules,
};

/// The network of the configuration, and what is worth saying about the choice. `auto` is the first that works of a
/// namespace for each guest, passt, and the relay; but passt only if there is no policy, which it cannot enforce.
pub(super) async fn choose(
    mode: NetworkMode,
    egress: &Egress,
) -> Result<(Arc<dyn Network>, Vec<String>), NetError> {
    Ok(match mode {
        NetworkMode::Relay => (Arc::new(RelayNetwork::default()), Vec::new()),
        NetworkMode::None => (Arc::new(NoNetwork), Vec::new()),
        NetworkMode::Netns => (Arc::new(NetnsNetwork::start(NetnsOptions::default()).await?), Vec::new()),
        NetworkMode::Passt => (Arc::new(passt(egress).await?), Vec::new()),
        NetworkMode::Auto => {
            let error = match NetnsNetwork::start(NetnsOptions::default()).await {
                Ok(netns) => return Ok((Arc::new(netns), Vec::new())),
                Err(error) => error,
            };
            match passt(egress).await {
                Ok(passt) => {
                    let lacks =
                        "jobs reach the private networks of this host, and there is no network policy";
                    (Arc::new(passt), vec![format!("{lacks}: {error}")])
                }
                Err(other) => {
                    let note = format!("jobs have no internet access: {error}; {other}");
                    (Arc::new(RelayNetwork::default()), vec![note])
                }
            }
        }
    })
}

/// That the program is there proves nothing: it is tried.
async fn passt(egress: &Egress) -> Result<PasstNetwork, NetError> {
    let passt = PasstNetwork::detect(None)?;
    let request =
        AttachRequest { id: "trial".to_owned(), egress: egress.clone(), ..AttachRequest::default() };
    passt.attach(&request).await?.detach().await;
    Ok(passt)
}

/// The policy of a configuration.
pub(super) fn egress(network: &tart_config::Network) -> Result<Egress, NetError> {
    let rules = |entries: &[String]| parse_rules(entries.iter().map(String::as_str));
    Ok(Egress {
        listed: network.egress == EgressMode::Listed,
        allow: rules(&network.allow)?,
        deny: rules(&network.deny)?,
        job: None,
    })
}
