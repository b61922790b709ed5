//! What a helper makes for runners, and does not do for hostile ones.

use std::path::Path;

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use tart_root_helper::{Answer, Connection, HelperError, Open};

use super::{
    super::{
        NetnsNetwork, NetnsOptions,
        address::TAP,
        admit::{Admission, tests::policy as any_policy},
        request::{Given, Request},
        rules::{Connected, Match, Policy, To, guest},
        system::{Namespace, make_tap, on_thread},
    },
    lab::Lab,
    *,
};
use crate::{Network as _, NicLink};

async fn ask(connection: &Connection, request: &Request) -> Result<Given, String> {
    match connection.call(request, &[]).await {
        Ok((given, _)) => Ok(given),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn a_runner_that_goes_leaves_no_network() {
    let lab = Lab::new().await;
    let mut helper = lab.helper(0, 8).await;
    let options = NetnsOptions { helper: Some(helper.socket.clone()), ..lab.options() };
    let network = NetnsNetwork::start(options).await.unwrap();
    helper.ended_one().await;
    let reserved = network.reserve("one").await.unwrap();
    let attached = network.attach(&policy(true, &["public.test"], &[], None)).await.unwrap();
    let links = |left: String| left.lines().filter(|line| line.starts_with("tart-")).count();
    assert!(links(lab.left().await) >= 2);
    // Dropped, as by a runner that is killed, without a word.
    drop((reserved, attached));
    helper.ended_one().await;
    helper.ended_one().await;
    let (left, named) = (lab.left().await, "tart-0");
    assert!(!left.contains(named), "{left}");
    drop(network);
    helper.end().await;
    assert_eq!(lab.left().await, "");
}

#[tokio::test]
async fn hostile_requests_are_refused() {
    let lab = Lab::new().await;
    let mut helper = lab.helper(0, 8).await;
    let connection = Connection::open(&helper.socket, Open::Network).await.unwrap();
    let mut said = Vec::new();
    let named = Match { to: To::Named, ports: None };
    let wrong = Match { to: To::Net([10, 1, 0, 0].into(), 8), ports: None };
    let rule = |allow: Vec<Match>| Request::Rule(Policy { allow, ..Policy::default() });
    let create = Request::Create { named_tap: false };
    for (request, good) in [
        (&rule(vec![named]), false),
        (&Request::Remove, false),
        (&create, true),
        (&create, false),
        (&rule(vec![wrong]), false),
        (&rule(vec![named; 300]), false),
        (&rule(vec![named]), true),
        (&rule(vec![]), false),
        (&Request::Shape { bytes: 0 }, false),
        (&Request::Shape { bytes: 1 << 37 }, true),
        (&Request::Shape { bytes: 1 }, false),
        (&Request::Counts, true),
    ] {
        let answer = ask(&connection, request).await;
        assert_eq!(answer.is_ok(), good, "{request:?}: {answer:?}");
        said.extend(answer.err());
    }
    insta::assert_snapshot!(said.join("\n"), @"
    the root helper: this guest has no network yet
    the root helper: this guest has no network yet
    the root helper: this guest has its network already
    the root helper: 10.1.0.0/8 is no network: only its first address and a prefix of its family name it
    the root helper: a list of a policy has 300 entries; 256 are the most
    the root helper: this guest has its policy already
    the root helper: 0 bytes in a second are no bandwidth; it is from 1 to 137438953472
    the root helper: this guest has its bandwidth already
    ");

    // What is no request ends it.
    connection.send(&"table inet tart { }", &[]).await.unwrap();
    let error = connection.receive::<Answer<Given>>().await.unwrap().0.unwrap_err();
    assert!(error.contains("is malformed: unknown variant"), "{error}");
    assert!(matches!(connection.receive::<Answer<Given>>().await, Err(HelperError::Closed)));
    helper.ended_one().await;
    assert!(!lab.left().await.contains("tart-0"));
    helper.end().await;
}

#[tokio::test]
async fn a_runner_has_so_many_networks_and_no_more() {
    let lab = Lab::new().await;
    let mut helper = lab.helper(0, 1).await;
    let options = NetnsOptions { helper: Some(helper.socket.clone()), ..lab.options() };
    let network = NetnsNetwork::start(options).await.unwrap();
    helper.ended_one().await;
    let only = network.attach(&AttachRequest::default()).await.unwrap();
    let error = network.attach(&AttachRequest::default()).await.unwrap_err();
    insta::assert_snapshot!(error, @"the root helper: guests have all 1 networks that it makes");
    helper.ended_one().await;
    only.detach().await;
    helper.ended_one().await;
    network.attach(&AttachRequest::default()).await.unwrap().detach().await;
    drop(network);
    helper.end().await;
}

#[tokio::test]
async fn monitors_that_open_devices_by_name_get_the_namespace() {
    let lab = Lab::new().await;
    let helper = lab.helper(0, 8).await;
    let options = NetnsOptions { helper: Some(helper.socket.clone()), named_taps: true, ..lab.options() };
    let network = NetnsNetwork::start(options).await.unwrap();
    let reserved = network.reserve("one").await.unwrap();
    let Some(NicLink::Device { name, namespace }) = reserved.nic().map(|nic| nic.link.clone()) else {
        panic!("no device with a name")
    };
    assert_eq!(name, TAP);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*namespace));
    let namespace = Namespace::open(Path::new(&path)).unwrap();
    let devices = namespace.run(|| program("ip", &["-brief", "link", "show"], "")).await.unwrap();
    assert!(devices.contains("tap0") && devices.contains("wan"), "{devices}");
    drop((reserved, network));
    helper.end().await;
}

#[tokio::test]
async fn a_helper_of_another_network_is_refused() {
    let lab = Lab::new().await;
    let helper = lab.helper(0, 8).await;
    let options = NetnsOptions { helper: Some(helper.socket.clone()), ..NetnsOptions::default() };
    let error = NetnsNetwork::start(options).await.unwrap_err();
    assert!(error.to_string().contains("in another network namespace"), "{error}");
    helper.end().await;
}

#[tokio::test]
async fn the_kernel_takes_every_policy_that_is_admitted() {
    let mut runner = TestRunner::deterministic();
    let policies: Vec<Policy> = std::iter::repeat_with(any_policy)
        .map(|policies| policies.new_tree(&mut runner).unwrap().current())
        .filter(|policy| {
            let (now, mut admission) = (tokio::time::Instant::now(), Admission::default());
            admission.admit(&Request::Create { named_tap: false }, now).unwrap();
            admission.admit(&Request::Rule(policy.clone()), now).is_ok()
        })
        .take(24)
        .collect();
    let check = move || {
        Namespace::enter_new()?;
        make_tap(TAP)?;
        nft(&guest(&Connected::default(), true))?;
        policies
            .iter()
            .try_for_each(|policy| program("nft", &["--check", "-f", "-"], &policy.script()).map(drop))
    };
    on_thread((), check).await.unwrap();
}
