//! Which address of the guest stands for which endpoint. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use tart_proto::message::Listen;

use crate::{
    Allowed, Endpoint, NetError, Target,
    endpoint::{is_host_name, is_localhost},
};

/// Host names get addresses of this network of the guest's loopback, which no software uses by itself: `127.64.0.1`
/// and so on. All of 127/8 is local without being configured.
const NAMES: [u8; 3] = [127, 64, 0];

/// How many host names fit.
const MAX_NAMES: usize = 254;

/// What the guest sets up for relayed endpoints, and what its connections reach.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Lines of `/etc/hosts`.
    pub(crate) hosts: Vec<(String, Vec<String>)>,
    /// Listeners; `forward` is an index of `targets`.
    pub(crate) listens: Vec<Listen>,
    /// Where connections go.
    pub(crate) targets: Vec<Target>,
}

/// Plans the relay of endpoints. A host name gets an address of its own, so that every port of it can be listened
/// on; an address stands for itself.
pub(crate) fn plan(allowed: &[Allowed], extra_hosts: &[(String, IpAddr)]) -> Result<Plan, NetError> {
    let extra_hosts = checked(extra_hosts)?;
    let mut plan = Plan::default();
    let mut addresses: BTreeMap<&str, IpAddr> = BTreeMap::new();
    let mut taken: BTreeMap<SocketAddr, &Allowed> = BTreeMap::new();
    for one in allowed {
        let endpoint = &one.endpoint;
        let ip = match (addresses.get(endpoint.host()), endpoint.ip()) {
            (Some(ip), _) => *ip,
            // A mapped address is its IPv4 address in the guest's kernel too.
            (None, Some(ip)) => ip.to_canonical(),
            (None, None) if endpoint.host() == "localhost" => Ipv4Addr::LOCALHOST.into(),
            (None, None) => {
                let ip = name_address(endpoint.host(), &plan.hosts)?;
                plan.hosts.push((ip.to_string(), vec![endpoint.host().to_owned()]));
                ip
            }
        };
        addresses.insert(endpoint.host(), ip);
        let address = SocketAddr::new(ip, endpoint.port());
        if let Some(first) = taken.get(&address) {
            if is_same(first, one) {
                continue;
            }
            let (first, second) = (first.endpoint.clone(), endpoint.clone());
            return Err(NetError::Collision { first, second, address: address.to_string() });
        }
        taken.insert(address, one);
        let forward = u32::try_from(plan.targets.len()).unwrap_or(u32::MAX);
        plan.listens.push(Listen { forward, address: address.to_string() });
        plan.targets.push(redirect(&one.target, &extra_hosts)?);
    }
    for (name, ip) in &extra_hosts {
        if !addresses.contains_key(name.as_str()) {
            plan.hosts.push((ip.to_string(), vec![name.clone()]));
        }
    }
    Ok(plan)
}

fn name_address(name: &str, hosts: &[(String, Vec<String>)]) -> Result<IpAddr, NetError> {
    if is_localhost(name) {
        // Programs that know RFC 6761 never look such a name up.
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let last = u8::try_from(hosts.len() + 1).ok().filter(|last| usize::from(*last) <= MAX_NAMES);
    let [a, b, c] = NAMES;
    last.map(|last| Ipv4Addr::new(a, b, c, last).into()).ok_or(NetError::TooMany { limit: MAX_NAMES })
}

fn is_same(a: &Allowed, b: &Allowed) -> bool {
    a.endpoint == b.endpoint && matches!((&a.target, &b.target), (Target::Tcp(a), Target::Tcp(b)) if a == b)
}

fn redirect(target: &Target, extra_hosts: &[(String, IpAddr)]) -> Result<Target, NetError> {
    let Target::Tcp(endpoint) = target else { return Ok(target.clone()) };
    match extra_hosts.iter().find(|(name, _)| name == endpoint.host()) {
        Some((_, ip)) => Ok(Target::Tcp(Endpoint::new(&ip.to_string(), endpoint.port())?)),
        None => Ok(target.clone()),
    }
}

/// Entries with names fit for `/etc/hosts`, in lower case.
pub(crate) fn checked(extra_hosts: &[(String, IpAddr)]) -> Result<Vec<(String, IpAddr)>, NetError> {
    let entry = |(name, ip): &(String, IpAddr)| {
        let lower = name.to_ascii_lowercase();
        if is_host_name(&lower) {
            Ok((lower, *ip))
        } else {
            Err(NetError::Endpoint { text: name.clone(), reason: "it is no valid host name".to_owned() })
        }
    };
    extra_hosts.iter().map(entry).collect()
}

#[cfg(test)]
mod tests;
