//! The network of services: a bridge of the job's, and for each service a network namespace with an interface on it.
//! The job's namespace routes for the services; who translates their addresses is the host's business.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, UnshareFlags},
};
use tart_proto::message::{Failure, MAX_SERVICES, Root, ServiceNetwork};

use super::{
    interface::{self, parse_network},
    names,
    netlink::{Netlink, Pair},
    relax,
};
use crate::{
    failure,
    machine::{Machine, ServicePlace},
};

/// The interface of a service in its own namespace, as containers know it.
const PEER: &str = "eth0";

/// Longest name of an interface.
const MAX_NAME: usize = 15;

/// What a request says, checked.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    gateway: (IpAddr, u8),
    addresses: Vec<(IpAddr, u8)>,
}

/// Makes everything, and the names in `/etc`.
pub(crate) async fn make(machine: &Machine, request: &ServiceNetwork) -> Result<(), Failure> {
    let plan = plan(request)?;
    let failed = |e| failure::system("cannot make the bridge of the services", e);
    let mut netlink = Netlink::open().map_err(failed)?;
    let bridge = bridge(&mut netlink, request, &plan).map_err(failed)?;
    let mut places = Vec::new();
    for (number, (service, address)) in (0..).zip(request.services.iter().zip(&plan.addresses)) {
        let network = connect(&mut netlink, request, bridge, number, *address, plan.gateway.0)
            .map_err(|e| failure::system(format!("cannot make the network of service {number}"), e))?;
        let etc = machine.etc_of(Root::Service(number));
        names::set_service(&etc, service, &machine.etc, &request.hosts)?;
        places.push(ServicePlace { network, hostname: service.hostname.clone() });
    }
    names::add_hosts(&machine.etc, &request.hosts)?;
    machine.set_services(places);
    Ok(())
}

fn plan(request: &ServiceNetwork) -> Result<Plan, Failure> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let name = &request.bridge;
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(legal) {
        return Err(failure::invalid(format!("`{name}` is no name of a bridge")));
    }
    if request.services.len() > usize::from(MAX_SERVICES) {
        return Err(failure::invalid(format!("more than {MAX_SERVICES} services")));
    }
    let network = |text: &str| {
        parse_network(text)
            .ok_or_else(|| failure::invalid(format!("`{text}` is no address with a prefix length")))
    };
    let addresses = request.services.iter().map(|service| network(&service.address));
    Ok(Plan { gateway: network(&request.gateway)?, addresses: addresses.collect::<Result<_, _>>()? })
}

fn bridge(netlink: &mut Netlink, request: &ServiceNetwork, plan: &Plan) -> io::Result<u32> {
    netlink.add_bridge(&request.bridge, request.mtu)?;
    let index = interface::index(&request.bridge)?;
    netlink.add_address(index, plan.gateway.0, plan.gateway.1)?;
    netlink.start_link(index, None)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(index)
}

fn connect(
    netlink: &mut Netlink,
    request: &ServiceNetwork,
    bridge: u32,
    number: u8,
    address: (IpAddr, u8),
    gateway: IpAddr,
) -> io::Result<OwnedFd> {
    let namespace = namespace()?;
    let name = format!("service{number}");
    let pair = Pair { name: &name, bridge, peer: PEER, namespace: namespace.as_fd(), mtu: request.mtu };
    netlink.add_pair(&pair)?;
    netlink.start_link(interface::index(&name)?, None)?;
    let namespace_fd = namespace.as_fd();
    on_thread(move || set_up_inside(namespace_fd, address, gateway))?;
    Ok(namespace)
}

fn namespace() -> io::Result<OwnedFd> {
    on_thread(|| {
        #[expect(unsafe_code, reason = "rustix marks every unshare unsafe because of file descriptor tables")]
        // SAFETY: the descriptor table stays shared; only this thread's network changes, and it ends.
        unsafe {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?)
    })
}

fn set_up_inside(namespace: BorrowedFd<'_>, address: (IpAddr, u8), gateway: IpAddr) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    relax()?;
    let mut netlink = Netlink::open()?;
    netlink.start_link(interface::loopback()?, None)?;
    let index = interface::index(PEER)?;
    netlink.start_link(index, None)?;
    netlink.add_address(index, address.0, address.1)?;
    netlink.add_default_route(index, gateway)
}

/// Runs something on a thread of its own, which may change its namespaces because it ends.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use tart_proto::message::ServiceHost;

    use super::*;

    fn request() -> ServiceNetwork {
        ServiceNetwork {
            bridge: "services".into(),
            gateway: "172.30.253.1/24".into(),
            mtu: None,
            services: vec![ServiceHost { address: "172.30.253.2/24".into(), hostname: "redis".into() }],
            hosts: Vec::new(),
        }
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_made() {
        assert_eq!(plan(&request()).unwrap().addresses, [("172.30.253.2".parse().unwrap(), 24)]);
        let refused = |change: fn(&mut ServiceNetwork)| {
            let mut request = request();
            change(&mut request);
            plan(&request).unwrap_err().message
        };
        assert_eq!(refused(|r| r.bridge = "a/b".into()), "`a/b` is no name of a bridge");
        assert_eq!(refused(|r| r.gateway = "x".into()), "`x` is no address with a prefix length");
        let many = |r: &mut ServiceNetwork| r.services = vec![r.services[0].clone(); 17];
        assert_eq!(refused(many), "more than 16 services");
    }

    /// Needs root.
    #[cfg(feature = "slow-tests")]
    #[test]
    fn a_service_reaches_the_bridge_in_namespaces_of_the_test() {
        // The test's own thread becomes the guest.
        on_thread(|| {
            let root = namespace()?;
            rustix::thread::move_into_link_name_space(root.as_fd(), Some(LinkNameSpaceType::Network))?;
            let request = request();
            let plan = plan(&request).map_err(io::Error::other)?;
            let mut netlink = Netlink::open()?;
            let bridge = bridge(&mut netlink, &request, &plan)?;
            let service = connect(&mut netlink, &request, bridge, 0, plan.addresses[0], plan.gateway.0)?;
            let listener = std::net::TcpListener::bind("172.30.253.1:0")?;
            let address = listener.local_addr()?;
            on_thread(|| {
                rustix::thread::move_into_link_name_space(service.as_fd(), Some(LinkNameSpaceType::Network))?;
                std::net::TcpStream::connect(address).map(drop)
            })?;
            assert_eq!(listener.accept()?.1.ip().to_string(), "172.30.253.2");
            Ok(())
        })
        .unwrap();
    }
}
