//! Where and how a machine's Firecracker is started: in a jail, or in the machine's directory as the runner's user.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    FirecrackerDriver,
    jail::{self, Furnishing, Jailer},
    pages,
    place::Place,
    requests::{self, Backend, Saved},
};
use crate::{DiskSpec, Identity, MachineSpec, Origin, VmmError, snapshot::MAX_STATE};

/// The API's socket in the directory of a machine without a jail.
const API_SOCKET: &str = "api.sock";

/// Bytes of the image of disks without one.
const EMPTY: u64 = 4096;

/// What a machine's Firecracker is started with.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) inherit: Vec<Arc<OwnedFd>>,
    /// The largest file that what is started may write, in bytes.
    pub(super) max_file: u64,
    /// Its working directory.
    pub(super) place: Place,
    /// Name of the API's socket there.
    pub(super) api_socket: &'static str,
    /// The machine with paths as it sees them.
    pub(super) spec: MachineSpec,
    /// What it goes on from.
    pub(super) saved: Option<Saved>,
    pub(super) jail: Option<Jail>,
}

impl Setting {
    /// Prepares for a machine.
    pub(super) async fn prepare(driver: &FirecrackerDriver, spec: &MachineSpec) -> Result<Self, VmmError> {
        let template = matches!(spec.origin, Origin::Template);
        let saved = if template { spec.memory_bytes.max(MAX_STATE) } else { 0 };
        let max_file = spec.largest_writable().max(saved);
        match &driver.jailer {
            None => Self::free(driver, spec, max_file),
            Some(jailer) => {
                let (jailer, jailed, serves) = (jailer.clone(), spec.clone(), driver.serves_pages());
                on_thread(move || Self::jailed(&jailer, &jailed, max_file, serves)).await?
            }
        }
    }

    fn free(driver: &FirecrackerDriver, spec: &MachineSpec, max_file: u64) -> Result<Self, VmmError> {
        let what = |what: &str| format!("{what} of virtual machine `{}`", spec.id);
        let mut inherit = Vec::new();
        let saved = match &spec.origin {
            Origin::Boot | Origin::Template => None,
            Origin::Snapshot(snapshot) => {
                let state = snapshot.state().map_err(|e| VmmError::system("open a saved machine", e))?;
                let mut give = |file: Arc<OwnedFd>| {
                    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                    inherit.push(file);
                    path
                };
                let memory = if driver.serves_pages() {
                    Backend::Uffd(pages::SOCKET.to_owned())
                } else {
                    Backend::File(give(snapshot.memory()))
                };
                Some(Saved { memory, state: give(Arc::new(state)) })
            }
        };
        let place =
            Place::open(&spec.run_dir).map_err(|e| VmmError::system(what("open the directory"), e))?;
        File::create(spec.run_dir.join(requests::EMPTY_DISK))
            .and_then(|disk| disk.set_len(EMPTY))
            .map_err(|e| VmmError::system(what("make an empty disk"), e))?;
        Ok(Self {
            program: driver.binary.clone(),
            arguments: ["--id", &spec.id, "--api-sock", API_SOCKET].map(Into::into).to_vec(),
            inherit,
            max_file,
            place,
            api_socket: API_SOCKET,
            spec: spec.clone(),
            saved,
            jail: None,
        })
    }

    /// Blocks. `serves` says that memory is served page by page.
    fn jailed(jailer: &Jailer, spec: &MachineSpec, max_file: u64, serves: bool) -> Result<Self, VmmError> {
        let refuse = |reason: String| VmmError::Jail { id: spec.id.clone(), reason };
        if let Some(reason) = jail::refuse_mount(&spec.run_dir) {
            return Err(refuse(reason));
        }
        let cgroup = match &spec.cgroup {
            None => None,
            Some(cgroup) => {
                let mounts = fs::read_to_string("/proc/mounts")
                    .map_err(|e| VmmError::system("read what is mounted", e))?;
                let foreign = || refuse(format!("{} is no control group of version 2", cgroup.display()));
                Some(jail::below_mount(&mounts, cgroup).ok_or_else(foreign)?)
            }
        };
        let (saved, files) = match &spec.origin {
            Origin::Boot | Origin::Template => (None, None),
            Origin::Snapshot(snapshot) => {
                // Beside the machine's directory, since they outlive the machine.
                let [memory, state] = snapshot.files(spec.run_dir.parent().unwrap_or(&spec.run_dir))?;
                let mut files = vec![Furnishing::shared(jail::STATE, &state)];
                let memory = if serves {
                    Backend::Uffd(pages::SOCKET.to_owned())
                } else {
                    files.insert(0, Furnishing::shared(jail::MEMORY, &memory));
                    Backend::File(jail::MEMORY.to_owned())
                };
                (Some(Saved { memory, state: jail::STATE.to_owned() }), Some(files))
            }
        };
        let plan = jail::plan(jailer, spec, cgroup.as_deref(), files, max_file)?;
        let jail = Jail { identity: plan.identity, cgroup: spec.cgroup.clone(), top: plan.top.clone() };
        let place = jail::make(&plan)?;
        Ok(Self {
            program: jailer.program.clone(),
            arguments: plan.arguments,
            inherit: Vec::new(),
            // The jailer copies Firecracker and sets the limit for that.
            max_file: u64::MAX,
            place,
            api_socket: jail::API_SOCKET,
            spec: plan.inside,
            saved,
            jail: Some(jail),
        })
    }
}

/// A machine's jail; removed with all in it when dropped.
#[derive(Debug)]
pub(super) struct Jail {
    pub(super) identity: Identity,
    cgroup: Option<PathBuf>,
    top: PathBuf,
}

impl Jail {
    /// Puts an image under a disk; its path as the jailed program sees it.
    pub(super) async fn put_disk(
        &self,
        place: &Place,
        position: usize,
        disk: &DiskSpec,
        image: &Path,
    ) -> Result<String, VmmError> {
        let file = Furnishing::disk(position, image, disk.read_only);
        let name = file.name.clone();
        let failed = {
            let what = format!("put {} into a jail", image.display());
            move |e: io::Error| VmmError::system(what, e)
        };
        let identity = self.identity;
        let put = match place.try_clone() {
            Ok(place) => on_thread(move || jail::put(&place, identity, &file)).await?,
            Err(error) => Err(error),
        };
        put.map_err(failed)?;
        Ok(name)
    }

    /// Why a process cannot go on: the jailer says nothing if there is no control group where it was told.
    pub(super) fn problem(&self, pid: u32) -> Option<String> {
        let cgroup = self.cgroup.as_ref()?;
        let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        if members.lines().any(|member| member.parse() == Ok(pid)) {
            return None;
        }
        Some(format!("is not in its control group {}", cgroup.display()))
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.top)
            && error.kind() != io::ErrorKind::NotFound
        {
            // It is in the machine's directory, which is removed too.
            tracing::debug!(path = %self.top.display(), %error, "cannot remove a jail yet");
        }
    }
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, VmmError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| VmmError::system("prepare a virtual machine", io::Error::other(e)))
}
