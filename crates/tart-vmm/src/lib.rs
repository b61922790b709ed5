//! Virtual machine drivers behind one trait.
//!
//! A [`Driver`] starts a [`Machine`] from a [`MachineSpec`]; the machine gives the byte stream to the guest's agent,
//! tells when and how it ended, and can always be killed. [`await_boot`] turns a guest that does not come up into an
//! error that shows why. [`QemuDriver`] runs guests on QEMU's `microvm` machine, [`FirecrackerDriver`] on Firecracker.
//!
//! No machine outlives its runner: the kernel kills it when the runner dies, and [`reap`] deals with what a killed
//! runner nevertheless left behind.

mod accel;
mod boot;
mod cmdline;
mod confine;
mod console;
mod counters;
mod error;
mod firecracker;
mod handle;
mod host;
mod isolation;
mod machine;
mod monitor;
mod process;
mod program;
mod qemu;
mod run_dir;
mod snapshot;
mod spec;
mod supervised;

pub use accel::{Accel, Acceleration, Choice, Greet, PROBE_LIMIT, Probe, choose};
pub use boot::await_boot;
pub use counters::{DeviceCounters, MachineCounters};
pub use error::VmmError;
pub use firecracker::{
    Bucket, FirecrackerDriver, FirecrackerOptions, FirecrackerTuning, HelperPrograms, HugePages, IsLent,
    JailServer, JailServerOptions, SnapshotMemory, Version, installed_jailer, kvm_problem, serve_jail,
};
pub use isolation::{Identity, Isolation, IsolationOptions, Limits};
pub use machine::{AgentStream, Capabilities, Driver, ExitKind, Machine, MachineExit, ProcessStatus};
pub use monitor::{MonitorServer, serve_monitor};
pub use qemu::{QemuDriver, QemuOptions, find_qemu};
pub use run_dir::{Guard, MachineDir, Reaped, RunDir, reap};
pub use snapshot::Snapshot;
pub use spec::{DiskSpec, MachineSpec, Origin};
