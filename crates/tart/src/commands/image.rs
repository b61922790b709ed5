//! `tart image`

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use tart_assets::{Store, default_root};
use tart_images::{ImageLog, ImageRequest, Images, Level, Listed, PullPolicy};
use tart_registry::CredentialSources;

use crate::failure::{Annotate as _, Exit};
use crate::progress::Steps;
use crate::values::duration;
use crate::{output, server, signals};

/// Digits of a digest in lists.
const SHOWN: usize = 12;

/// Pull, list, import and remove images of jobs
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The configuration whose first runner says where images are and how registries are reached; CONFIG_FILE and the
    /// usual place are read if they are there
    #[arg(long, short = 'c', global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Fetch images, so that jobs start without waiting
    Pull(PullArgs),
    /// List the images that are here
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Print all about an image as JSON
    Inspect(NameArgs),
    /// Remove images; those in use stay
    Rm(RmArgs),
    /// Remove fetched images that were not used for a while
    Prune(PruneArgs),
    /// Store an image of a file or directory; jobs then find it by exactly this name
    #[command(
        after_help = "An imported image is never removed by itself, and no registry is asked for its name."
    )]
    Import(ImportArgs),
    /// Write an image to a file
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct PullArgs {
    /// Names as in `image:`
    #[arg(required = true)]
    names: Vec<String>,
    /// Another platform than that of guests
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

#[derive(Debug, Args)]
struct LsArgs {
    /// As a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct NameArgs {
    /// The image's name, or the beginning of its digest or ID
    name: String,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// The images' names, or the beginnings of their digests or IDs
    #[arg(required = true)]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct PruneArgs {
    /// How long an image must not have been used
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
    unused_for: Duration,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The image's name; an imported image of that name is replaced
    name: String,
    /// What `docker save` writes, an OCI archive or layout, or a root file system as a tarball or directory
    path: PathBuf,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The image's name, or the beginning of its digest or ID
    name: String,
    /// The file; `-` is the standard output
    path: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::DockerArchive)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// An image of one layer, for `docker load`
    DockerArchive,
    /// The root file system as a tarball
    Rootfs,
}

/// Does it.
pub(crate) async fn run(args: ImageArgs) -> anyhow::Result<ExitCode> {
    let mut ends = signals::Ends::listen()?;
    let images = open(args.config)?;
    let work = async {
        match args.command {
            ImageCommand::Pull(pull_args) => pull(&images, pull_args).await,
            command => tokio::task::spawn_blocking(move || run_blocking(&images, command))
                .await
                .context("the work was interrupted")?,
        }
    };
    tokio::select! {
        done = work => done.map(|()| ExitCode::SUCCESS),
        signal = ends.next() => {
            signals::end_programs().await;
            Err(anyhow::anyhow!("ended by a signal ({signal})")).exit(Exit::Interrupted)
        }
    }
}

fn open(config: Option<PathBuf>) -> anyhow::Result<Images> {
    // Images need no configuration, so only one that is named on the command line has to be there.
    let given = config.is_some();
    let path = server::config_path(config.or_else(|| std::env::var_os("CONFIG_FILE").map(PathBuf::from)));
    let settings = if given || path.exists() {
        let loaded = tart_config::load(&path)?;
        loaded.config.runners.into_iter().next().map(|runner| runner.microvm).unwrap_or_default()
    } else {
        tart_config::MicroVm::default()
    };
    let root = settings.assets_dir.clone().unwrap_or_else(default_root);
    let store = Store::open(&root).hint("another directory can be named by TART_ASSETS_DIR")?;
    Ok(tart_runner::open_images(store, &settings)?)
}

fn run_blocking(images: &Images, command: ImageCommand) -> anyhow::Result<()> {
    let text = match command {
        ImageCommand::Pull(_) => String::new(),
        ImageCommand::Ls(args) => list(&images.ls()?, args.json)?,
        ImageCommand::Inspect(args) => serde_json::to_string_pretty(&images.inspect(&args.name)?)? + "\n",
        ImageCommand::Rm(args) => {
            for name in &args.names {
                images.rm(name)?;
            }
            String::new()
        }
        ImageCommand::Prune(args) => {
            let pruned = images.prune(args.unused_for)?;
            let mut text: String =
                pruned.images.iter().map(|manifest| format!("removed {manifest}\n")).collect();
            text.push_str(&format!(
                "{} images and {} layers removed, {}\n",
                pruned.images.len(),
                pruned.layers,
                output::bytes(pruned.bytes)
            ));
            text
        }
        ImageCommand::Import(args) => {
            let steps = Steps::show();
            tart_assets::Progress::step(&*steps, &format!("importing {}", args.path.display()));
            let disk = images.import(&args.name, &args.path)?;
            steps.finish();
            format!("{}: {}\n", args.name, disk.path.display())
        }
        ImageCommand::Export(args) => {
            export(images, &args)?;
            String::new()
        }
    };
    output::to_stdout(&text)?;
    Ok(())
}

async fn pull(images: &Images, args: PullArgs) -> anyhow::Result<()> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    for name in args.names {
        let request = ImageRequest {
            name,
            platform: args.platform.clone(),
            policies: vec![PullPolicy::Always],
            credentials: CredentialSources {
                runner_config: std::env::var("DOCKER_AUTH_CONFIG").ok(),
                host: home.as_ref().map(|home| home.join(".docker/config.json")),
                ..CredentialSources::default()
            },
        };
        let image = images.obtain(&request, &Terminal).await?;
        let digest = image.manifest.as_deref().unwrap_or(&image.disk.digest);
        output::to_stdout(&format!("{}: {digest}\n", request.name))?;
    }
    Ok(())
}

/// Lines of a pull, on the standard error.
struct Terminal;

impl ImageLog for Terminal {
    fn line(&self, level: Level, text: &str) {
        let label = if level == Level::Warning { "warning: " } else { "" };
        output::to_stderr(&format!("{label}{text}\n"));
    }
}

fn export(images: &Images, args: &ExportArgs) -> anyhow::Result<()> {
    if args.path == Path::new("-") {
        return write(images, args, &mut std::io::stdout().lock());
    }
    let directory = args.path.parent().filter(|parent| *parent != Path::new(""));
    let directory = directory.unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("cannot make a file in {}", directory.display()))?;
    write(images, args, draft.as_file_mut())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    File::set_permissions(draft.as_file(), mode)?;
    draft.persist(&args.path).with_context(|| format!("cannot write {}", args.path.display()))?;
    Ok(())
}

fn write(images: &Images, args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    match args.format {
        Format::DockerArchive => images.export(&args.name, out)?,
        Format::Rootfs => images.export_rootfs(&args.name, out)?,
    }
    Ok(())
}

fn list(images: &[Listed], json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(images)? + "\n");
    }
    if images.is_empty() {
        return Ok("no images; jobs fetch what they name, and `tart image pull` does so now\n".to_owned());
    }
    let rows: Vec<[String; 6]> = images
        .iter()
        .map(|image| {
            let digest = image.id.trim_start_matches("sha256:").chars().take(SHOWN).collect();
            let state = match (image.in_use, image.imported) {
                (true, _) => "in use",
                (false, true) => "imported",
                (false, false) => "",
            };
            let names = if image.names.is_empty() { "-".to_owned() } else { image.names.join(", ") };
            let size = output::bytes(image.size);
            [names, image.platform.clone(), digest, size, output::age(image.unused_seconds), state.to_owned()]
        })
        .collect();
    Ok(output::table(["NAME", "PLATFORM", "ID", "SIZE", "LAST USED", "STATE"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_what_people_look_for() {
        let image = Listed {
            names: vec!["docker.io/library/busybox:1".to_owned()],
            platform: "linux/amd64".to_owned(),
            manifest: String::new(),
            id: "sha256:0123456789abcdef".to_owned(),
            size: 1 << 20,
            unused_seconds: 7200,
            in_use: true,
            imported: false,
        };
        insta::assert_snapshot!(list(&[image], false).unwrap(), @r#"
        NAME                         PLATFORM     ID            SIZE     LAST USED  STATE
        docker.io/library/busybox:1  linux/amd64  0123456789ab  1.0 MiB  2 h ago    in use
        "#);
        insta::assert_snapshot!(list(&[], false).unwrap(), @"no images; jobs fetch what they name, and `tart image pull` does so now");
    }
}
