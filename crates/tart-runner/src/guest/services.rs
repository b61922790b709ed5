//! The network between a job and its services: a bridge in the guest. What services send out of the guest goes
//! through the job's own network device under the job's address, so that the host's rules hold for them too.

use std::net::{IpAddr, Ipv4Addr};

use tart_assets::ImageDisk;
use tart_guest::{CommandEvent, Guest};
use tart_proto::message::{Exec, ExitStatus, Interface, Limits, Output, Root, ServiceHost, ServiceNetwork};

use super::SetUpError;

/// The bridge.
const BRIDGE: &str = "services";

/// Its network, one that a container engine in the job does not choose for its own.
const NETWORK: Ipv4Addr = Ipv4Addr::new(172, 30, 253, 0);
const PREFIX: u8 = 24;

/// The job's name for services, as with `FF_NETWORK_PER_BUILD`.
const JOB: &str = "build";

/// Longest text of a failed translation that is shown, in bytes.
const MAX_TEXT: usize = 1000;

/// A service of a guest.
#[derive(Debug, Clone)]
pub(crate) struct ServiceGuest {
    /// Its image.
    pub(crate) image: ImageDisk,
    /// Its own host name.
    pub(crate) hostname: String,
    /// What others call it.
    pub(crate) names: Vec<String>,
}

/// The address of a service by its number.
pub(crate) fn address_of(number: u8) -> IpAddr {
    host(number.saturating_add(2)).into()
}

/// Makes the network. `interfaces` are the guest's own.
pub(super) async fn connect(
    guest: &Guest,
    services: &[ServiceGuest],
    interfaces: &[Interface],
) -> Result<(), SetUpError> {
    guest.service_network(&network(services, interfaces)).await?;
    if interfaces.is_empty() { Ok(()) } else { translate(guest).await }
}

fn network(services: &[ServiceGuest], interfaces: &[Interface]) -> ServiceNetwork {
    let numbered = || services.iter().zip(0_u8..);
    let hosts = numbered().map(|(service, number)| {
        let own = std::iter::once(service.hostname.clone());
        (address_of(number).to_string(), service.names.iter().cloned().chain(own).collect())
    });
    let job = (host(1).to_string(), vec![JOB.to_owned()]);
    ServiceNetwork {
        bridge: BRIDGE.to_owned(),
        gateway: format!("{}/{PREFIX}", host(1)),
        mtu: interfaces.iter().filter_map(|interface| interface.mtu).min(),
        services: numbered()
            .map(|(service, number)| ServiceHost {
                address: format!("{}/{PREFIX}", address_of(number)),
                hostname: service.hostname.clone(),
            })
            .collect(),
        hosts: hosts.chain([job]).collect(),
    }
}

fn host(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = NETWORK.octets();
    Ipv4Addr::new(a, b, c, number)
}

fn rules() -> String {
    format!(
        "table ip tart-services {{\n  chain postrouting {{\n    type nat hook postrouting priority srcnat\n    \
         ip saddr {NETWORK}/{PREFIX} oifname != \"{BRIDGE}\" masquerade\n  }}\n}}\n"
    )
}

/// Has the guest's kernel give what services send out the job's address.
async fn translate(guest: &Guest) -> Result<(), SetUpError> {
    let exec = Exec {
        root: Root::Helper,
        argv: ["nft", "-f", "-"].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
        cwd: "/".to_owned(),
        user: String::new(),
        output: Output::Merged,
        stdin: true,
        cgroup: "services".to_owned(),
        limits: Limits::default(),
    };
    let mut command = guest.exec(&exec).await?;
    let control = command.control();
    control.write_stdin(rules().into()).await?;
    control.close_stdin().await?;
    let mut said = Vec::new();
    loop {
        match command.next().await? {
            CommandEvent::Stdout(bytes) | CommandEvent::Stderr(bytes) => {
                let room = MAX_TEXT.saturating_sub(said.len());
                said.extend(bytes.iter().take(room));
            }
            CommandEvent::Exited(exited) if exited.status == ExitStatus::Code(0) => return Ok(()),
            CommandEvent::Exited(_) => {
                let said = String::from_utf8_lossy(&said);
                let plain = said.split(char::is_control).map(str::trim).collect::<Vec<_>>().join(" ");
                return Err(SetUpError::Translation(plain));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, number: u8) -> ServiceGuest {
        ServiceGuest {
            image: ImageDisk {
                path: "/x".into(),
                fstype: "squashfs",
                digest: String::new(),
                config: tart_assets::ImageConfig::default(),
            },
            hostname: format!("{name}-{number}"),
            names: vec![name.to_owned()],
        }
    }

    #[test]
    fn every_service_has_an_address_and_is_known_to_the_others() {
        let interface =
            Interface { mac: String::new(), addresses: Vec::new(), gateways: Vec::new(), mtu: Some(1400) };
        let network = network(&[service("redis", 0), service("db", 1)], &[interface]);
        assert_eq!((network.gateway.as_str(), network.mtu), ("172.30.253.1/24", Some(1400)));
        let hosts: Vec<_> =
            network.hosts.iter().map(|(address, names)| format!("{address} {}", names.join(" "))).collect();
        insta::assert_snapshot!(hosts.join("\n"), @"
        172.30.253.2 redis redis-0
        172.30.253.3 db db-1
        172.30.253.1 build
        ");
        assert_eq!(network.services[1].address, "172.30.253.3/24");
    }

    #[test]
    fn what_services_send_out_gets_the_jobs_address() {
        insta::assert_snapshot!(rules(), @r#"
        table ip tart-services {
          chain postrouting {
            type nat hook postrouting priority srcnat
            ip saddr 172.30.253.0/24 oifname != "services" masquerade
          }
        }
        "#);
    }
}
