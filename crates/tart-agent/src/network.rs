//! Setting the guest up: clock, randomness, names and interfaces.

mod interface;
mod names;
mod netlink;
mod port;
mod services;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tart_proto::message::{Configure, Failure, Interface};

use crate::{clock, entropy, failure, machine::Machine};
use interface::Plan;
use netlink::Netlink;

pub(crate) use port::await_port;
pub(crate) use services::make as make_services;

pub(crate) use names::{HOSTNAME, HOSTS, MACHINE_ID, RESOLV_CONF, create as create_names};

/// Sets everything of a request, in the order in which later parts may need earlier ones.
pub(crate) async fn configure(machine: &Machine, request: &Configure) -> Result<(), Failure> {
    clock::set(request.unix_nanos)?;
    entropy::reseed(&request.entropy)?;
    names::set(&machine.etc, request)?;
    rustix::system::sethostname(request.hostname.as_bytes())
        .map_err(|e| failure::system(format!("cannot set the host name `{}`", request.hostname), e))?;
    let mut netlink =
        Netlink::open().map_err(|e| failure::system("cannot talk to the kernel's network", e))?;
    for interface in &request.interfaces {
        bring_up(&mut netlink, interface).await?;
    }
    Ok(())
}

async fn bring_up(netlink: &mut Netlink, request: &Interface) -> Result<(), Failure> {
    let plan = Plan::new(request)?;
    let failed = |what: &str, e: io::Error| failure::system(format!("cannot {what} of {}", request.mac), e);
    let index = interface::find(&plan.mac)
        .await
        .map_err(|e| failed("find the interface", e))?
        .ok_or_else(|| failure::not_found(format!("no network interface has the address {}", request.mac)))?;
    netlink.start_link(index, plan.mtu).map_err(|e| failed("start the interface", e))?;
    for (address, prefix) in plan.addresses {
        netlink
            .add_address(index, address, prefix)
            .map_err(|e| failed(&format!("set the address {address}"), e))?;
    }
    for gateway in plan.gateways {
        netlink
            .add_default_route(index, gateway)
            .map_err(|e| failed(&format!("set the gateway {gateway}"), e))?;
    }
    Ok(())
}

/// Brings the loopback up, which gives it its own addresses.
pub(crate) fn start_loopback() -> io::Result<()> {
    Netlink::open()?.start_link(interface::loopback()?, None)
}

/// Kernel settings of a network namespace that containers are used to: everybody may ping and listen on low ports.
const SETTINGS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
];

/// Makes the settings in the caller's network namespace.
pub(crate) fn relax() -> io::Result<()> {
    SETTINGS.iter().try_for_each(|(file, value)| fs::write(file, value))
}

/// Makes an address local.
pub(crate) fn add_loopback_address(address: IpAddr) -> io::Result<()> {
    let prefix = match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    };
    Netlink::open()?.add_address(interface::loopback()?, address, u8::try_from(prefix).unwrap_or(u8::MAX))
}
