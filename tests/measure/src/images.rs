//! Images: pulls compared with skopeo and umoci, starts with podman, and file systems of disks with each other.

mod formats;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tart_e2e::{Config, Scene, program};
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, samples};

use crate::report::{line, seconds};

/// Sizes of the one layer whose pull must not take more memory when it is larger, in MiB.
const LAYERS_MIB: [usize; 2] = [64, 512];

/// How it is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// How often each is repeated; the median counts.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

impl Images {
    /// Prints tables. The image is the default one, a Debian with git and build tools of about 190 MB.
    pub(crate) async fn run(&self) -> Result<()> {
        let scene = Scene::start(&Config::default()).await;
        let store = scene.own_store(Config::default());
        let bench = Bench { scene: &scene, store, repeat: self.repeat.max(1) };
        let registry = TestRegistry::start(Options::default())?;
        let archive = scene.path("debian.tar");
        run(bench.tart(["image", "export", "default"]).arg(&archive))?;
        registry.copy(&format!("docker-archive:{}", archive.display()), "debian:12", &[])?;
        line(&format!("the image: {} MB of files", fs::metadata(&archive)?.len() / 1_000_000));
        line("");
        bench.pulls(&registry, &archive)?;
        line("");
        bench.memory(&registry)?;
        line("");
        let rootfs = scene.path("rootfs.tar");
        run(bench.tart(["image", "export", "--format", "rootfs", "default"]).arg(&rootfs))?;
        formats::compare(&rootfs, &scene.path("formats"), bench.repeat)
    }
}

struct Bench<'a> {
    scene: &'a Scene,
    store: PathBuf,
    repeat: usize,
}

impl Bench<'_> {
    fn tart<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env("HOME", self.scene.path("home")).env("CONFIG_FILE", self.scene.config());
        command.env("TART_ASSETS_DIR", &self.store);
        command
    }

    /// Forgets all fetched images and layers.
    fn forget(&self) -> Result<()> {
        run(&mut self.tart(["image", "prune", "--unused-for", "0s"])).map(drop)
    }

    fn pulls(&self, registry: &TestRegistry, archive: &Path) -> Result<()> {
        let name = registry.reference("debian:12");
        let cold = self.median(|| {
            self.forget()?;
            time(&mut self.tart(["image", "pull", &name]))
        })?;
        let warm = self.median(|| time(&mut self.tart(["image", "pull", &name])))?;
        let peers = self.median(|| {
            let (layout, bundle) = (self.scene.path("layout"), self.scene.path("bundle"));
            for path in [&layout, &bundle] {
                if path.exists() {
                    fs::remove_dir_all(path)?;
                }
            }
            let mut copy = Command::new("skopeo");
            copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
            copy.arg(format!("docker://{name}")).arg(format!("oci:{}:one", layout.display()));
            let copied = time(&mut copy)?;
            let mut unpack = Command::new("umoci");
            unpack.args(["unpack", "--image", &format!("{}:one", layout.display())]).arg(&bundle);
            Ok(copied + time(&mut unpack)?)
        })?;
        let start = self.median(|| time(&mut self.job(&name)?))?;
        let podman = Podman::load(self.scene, archive)?;
        let container = self.median(|| time(&mut podman.run()))?;
        line("| what | measured | ratio | of what | |");
        line("| --- | ---: | ---: | --- | ---: |");
        row("pull, cold, to a disk that boots", cold, peers, "skopeo copy + umoci unpack");
        row("pull, warm: the registry is asked, nothing fetched", warm, peers, "skopeo copy + umoci unpack");
        row(
            "a job in the image, warm, from start to end",
            start,
            container,
            "podman run (runc) of the image",
        );
        Ok(())
    }

    /// A job that does nothing, of a repository with one file.
    fn job(&self, image: &str) -> Result<Command> {
        let repository = self.scene.path("repository");
        if !repository.exists() {
            fs::create_dir(&repository)?;
            fs::write(
                repository.join(".gitlab-ci.yml"),
                format!("job:\n  image: {image}\n  script: ['true']\n"),
            )?;
            let git = "git init -q -b main . && git add . && \
                       git -c user.name=a -c user.email=a@example.com commit -qm a";
            run(Command::new("sh").args(["-euc", git]).current_dir(&repository))?;
        }
        let mut command = self.tart(["exec", "job"]);
        command.current_dir(repository);
        Ok(command)
    }

    /// The largest process of pulls of two images, of which one has a much larger layer.
    fn memory(&self, registry: &TestRegistry) -> Result<()> {
        line("| layer | tart image pull, peak memory of its largest process |");
        line("| ---: | ---: |");
        for size in LAYERS_MIB {
            let name = format!("layer-{size}");
            let layout = self.scene.path(&name);
            // Text that compresses to about a third, as programs do.
            let letters = |byte: u8| b"abcdefgh"[usize::from(byte & 7)];
            let noise: Vec<u8> = samples::noise(1, size << 20).into_iter().map(letters).collect();
            let tar = Files::new().file("noise", 0o644, noise).tar();
            let image = ImageBuilder::new().layer(tar, Compression::Gzip).config("Env", json!([]));
            image.write(&layout, "one")?;
            drop(image);
            registry.push(&layout, "one", &format!("{name}:1"))?;
            fs::remove_dir_all(&layout)?;
            self.forget()?;
            let pull = self.tart(["image", "pull", &registry.reference(&format!("{name}:1"))]);
            line(&format!("| {size} MiB | {:.0} MiB |", peak_mib(pull)?));
        }
        Ok(())
    }

    fn median(&self, mut once: impl FnMut() -> Result<Duration>) -> Result<Duration> {
        let mut times = (0..self.repeat).map(|_| once()).collect::<Result<Vec<_>>>()?;
        times.sort();
        times.get(times.len() / 2).copied().context("nothing was measured")
    }
}

fn row(what: &str, measured: Duration, other: Duration, of: &str) {
    let ratio = measured.as_secs_f64() / other.as_secs_f64();
    line(&format!("| {what} | {} | {ratio:.2} | {of} | {} |", seconds(measured), seconds(other)));
}

/// Containers of podman in a store of their own.
struct Podman {
    root: PathBuf,
    image: String,
}

impl Podman {
    fn load(scene: &Scene, archive: &Path) -> Result<Self> {
        let podman = Self { root: scene.path("podman"), image: "localhost/default:latest".to_owned() };
        run(podman.command().args(["load", "--quiet", "--input"]).arg(archive))?;
        Ok(podman)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.root.join("root")).arg("--runroot").arg(self.root.join("run"));
        // `runc` runs where control groups are those of version 1, too.
        command.args(["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--runtime=runc"]);
        command
    }

    fn run(&self) -> Command {
        let mut command = self.command();
        command.args([
            "run",
            "--rm",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1000:1000",
        ]);
        command.args([&self.image, "true"]);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What is mounted there keeps the directory from being removed.
        let _done = self.command().args(["system", "reset", "--force"]).output();
    }
}

/// Runs a program to its end and returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}): {error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How long a program takes. What earlier ones wrote is on the disk before.
fn time(command: &mut Command) -> Result<Duration> {
    rustix::fs::sync();
    let start = Instant::now();
    run(command)?;
    Ok(start.elapsed())
}

/// The most memory that a program, or any program it started, had at once.
fn peak_mib(command: Command) -> Result<f64> {
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["--format", "peak=%M"]).arg0("time").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        timed.env(name, value.unwrap_or_default());
    }
    let output =
        timed.stdin(Stdio::null()).output().context("cannot start time; install the package `time`")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {error}");
    let kib = error.lines().find_map(|line| line.strip_prefix("peak=")).context("time printed nothing")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
