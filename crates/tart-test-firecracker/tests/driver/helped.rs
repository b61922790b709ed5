//! Machines of a runner that is not root, which the root helper jails.

mod ends;
mod hostile;
mod unprivileged;

use std::{os::fd::BorrowedFd, sync::Arc};

use serde_json::{Value, json};
use tart_net::{NetworkServer, serve_network};
use tart_root_helper::{Listener, Open};
use tart_vmm::{IsLent, Isolation, IsolationOptions, JailServer, JailServerOptions, serve_jail};
use tokio::task::JoinHandle;

use super::{
    jail::{of_user, same_file},
    *,
};

/// Users of a helper's machines at once.
const USERS: u32 = 4;

/// A root helper with the fakes, in this process.
struct Helper {
    /// The host of it, and of runners that are root too.
    scene: Scene,
    jails: PathBuf,
    socket: PathBuf,
    uids: std::ops::Range<u32>,
    serving: JoinHandle<()>,
}

impl Helper {
    /// One that makes no networks.
    async fn start(plan: &Value, jailer_plan: &Value, user: u32) -> Self {
        Self::with_networks(plan, jailer_plan, user, None).await
    }

    async fn with_networks(
        plan: &Value,
        jailer_plan: &Value,
        user: u32,
        networks: Option<Arc<NetworkServer>>,
    ) -> Self {
        let mut scene = Scene::jailed(plan, jailer_plan);
        scene.spec.identity = None;
        let at = |name: &str| scene.root.path().join(name);
        let (jails, socket) = (at("jails"), at("helper.sock"));
        fs::set_permissions(scene.root.path(), Permissions::from_mode(0o755)).unwrap();
        // Each test is a process.
        let first = 1_100_000_000 + std::process::id() * USERS;
        let lender = networks.clone();
        let is_lent = Box::new(move |namespace: BorrowedFd<'_>| {
            lender.as_ref().is_some_and(|networks| networks.has_lent(namespace))
        });
        let server = server(&scene, first, is_lent).await.unwrap();
        let listener = Listener::bind(&socket, user).unwrap();
        let serving = tokio::spawn(serve(Arc::new(server), networks, listener));
        scene.helper = Some(socket.clone());
        Self { scene, jails, socket, uids: first..first + USERS, serving }
    }

    /// Waits until nothing of any machine is left.
    async fn gone(&self) {
        tokio::time::timeout(LIMIT, async {
            while !self.machines().is_empty() || self.uids.clone().any(|uid| !of_user(uid).is_empty()) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("all of a machine is removed");
    }

    /// The directories of machines.
    fn machines(&self) -> Vec<PathBuf> {
        let runs = fs::read_dir(&self.jails).unwrap().flatten().map(|entry| entry.path());
        let runs: Vec<PathBuf> = runs.filter(|path| path.is_dir()).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        let machines = fs::read_dir(&runs[0]).unwrap().flatten().map(|entry| entry.path());
        machines.filter(|path| path.is_dir()).collect()
    }

    /// The root directory of the only jail.
    fn jail(&self) -> PathBuf {
        let machines = self.machines();
        let [machine] = machines.as_slice() else { panic!("{machines:?}") };
        machine.join("firecracker").join(&self.scene.spec.id).join("root")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The helper's server of a scene.
async fn server(scene: &Scene, first_uid: u32, is_lent: IsLent) -> Result<JailServer, VmmError> {
    let options = IsolationOptions {
        uid_base: first_uid,
        uid_count: USERS,
        locks: scene.root.path().join("uids"),
        cgroup_parent: Some("tart-test".to_owned()),
    };
    let isolation = Arc::new(Isolation::new(&options).unwrap());
    let options = JailServerOptions {
        firecracker: Some(scene.program.clone()),
        jailer: scene.jailer.clone(),
        dir: scene.root.path().join("jails"),
    };
    JailServer::start(options, isolation, is_lent).await
}

async fn serve(server: Arc<JailServer>, networks: Option<Arc<NetworkServer>>, listener: Listener) {
    loop {
        let (connection, peer) = listener.accept().await.unwrap();
        let (server, networks) = (server.clone(), networks.clone());
        tokio::spawn(async move {
            // Runners that go away or are refused are what is tested.
            match connection.receive::<Open>().await {
                Ok((Open::Jail, _)) => drop(serve_jail(&server, &connection, peer).await),
                Ok((Open::Network, _)) => {
                    serve_network(connection, &networks.expect("this test has networks")).await;
                }
                _ => {}
            }
        });
    }
}

#[tokio::test]
async fn a_machine_is_jailed_as_one_of_roots() {
    let helper = Helper::start(&json!({ "closes": 2 }), &json!({}), 0).await;
    let driver = helper.scene.driver(FirecrackerTuning::default()).await.unwrap();
    let told = driver.describe();
    assert!(
        told.starts_with("Firecracker 1.16.1 (") && told.contains(", jailed by the root helper with "),
        "{told}"
    );
    let machine = driver.start(&helper.scene.spec).await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    assert_eq!(line(&*machine).await, "it is here\n");
    assert!(machine.counters().await.unwrap().disks.read_bytes > 0);
    let exit = machine.kill().await;
    assert_eq!((exit.kind, exit.status), (ExitKind::Killed, ProcessStatus::Signal(9)));
    drop(machine);
    helper.gone().await;
}

#[tokio::test]
async fn a_tap_device_is_found_in_the_namespace_that_the_helper_has_lent() {
    let options = tart_net::NetworkServerOptions { ready: 0, ..tart_net::NetworkServerOptions::default() };
    let networks = Arc::new(NetworkServer::start(options).await.unwrap());
    let mut helper = Helper::with_networks(&json!({}), &json!({}), 0, Some(networks)).await;
    let options = tart_net::NetnsOptions {
        ready: 0,
        named_taps: true,
        helper: Some(helper.socket.clone()),
        ..tart_net::NetnsOptions::default()
    };
    let network = tart_net::NetnsNetwork::start(options).await.unwrap();
    let attachment = tart_net::Network::attach(&network, &tart_net::AttachRequest::default()).await.unwrap();
    helper.scene.spec.nic = attachment.guest().nic.clone();
    let machine = helper.scene.start().await.unwrap();
    assert_eq!(line(&*machine).await, "it is up\n");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(fs::read_link(format!("/proc/{}/ns/net", machine.pid())).unwrap(), own);
    machine.kill().await;
    drop(machine);

    // The descriptor of one that was given back is of no use.
    attachment.detach().await;
    let machine_dir = helper.scene.run_dir.machine("job-2").unwrap();
    helper.scene.spec.run_dir = machine_dir.path().to_owned();
    fs::write(helper.scene.root.path().join("scratch2"), "s").unwrap();
    helper.scene.spec.disks[1].path = Some(helper.scene.root.path().join("scratch2"));
    let VmmError::Helper { source, .. } = helper.scene.start().await.unwrap_err() else {
        panic!("another error")
    };
    insta::assert_snapshot!(source, @"the root helper: its network namespace is none that this helper has made for a guest");
    helper.gone().await;
}
