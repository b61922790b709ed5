//! `tart root-helper`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tart_config::MicroVm;
use tart_runner::root_helper::{RootHelperError, RootHelperOptions, serve};
use tart_vmm::{IsolationOptions, JailServerOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Annotate as _, Exit};

/// Do for an unprivileged `tart run` what only root can do
///
/// Networks of guests (`mode = "netns"`), and monitors with users, root directories and cgroups of their own. Only one user
/// may ask for them, and gets nothing else of root. All of it ends with the runner, and with this helper.
#[derive(Debug, Args)]
pub(crate) struct RootHelperArgs {
    /// The user of the runner, by name or number
    #[arg(long, value_name = "USER", default_value = "tart")]
    user: String,
    /// Where it listens
    #[arg(long, value_name = "PATH", default_value = tart_runner::root_helper::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The QEMU that it starts; that of the search path without it
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// The Firecracker that it starts; that of the search path without it, if there is one
    #[arg(long, value_name = "PATH")]
    firecracker: Option<PathBuf>,
    /// Its jailer, of the same release; the one that is installed with it without it
    #[arg(long, value_name = "PATH")]
    jailer: Option<PathBuf>,
    /// Where jails are made: a directory that only root can change, best of the file system of images
    #[arg(long, value_name = "DIR", default_value = tart_runner::root_helper::DEFAULT_JAILS)]
    jails: PathBuf,
    /// First user and group that monitors run as
    #[arg(long, value_name = "ID", default_value_t = MicroVm::default().uid_base)]
    uid_base: u32,
    /// The most guests at a time, each with a user of its own
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    guests: u32,
    /// The cgroup (version 2) below which each guest has one; the service's own without it, else `tart`
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
}

pub(crate) async fn run(args: RootHelperArgs) -> anyhow::Result<ExitCode> {
    let user = user(&args.user).exit(Exit::Usage)?;
    let needs_firecracker = args.firecracker.is_some() || args.jailer.is_some();
    let qemu = match tart_vmm::find_qemu(args.qemu.as_deref()) {
        Ok(qemu) => Some(qemu),
        // It has something to start.
        Err(_) if args.qemu.is_none() && needs_firecracker => None,
        Err(error) => return Err(error).exit(Exit::Host),
    };
    let options = RootHelperOptions {
        socket: args.socket.clone(),
        user,
        isolation: IsolationOptions {
            uid_base: args.uid_base,
            uid_count: args.guests,
            locks: tart_runner::root_helper::UID_LOCKS.into(),
            cgroup_parent: args.cgroup_parent,
        },
        qemu,
        jails: JailServerOptions { firecracker: args.firecracker, jailer: args.jailer, dir: args.jails },
        needs_firecracker,
        guests: usize::try_from(args.guests).unwrap_or(usize::MAX),
    };
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    };
    let ready = || tracing::warn!(socket = %args.socket.display(), user, "The root helper is ready");
    match serve(options, ready, end).await {
        Err(error @ (RootHelperError::Machines(_) | RootHelperError::Network(_))) => {
            Err(error).hint("`tart root-helper` has to run as root").exit(Exit::Host)
        }
        served => served.exit(Exit::Host).map(|()| ExitCode::SUCCESS),
    }
}

/// The number of a user.
fn user(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    number_of(name, &users)
        .with_context(|| format!("there is no user `{name}`; make it, or name one with --user"))
}

/// The number of a user in a file of passwd(5).
fn number_of(name: &str, users: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? == name { fields.nth(1)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\ntart:x:997:996::/var/lib/tart:/usr/sbin/nologin\nodd\n";
        assert_eq!((number_of("tart", users), number_of("root", users)), (Some(997), Some(0)));
        for absent in ["tar", "odd", "", "997"] {
            assert_eq!(number_of(absent, users), None, "{absent}");
        }
        assert_eq!(user("1234").unwrap(), 1234);
    }
}
