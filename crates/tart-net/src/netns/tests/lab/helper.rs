//! A root helper for guests of a lab.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use tart_root_helper::{Listener, Open};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use crate::{NetworkServer, NetworkServerOptions, serve_network};

/// A helper, served by the runtime of the test.
pub(in crate::netns::tests) struct LabHelper {
    pub(in crate::netns::tests) socket: PathBuf,
    ended: mpsc::UnboundedReceiver<()>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl LabHelper {
    /// For one user's runner.
    pub(in crate::netns::tests) async fn start(options: NetworkServerOptions, user: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = dir.path().join("socket");
        let listener = Listener::bind(&socket, user).unwrap();
        let server = NetworkServer::start(options).await.unwrap();
        let ((tell, ended), (stop, stopped)) = (mpsc::unbounded_channel(), oneshot::channel());
        let task = tokio::spawn(serve(listener, Arc::new(server), tell, stopped));
        Self { socket, ended, stop, task, _dir: dir }
    }

    /// Waits until one more connection is closed and what it was about is gone.
    pub(in crate::netns::tests) async fn ended_one(&mut self) {
        self.ended.recv().await.unwrap();
    }

    /// Ends it, and waits for that.
    pub(in crate::netns::tests) async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn serve(
    listener: Listener,
    server: Arc<NetworkServer>,
    tell: mpsc::UnboundedSender<()>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let (connection, _peer) = accepted.unwrap();
        let (server, tell) = (server.clone(), tell.clone());
        connections.spawn(async move {
            assert_eq!(connection.receive::<Open>().await.unwrap().0, Open::Network);
            serve_network(connection, &server).await;
            let _test_ended = tell.send(());
        });
    }
    connections.shutdown().await;
}
