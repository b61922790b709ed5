//! A connection that is held or cut on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Open,
    /// They stop after that many bytes in all.
    Hold(u64),
    /// The connection ends after that many bytes, once.
    Cut(u64),
}

/// A port of loopback that leads to another one.
#[derive(Debug)]
pub struct Gate {
    address: String,
    flow: watch::Sender<Flow>,
    passed: Arc<AtomicU64>,
    // Ends all connections with it.
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Leads to an address.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens").to_string();
        let (flow, passed) = (watch::Sender::new(Flow::Open), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        let (sender, count, target) = (flow.clone(), Arc::clone(&passed), target.to_owned());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&target).await {
                    connections.spawn(connect(client, server, sender.clone(), Arc::clone(&count)));
                }
            }
        });
        Self { address, flow, passed, _tasks: tasks }
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Changes what happens from now on; bytes count from here.
    pub fn set(&self, flow: Flow) {
        self.passed.store(0, Ordering::SeqCst);
        self.flow.send_replace(flow);
    }
}

async fn connect(client: TcpStream, server: TcpStream, flow: watch::Sender<Flow>, passed: Arc<AtomicU64>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answers = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let length = from_server.read(&mut buffer).await?;
            let now = *flow.borrow();
            let before = passed.fetch_add(length as u64, Ordering::SeqCst);
            match now {
                Flow::Hold(most) if before >= most => {
                    let mut changes = flow.subscribe();
                    let open = changes.wait_for(|flow| !matches!(flow, Flow::Hold(_))).await;
                    if open.is_err() {
                        return Ok(());
                    }
                }
                Flow::Cut(most) if before >= most => {
                    flow.send_replace(Flow::Open);
                    return Ok(());
                }
                _ => {}
            }
            if length == 0 {
                return Ok::<_, std::io::Error>(());
            }
            to_client.write_all(buffer.get(..length).unwrap_or_default()).await?;
        }
    };
    // Either side may end it.
    tokio::select! {
        _ended = requests => {}
        _ended = answers => {}
    }
}
