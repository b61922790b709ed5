//! Which network guests get.

use std::sync::Arc;

use tart_config::NetworkMode;
use tart_net::{AttachRequest, NetError, Network, NoNetwork, PasstNetwork, RelayNetwork};

/// The network of the configuration, and what is worth saying about the choice. `auto` is passt where it works.
pub(super) async fn choose(mode: NetworkMode) -> Result<(Arc<dyn Network>, Vec<String>), NetError> {
    Ok(match mode {
        NetworkMode::Relay => (Arc::new(RelayNetwork::default()), Vec::new()),
        NetworkMode::None => (Arc::new(NoNetwork), Vec::new()),
        NetworkMode::Passt => (Arc::new(PasstNetwork::detect(None)?), Vec::new()),
        NetworkMode::Auto => match passt().await {
            Ok(passt) => (Arc::new(passt), Vec::new()),
            Err(error) => {
                let note = format!("jobs have no internet access: {error}");
                (Arc::new(RelayNetwork::default()), vec![note])
            }
        },
    })
}

/// That the program is there proves nothing: it is tried.
async fn passt() -> Result<PasstNetwork, NetError> {
    let passt = PasstNetwork::detect(None)?;
    let request = AttachRequest { id: "trial".to_owned(), ..AttachRequest::default() };
    passt.attach(&request).await?.detach().await;
    Ok(passt)
}
