//! Which network guests get, and what it lets them reach.

use std::path::PathBuf;
use std::sync::Arc;

use tart_config::{EgressMode, NetworkMode};
use tart_net::{
    AttachRequest, Egress, NetError, NetnsNetwork, NetnsOptions, Network, NoNetwork, PasstNetwork,
    RelayNetwork, parse_rules,
};

/// The network of the configuration, made by the root helper if there is one, and what is worth saying about the choice. `auto` is the first that works of a
/// namespace for each guest, passt, and the relay; but passt only if there is no policy, which it cannot enforce.
pub(super) async fn choose(
    network: &tart_config::Network,
    egress: &Egress,
    named_taps: bool,
    helper: Option<PathBuf>,
) -> Result<(Arc<dyn Network>, Vec<String>), NetError> {
    let options = NetnsOptions { named_taps, helper, ..NetnsOptions::default() };
    let trial = AttachRequest {
        id: "trial".to_owned(),
        egress: egress.clone(),
        bandwidth: network.bandwidth.map(tart_config::ByteSize::bytes),
        ..AttachRequest::default()
    };
    Ok(match network.mode {
        NetworkMode::Relay => (Arc::new(RelayNetwork::default()), Vec::new()),
        NetworkMode::None => (Arc::new(NoNetwork), Vec::new()),
        NetworkMode::Netns => (Arc::new(NetnsNetwork::start(options).await?), Vec::new()),
        NetworkMode::Passt if named_taps => {
            let what = "be used with Firecracker, which needs a tap device: use `mode = \"netns\"`, `relay` or `none`";
            return Err(NetError::Unable { network: "passt", what: what.to_owned() });
        }
        NetworkMode::Passt => (Arc::new(passt(&trial).await?), Vec::new()),
        NetworkMode::Auto => {
            let error = match NetnsNetwork::start(options).await {
                Ok(netns) => return Ok((Arc::new(netns), Vec::new())),
                Err(error) => error,
            };
            if named_taps {
                let note = format!("jobs have no internet access: {error}");
                return Ok((Arc::new(RelayNetwork::default()), vec![note]));
            }
            match passt(&trial).await {
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
async fn passt(trial: &AttachRequest) -> Result<PasstNetwork, NetError> {
    let passt = PasstNetwork::detect(None)?;
    passt.attach(trial).await?.detach().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_what_the_configuration_says() {
        let network = tart_config::Network {
            egress: EgressMode::Listed,
            allow: vec!["10.0.0.0/8:443".to_owned()],
            deny: vec!["10.1.0.0/16".to_owned()],
            ..tart_config::Network::default()
        };
        let egress = egress(&network).unwrap();
        assert!(egress.listed && egress.job.is_none());
        assert_eq!(
            (egress.allow[0].to_string(), egress.deny[0].to_string()),
            ("10.0.0.0/8:443".into(), "10.1.0.0/16".into())
        );
        assert!(super::egress(&tart_config::Network::default()).unwrap().is_default());
    }

    #[tokio::test]
    async fn networks_that_reach_nothing_else_take_any_policy() {
        let egress = Egress { job: Some(Vec::new()), ..Egress::default() };
        for (mode, name) in [(NetworkMode::Relay, "relay"), (NetworkMode::None, "none")] {
            let network = tart_config::Network { mode, ..tart_config::Network::default() };
            assert_eq!(choose(&network, &egress, false, None).await.unwrap().0.name(), name);
        }
        let network = tart_config::Network { mode: NetworkMode::Passt, ..tart_config::Network::default() };
        insta::assert_snapshot!(choose(&network, &egress, true, None).await.unwrap_err(), @"the network `passt` cannot be used with Firecracker, which needs a tap device: use `mode = \"netns\"`, `relay` or `none`");
    }
}
