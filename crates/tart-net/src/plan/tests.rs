use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::DuplexStream;

use super::*;
use crate::StreamService;

fn direct(text: &str) -> Allowed {
    Allowed::direct(text.parse().unwrap())
}

struct Idle;

#[async_trait]
impl StreamService for Idle {
    async fn serve(&self, _connection: DuplexStream) {}
}

fn shown(allowed: &[Allowed], extra_hosts: &[(&str, &str)]) -> String {
    let extra_hosts: Vec<_> =
        extra_hosts.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect();
    let plan = match plan(allowed, &extra_hosts) {
        Ok(plan) => plan,
        Err(error) => return error.to_string(),
    };
    let hosts = plan.hosts.iter().map(|(ip, names)| format!("host {ip} {}", names.join(" ")));
    let listens = plan.listens.iter().map(|listen| {
        let target = &plan.targets[usize::try_from(listen.forward).unwrap()];
        format!("{} -> {target:?}", listen.address)
    });
    hosts.chain(listens).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_name_has_an_address_and_every_address_is_itself() {
    let allowed = [
        direct("gitlab.example.com:443"),
        direct("registry.example.com:443"),
        direct("gitlab.example.com:22"),
        direct("192.0.2.7:8080"),
        direct("[2001:db8::7]:80"),
        direct("127.0.0.1:8929"),
    ];
    insta::assert_snapshot!(shown(&allowed, &[]), @"
    host 127.64.0.1 gitlab.example.com
    host 127.64.0.2 registry.example.com
    127.64.0.1:443 -> Tcp(gitlab.example.com:443)
    127.64.0.2:443 -> Tcp(registry.example.com:443)
    127.64.0.1:22 -> Tcp(gitlab.example.com:22)
    192.0.2.7:8080 -> Tcp(192.0.2.7:8080)
    [2001:db8::7]:80 -> Tcp([2001:db8::7]:80)
    127.0.0.1:8929 -> Tcp(127.0.0.1:8929)
    ");
}

#[test]
fn localhost_is_the_loopback_in_the_guest_too() {
    let allowed = [direct("localhost:3000"), direct("gitlab.localhost:3001")];
    insta::assert_snapshot!(shown(&allowed, &[]), @"
    host 127.0.0.1 gitlab.localhost
    127.0.0.1:3000 -> Tcp(localhost:3000)
    127.0.0.1:3001 -> Tcp(gitlab.localhost:3001)
    ");
}

#[test]
fn an_endpoint_given_twice_is_planned_once() {
    insta::assert_snapshot!(shown(&[direct("a.example:80"), direct("a.example:80")], &[]), @"
    host 127.64.0.1 a.example
    127.64.0.1:80 -> Tcp(a.example:80)
    ");
}

#[test]
fn two_targets_of_one_address_are_refused() {
    let both = [direct("localhost:80"), direct("127.0.0.1:80")];
    insta::assert_snapshot!(shown(&both, &[]), @"`localhost:80` and `127.0.0.1:80` would both be 127.0.0.1:80 in the guest; give one of them another port");
    let mapped = [direct("[::ffff:127.0.0.1]:80"), direct("127.0.0.1:80")];
    insta::assert_snapshot!(shown(&mapped, &[]), @"`[::ffff:127.0.0.1]:80` and `127.0.0.1:80` would both be 127.0.0.1:80 in the guest; give one of them another port");
    let service = Allowed::service("a.example:80".parse().unwrap(), Arc::new(Idle));
    insta::assert_snapshot!(shown(&[direct("a.example:80"), service], &[]), @"`a.example:80` and `a.example:80` would both be 127.64.0.1:80 in the guest; give one of them another port");
}

#[test]
fn a_service_is_named_like_a_host() {
    let service = Allowed::service("sources.tart.internal:80".parse().unwrap(), Arc::new(Idle));
    insta::assert_snapshot!(shown(&[service], &[]), @"
    host 127.64.0.1 sources.tart.internal
    127.64.0.1:80 -> Service
    ");
}

#[test]
fn extra_hosts_say_where_an_endpoint_is_dialled() {
    let extra = [("GitLab.example.com", "192.0.2.9"), ("db", "2001:db8::1")];
    insta::assert_snapshot!(shown(&[direct("gitlab.example.com:443")], &extra), @"
    host 127.64.0.1 gitlab.example.com
    host 2001:db8::1 db
    127.64.0.1:443 -> Tcp(192.0.2.9:443)
    ");
    insta::assert_snapshot!(shown(&[], &[("a b", "192.0.2.9")]), @"`a b` cannot be reached by a job: it is no valid host name");
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let allowed: Vec<_> = (0..255).map(|n| direct(&format!("h{n}.example:80"))).collect();
    insta::assert_snapshot!(shown(&allowed, &[]), @"a job can be given at most 254 host names to reach");
    assert!(plan(&allowed[..254], &[]).is_ok());
}
