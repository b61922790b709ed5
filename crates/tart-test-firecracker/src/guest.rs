//! A guest that truly boots behind the API: QEMU's `microvm` machine with an emulated processor, made of what the API was
//! told, with the same kernel, line, disks, network and vsock as Firecracker's.

mod arguments;
mod initrd;
mod memory;
mod mux;
mod packet;
mod process;
mod qmp;
mod ring;
mod vhost;

use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    io::Read as _,
    rc::Rc,
};

use serde_json::{Map, Value, json};
use tokio::{net::UnixListener, sync::mpsc, task::spawn_local};

use crate::state::{Answer, State, fault};
use arguments::{Described, blockdev, text};
use process::{Incoming, Qemu};

/// The socket in the working directory that QEMU writes its state to.
const STATE_SOCKET: &str = "standin.state";

type Body = Map<String, Value>;

/// The guest and what is known of it.
#[derive(Debug)]
pub(crate) struct Guest {
    described: RefCell<Described>,
    qemu: RefCell<Option<Rc<Qemu>>>,
    /// Images that were put into disks.
    images: Cell<u32>,
    ends: mpsc::UnboundedSender<u8>,
}

impl Guest {
    /// A guest that is not described yet. The exit code is sent when it ends the machine.
    pub(crate) fn new(ends: mpsc::UnboundedSender<u8>) -> Self {
        Self { described: RefCell::default(), qemu: RefCell::default(), images: Cell::new(0), ends }
    }

    /// Answers a request: what is refused is refused as always, the rest is done.
    pub(crate) async fn answer(
        &self,
        state: &RefCell<State>,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Answer {
        let answer = state.borrow_mut().answer(method, path, body);
        if answer.0 != 204 {
            return answer;
        }
        let body = serde_json::from_slice::<Body>(body).unwrap_or_default();
        let done = match (method, path) {
            ("PUT", "/actions") if text(&body, "action_type") == "InstanceStart" => {
                let booted = self.boot(state).await;
                state.borrow_mut().started = booted.is_ok();
                booted
            }
            ("PUT", "/snapshot/create") => self.save(state, &body).await,
            ("PUT", "/snapshot/load") => {
                let loaded = self.load(state, &body).await;
                state.borrow_mut().broken = loaded.is_err();
                loaded
            }
            ("PATCH", "/vm") => {
                let command = if text(&body, "state") == "Paused" { "stop" } else { "cont" };
                self.execute(command, json!({})).await
            }
            ("PATCH", _) => self.insert(&body).await,
            ("PUT", "/actions" | "/logger" | "/metrics" | "/serial") => Ok(()),
            _ => {
                self.described.borrow_mut().add(path, body);
                Ok(())
            }
        };
        done.map_or_else(fault, |()| answer)
    }

    /// Ends it and waits for that.
    pub(crate) async fn end(&self) {
        let qemu = self.qemu.borrow_mut().take();
        if let Some(qemu) = qemu {
            qemu.end().await;
        }
    }

    fn qemu(&self) -> Result<Rc<Qemu>, String> {
        self.qemu.borrow().clone().ok_or_else(|| "no guest runs".to_owned())
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<(), String> {
        self.qemu()?.qmp.execute(command, arguments).await.map(drop)
    }

    async fn boot(&self, state: &RefCell<State>) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("Cannot start microvm: {e}");
        let memory =
            memory::create(self.described.borrow().memory_mib() << 20, |_| Ok(())).map_err(failed)?;
        self.start(state, memory, None).await
    }

    async fn start(
        &self,
        state: &RefCell<State>,
        memory: File,
        incoming: Option<Incoming>,
    ) -> Result<(), String> {
        let vsock = state.borrow_mut().vsock.take();
        let described = self.described.borrow().clone();
        let qemu = Qemu::start(&described, memory, vsock, incoming, self.ends.clone()).await?;
        *self.qemu.borrow_mut() = Some(Rc::new(qemu));
        Ok(())
    }

    /// Puts an image under a disk. The guest is told of its size.
    async fn insert(&self, body: &Body) -> Result<(), String> {
        let (id, image) = (text(body, "drive_id"), text(body, "path_on_host"));
        let size = fs::metadata(image).map_err(|e| format!("The drive file cannot be opened: {e}"))?.len();
        self.images.set(self.images.get() + 1);
        let node = format!("{id}-{}", self.images.get());
        if self.described.borrow().is_read_only(id) {
            self.overlay(&node, image, size).await?;
        } else {
            self.execute("blockdev-add", blockdev(&node, image, false)).await?;
        }
        let device = format!("/machine/peripheral/{id}");
        self.execute("qom-set", json!({ "path": device, "property": "drive", "value": node })).await?;
        // QEMU tells the guest of another size only when it makes one.
        self.execute("block_resize", json!({ "node-name": node, "size": size })).await
    }

    /// Puts something on an image that QEMU can give another size, which it cannot with what it may only read.
    async fn overlay(&self, node: &str, image: &str, size: u64) -> Result<(), String> {
        let (file, path) = (format!("{node}-file"), format!("{node}.overlay"));
        File::create(&path).map_err(|e| format!("The drive file cannot be opened: {e}"))?;
        let options = json!({ "driver": "file", "node-name": file, "filename": path });
        self.execute("blockdev-add", options).await?;
        let options = json!({ "driver": "qcow2", "file": file, "size": size });
        self.execute("blockdev-create", json!({ "job-id": node, "options": options })).await?;
        let qemu = self.qemu()?;
        while qemu.qmp.execute("query-jobs", json!({})).await?[0]["status"] != "concluded" {}
        self.execute("job-dismiss", json!({ "id": node })).await?;
        let backing = blockdev(&format!("{node}-image"), image, true);
        let options = json!({ "driver": "qcow2", "node-name": node, "file": file, "backing": backing });
        self.execute("blockdev-add", options).await
    }

    /// Writes memory and state of a guest that is paused.
    async fn save(&self, state: &RefCell<State>, body: &Body) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("Cannot create snapshot: {e}");
        let qemu = self.qemu()?;
        let listener = UnixListener::bind(STATE_SOCKET).map_err(failed)?;
        let received = spawn_local(async move {
            let (mut stream, _) = listener.accept().await?;
            let mut bytes = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await?;
            std::io::Result::Ok(bytes)
        });
        qemu.qmp.prepare().await?;
        self.execute("migrate", json!({ "uri": format!("unix:{STATE_SOCKET}") })).await?;
        qemu.qmp.migrated().await?;
        let bytes = received.await.map_err(|e| e.to_string())?.map_err(failed)?;
        fs::remove_file(STATE_SOCKET).map_err(failed)?;
        let file = File::create(text(body, "mem_file_path")).map_err(failed)?;
        memory::copy(&qemu.memory, &file).map_err(failed)?;
        let mut description = state.borrow().description();
        description["requests"] = json!(self.described.borrow().requests);
        description["machine"] = hex::encode(bytes).into();
        fs::write(text(body, "snapshot_path"), description.to_string()).map_err(failed)
    }

    /// Goes on from a guest that was saved.
    async fn load(&self, state: &RefCell<State>, body: &Body) -> Result<(), String> {
        let failed = |problem: &dyn std::fmt::Display| format!("Load snapshot error: {problem}");
        let mut text_of_state = String::new();
        File::open(text(body, "snapshot_path"))
            .and_then(|mut file| file.read_to_string(&mut text_of_state))
            .map_err(|e| failed(&e))?;
        let mut description: Value = serde_json::from_str(&text_of_state).map_err(|e| failed(&e))?;
        let requests = serde_json::from_value(description["requests"].take()).map_err(|e| failed(&e))?;
        let bytes =
            hex::decode(description["machine"].as_str().unwrap_or_default()).map_err(|e| failed(&e))?;
        let mut described = Described { requests };
        if let Some(overrides) = body.get("network_overrides").and_then(Value::as_array) {
            described.rename_taps(overrides);
        }
        let served = state.borrow_mut().served.take();
        let fill = |memory: &File| match &served {
            Some(served) => served.copy(memory),
            None => {
                let backend = body.get("mem_backend").and_then(Value::as_object).cloned().unwrap_or_default();
                memory::copy(&File::open(text(&backend, "backend_path"))?, memory)
            }
        };
        let memory = memory::create(described.memory_mib() << 20, fill).map_err(|e| failed(&e))?;
        *self.described.borrow_mut() = described;
        let resumes = body.get("resume_vm") == Some(&Value::Bool(true));
        self.start(state, memory, Some(Incoming { state: bytes, resumes })).await
    }
}
