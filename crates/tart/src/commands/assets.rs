//! `tart assets`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tart_assets::{BootRequest, DEFAULT_IMAGE, KernelSource, Kind, Store, default_root};

use crate::failure::{Annotate as _, Exit};
use crate::progress::Steps;
use crate::values::duration;
use crate::{output, product, signals};

/// Build, list, check and remove what guests boot from
#[derive(Debug, Subcommand)]
pub(crate) enum AssetsCommand {
    /// Build what is missing: kernel, initramfs, helper disk, default image
    Build(BuildArgs),
    /// List what is there
    #[command(visible_alias = "list")]
    Ls,
    /// Remove what was not used for a while; imported images stay
    Prune(PruneArgs),
    /// Read every file and compare it with its digest
    Verify(VerifyArgs),
}

/// Build what is missing
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// A kernel to use instead of the distribution's: a bzImage or an ELF file
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// The modules of that kernel, its /lib/modules/RELEASE; none if all drivers are built in
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Look for newer packages first
    #[arg(long)]
    update: bool,
}

/// Remove what was not used for a while
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// How long something must not have been used
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
    unused_for: Duration,
}

/// Check everything
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Remove what is damaged, so that it is built again when needed
    #[arg(long)]
    repair: bool,
}

/// Does it. Everything here blocks; what a signal leaves unfinished in the store, `prune` removes.
pub(crate) async fn run(command: AssetsCommand) -> anyhow::Result<ExitCode> {
    let mut ends = signals::Ends::listen()?;
    let work = tokio::task::spawn_blocking(move || run_blocking(command));
    tokio::select! {
        done = work => done.context("the work was interrupted")?,
        signal = ends.next() => {
            signals::end_programs().await;
            Err(anyhow::anyhow!("ended by a signal ({signal})")).exit(Exit::Interrupted)
        }
    }
}

fn run_blocking(command: AssetsCommand) -> anyhow::Result<ExitCode> {
    let steps = Steps::show();
    let store = open(&steps)?;
    let (text, code) = match command {
        AssetsCommand::Build(args) => (build(&store, args)?, ExitCode::SUCCESS),
        AssetsCommand::Ls => (ls(&store)?, ExitCode::SUCCESS),
        AssetsCommand::Prune(args) => (prune(&store, &args)?, ExitCode::SUCCESS),
        AssetsCommand::Verify(args) => verify(&store, &args)?,
    };
    steps.finish();
    output::to_stdout(&text)?;
    Ok(code)
}

fn open(steps: &Arc<Steps>) -> anyhow::Result<Store> {
    let root = default_root();
    let store = Store::open(&root).hint("another directory can be named by TART_ASSETS_DIR")?;
    Ok(store.with_progress(steps.clone()))
}

fn build(store: &Store, args: BuildArgs) -> anyhow::Result<String> {
    let kernel = match args.kernel {
        Some(kernel) => KernelSource::File { kernel, modules: args.modules },
        None => KernelSource::Distribution,
    };
    let boot = store.build(&BootRequest { kernel, agent: product::agent() }, args.update)?;
    let image = store.image(DEFAULT_IMAGE)?;
    let files = [
        ("kernel", &boot.kernel),
        ("vmlinux", &boot.vmlinux),
        ("initramfs", &boot.initrd),
        ("helper disk", &boot.helper),
        ("default image", &image.path),
    ];
    let mut text = format!("guest kernel: {}\n", boot.release);
    for (what, path) in files {
        text.push_str(&format!("{what}: {}\n", path.display()));
    }
    Ok(text)
}

fn ls(store: &Store) -> anyhow::Result<String> {
    let rows: Vec<[String; 5]> = store
        .ls()?
        .into_iter()
        .map(|entry| {
            let details: Vec<String> =
                entry.details.iter().map(|(key, value)| format!("{key}={value}")).collect();
            [
                entry.kind.as_str().to_owned(),
                entry.name,
                output::bytes(entry.size),
                output::age(entry.unused_for.as_secs()),
                details.join(" "),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok(format!("{} is empty; `tart assets build` fills it\n", store.root().display()));
    }
    Ok(output::table(["KIND", "NAME", "SIZE", "LAST USED", "DETAILS"], &rows))
}

fn prune(store: &Store, args: &PruneArgs) -> anyhow::Result<String> {
    let pruned = store.prune(args.unused_for)?;
    let mut text = String::new();
    for (kind, name) in &pruned.entries {
        text.push_str(&format!("removed {}\n", named(*kind, name)));
    }
    text.push_str(&format!("{} files removed, {}\n", pruned.files, output::bytes(pruned.bytes)));
    Ok(text)
}

fn verify(store: &Store, args: &VerifyArgs) -> anyhow::Result<(String, ExitCode)> {
    let verified = store.verify(args.repair)?;
    let mut text = String::new();
    let done = if args.repair { "was damaged and is removed" } else { "is damaged" };
    for (kind, name, path) in &verified.damaged {
        text.push_str(&format!("{} {done}: {}\n", named(*kind, name), path.display()));
    }
    text.push_str(&format!("{} entries are whole\n", verified.good));
    if verified.damaged.is_empty() || args.repair {
        return Ok((text, ExitCode::SUCCESS));
    }
    output::to_stdout(&text)?;
    let count = verified.damaged.len();
    Err(anyhow::anyhow!("{count} of {} entries are damaged", verified.good + count as u64))
        .hint("`tart assets verify --repair` removes them, and they are built again when needed")
        .exit(Exit::Host)
}

fn named(kind: Kind, name: &str) -> String {
    if name.is_empty() { kind.as_str().to_owned() } else { format!("{} {name}", kind.as_str()) }
}
