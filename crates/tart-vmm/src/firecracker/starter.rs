//! Who starts the Firecrackers of a driver.

use std::{path::Path, sync::Arc};

use super::{
    helped::Helper,
    jail::{self, Furnishing, Jailer},
    place::Place,
    setting::{Setting, Started, Subject, Surroundings, on_thread},
    view::View,
};
use crate::{MachineSpec, VmmError, process::Launcher};

/// Who starts them.
#[derive(Debug)]
pub(super) enum Starter {
    /// This process, without a jail.
    Free(Arc<Launcher>),
    /// This process, which is root.
    Jailing(Arc<Launcher>, Arc<Jailer>),
    /// The root helper, in jails of its own.
    Helper(Helper),
}

/// A machine that is to be started.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// The program, if there is no jail.
    pub(super) binary: &'a Path,
    pub(super) spec: &'a MachineSpec,
    pub(super) view: View,
    /// The largest file that it may write, in bytes.
    pub(super) max_file: u64,
    /// Bytes in a second that it reads from disks and writes to them.
    pub(super) bandwidth: Option<u64>,
    pub(super) surroundings: Surroundings,
}

impl Starter {
    pub(super) fn jails(&self) -> bool {
        !matches!(self, Self::Free(_))
    }

    /// What a machine sees that it starts. `serves` says that saved memory is served page by page.
    pub(super) async fn view(&self, spec: &MachineSpec, serves: bool) -> Result<View, VmmError> {
        if !self.jails() {
            return View::free(spec, serves);
        }
        let spec = spec.clone();
        on_thread(move || View::jailed(&spec, serves)).await?
    }

    pub(super) async fn start(&self, order: Order<'_>) -> Result<Started<Place>, VmmError> {
        let subject = Subject { id: &order.spec.id, dir: &order.spec.run_dir, max_file: order.max_file };
        let (launcher, setting) = match self {
            Self::Helper(helper) => {
                let Started { process, place, ends } = helper.start(order).await?;
                return Ok(Started { process, place: Place::Helped(place), ends });
            }
            Self::Free(launcher) => (launcher, Setting::free(order.binary, subject, order.view.inherited)?),
            Self::Jailing(launcher, jailer) => {
                (launcher, jailed(jailer.clone(), order.spec, order.view.files, order.max_file).await?)
            }
        };
        let Started { process, place, ends } = setting.launch(launcher, subject, order.surroundings).await?;
        Ok(Started { process, place: Place::Here(place), ends })
    }
}

async fn jailed(
    jailer: Arc<Jailer>,
    spec: &MachineSpec,
    files: Vec<Furnishing>,
    max_file: u64,
) -> Result<Setting, VmmError> {
    let (id, dir) = (spec.id.clone(), spec.run_dir.clone());
    let (identity, cgroup) = (spec.identity, spec.cgroup.clone());
    on_thread(move || {
        let subject = Subject { id: &id, dir: &dir, max_file };
        Setting::jailed(&jailer, subject, (identity, cgroup.as_deref()), &files, jail::open)
    })
    .await?
}
