//! Machines of a runner that is not root, which the root helper jails.

mod ends;
mod hostile;
mod unprivileged;

use std::sync::Arc;

use serde_json::{Value, json};
use tart_root_helper::{Listener, Open};
use tart_vmm::{Isolation, IsolationOptions, JailServer, JailServerOptions, serve_jail};
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
    async fn start(plan: &Value, jailer_plan: &Value, user: u32) -> Self {
        let mut scene = Scene::jailed(plan, jailer_plan);
        scene.spec.identity = None;
        let at = |name: &str| scene.root.path().join(name);
        let (jails, socket) = (at("jails"), at("helper.sock"));
        fs::set_permissions(scene.root.path(), Permissions::from_mode(0o755)).unwrap();
        // Each test is a process.
        let first = 1_100_000_000 + std::process::id() * USERS;
        let server = server(&scene, first).await.unwrap();
        let listener = Listener::bind(&socket, user).unwrap();
        let serving = tokio::spawn(serve(Arc::new(server), listener));
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
async fn server(scene: &Scene, first_uid: u32) -> Result<JailServer, VmmError> {
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
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let is_lent = move |namespace: std::os::fd::BorrowedFd<'_>| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&namespace));
        fs::read_link(path)
            .is_ok_and(|namespace| namespace != own && namespace.to_string_lossy().starts_with("net:["))
    };
    JailServer::start(options, isolation, Box::new(is_lent)).await
}

async fn serve(server: Arc<JailServer>, listener: Listener) {
    loop {
        let (connection, peer) = listener.accept().await.unwrap();
        let server = server.clone();
        tokio::spawn(async move {
            let Ok((Open::Jail, _)) = connection.receive::<Open>().await else { return };
            // Runners that go away or are refused are what is tested.
            let _ended = serve_jail(&server, &connection, peer).await;
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
