//! What the guest is to set up.

use std::{os::fd::OwnedFd, sync::Arc};

use tart_proto::message::{Configure, Interface, Listen};

/// What a guest needs to reach what it may. The runner hands it to the driver ([`GuestNetwork::nic`]) and the agent.
#[derive(Debug, Clone, Default)]
pub struct GuestNetwork {
    /// Interfaces that the agent brings up.
    pub interfaces: Vec<Interface>,
    /// Lines of `/etc/hosts`: address and names.
    pub hosts: Vec<(String, Vec<String>)>,
    /// Name servers of `/etc/resolv.conf`.
    pub nameservers: Vec<String>,
    /// Search domains of `/etc/resolv.conf`.
    pub search_domains: Vec<String>,
    /// Listeners whose connections come back to [`crate::RelayTargets::serve`]. Several may have one
    /// [`Listen::forward`].
    pub listens: Vec<Listen>,
    /// The network device, if there is to be one.
    pub nic: Option<Nic>,
    /// Variables that tell the job's programs of a proxy.
    pub proxy_env: Vec<(String, String)>,
}

impl GuestNetwork {
    /// Adds interfaces and names to a request that configures the guest.
    pub fn add_to(&self, configure: &mut Configure) {
        configure.interfaces.extend(self.interfaces.iter().cloned());
        configure.hosts.extend(self.hosts.iter().cloned());
        configure.nameservers.extend(self.nameservers.iter().cloned());
        configure.search_domains.extend(self.search_domains.iter().cloned());
    }
}

/// A network device of a machine.
#[derive(Debug, Clone)]
pub struct Nic {
    /// MAC address, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// The host's end of it.
    pub link: NicLink,
}

/// The host's end of a network device.
#[derive(Debug, Clone)]
pub enum NicLink {
    /// A connected stream socket that carries frames, each after its length in 32 bits, as `passt` and QEMU's
    /// `-netdev stream` speak.
    Stream(Arc<OwnedFd>),
    /// An opened tap device.
    Tap(Arc<OwnedFd>),
    /// A tap device that the monitor opens itself, in a network namespace.
    Device {
        /// Its name.
        name: String,
        /// The namespace, which the monitor has to be started in.
        namespace: Arc<OwnedFd>,
    },
}

impl NicLink {
    /// The descriptor that a monitor is given.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        match self {
            Self::Stream(descriptor) | Self::Tap(descriptor) | Self::Device { namespace: descriptor, .. } => {
                descriptor
            }
        }
    }
}
