//! No network.

use async_trait::async_trait;

use crate::{
    AttachRequest, Attachment, NetError, Network, Nic, RelayOptions, Reservation, Target, plan,
    relay::RelayAttachment,
};

/// The guest reaches no network at all, only services of Tart itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    fn name(&self) -> &'static str {
        "none"
    }

    fn describe(&self) -> String {
        "none: jobs reach nothing, not even the GitLab server".to_owned()
    }

    async fn reserve(&self, _id: &str) -> Result<Box<dyn Reservation>, NetError> {
        Ok(Box::new(*self))
    }
}

#[async_trait]
impl Reservation for NoNetwork {
    fn nic(&self) -> Option<&Nic> {
        None
    }

    async fn attach(self: Box<Self>, request: &AttachRequest) -> Result<Box<dyn Attachment>, NetError> {
        let mut services = request.allowed.clone();
        services.retain(|allowed| matches!(allowed.target, Target::Service(_)));
        let plan = plan::plan(&services, &request.extra_hosts)?;
        Ok(Box::new(RelayAttachment::new(&request.id, plan, RelayOptions::default())))
    }
}
