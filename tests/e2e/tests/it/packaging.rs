//! The units that an administrator installs, and the program as they run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tart_e2e::{Config, JOB, Process, SOON, Scene, program};
use tart_test_gitlab::{JobSpec, JobState};
use tempfile::TempDir;

/// A user and group of nobody's, without an entry in any file.
pub(crate) const UNPRIVILEGED: u32 = 1_850_000_000;

/// A file of the directory `packaging`.
fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

fn read(name: &str) -> String {
    let path = packaged(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The units with the program under test as theirs, since it is not installed.
fn units() -> (TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let paths = ["tart.service", "tart-root.service", "tart-root-helper.service"].map(|name| {
        let path = directory.path().join(name);
        let text = read(&format!("systemd/{name}")).replace("/usr/bin/tart", &program().to_string_lossy());
        std::fs::write(&path, text).expect("it can be written");
        path
    });
    (directory, paths.into())
}

/// Runs a program of systemd, which must succeed, and returns what it says.
fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("install systemd: {command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn units_are_understood_by_systemd() {
    let (_directory, units) = units();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args(units);
    let said = succeed(verify);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("tart")).collect();
    assert_eq!(ours, [""; 0], "{said}");
}

#[test]
fn units_leave_the_service_little() {
    let (_directory, units) = units();
    // Tenths of systemd's ten points of exposure: 96 is a unit without any hardening.
    for (unit, most) in units.iter().zip(["30", "50", "50"]) {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", "--threshold", most]).arg(unit);
        succeed(security);
    }
}

#[test]
fn the_services_user_is_in_the_group_of_kvm_and_has_the_configuration() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("etc")).expect("a new directory");
    let root_argument = format!("--root={}", root.path().display());
    let mut users = Command::new("systemd-sysusers");
    users.arg(&root_argument).arg(packaged("sysusers.d/tart.conf"));
    succeed(users);
    let file = |name: &str| std::fs::read_to_string(root.path().join("etc").join(name)).unwrap_or_default();
    let user = file("passwd").lines().find(|line| line.starts_with("tart:")).map(str::to_owned);
    let user = user.expect("the user is made");
    assert!(user.ends_with(":/var/lib/tart/service:/usr/sbin/nologin"), "{user}");
    assert!(file("group").lines().any(|line| line.starts_with("kvm:") && line.ends_with(":tart")));

    let mut files = Command::new("systemd-tmpfiles");
    files.args([&root_argument, "--create"]).arg(packaged("tmpfiles.d/tart.conf"));
    succeed(files);
    let owner = std::os::unix::fs::MetadataExt::uid(&root.path().join("etc/tart").metadata().expect("made"));
    assert_eq!(user.split(':').nth(2), Some(owner.to_string().as_str()));
}

/// A setting of a unit; one that is given several times is all of these.
fn setting(unit: &str, key: &str) -> String {
    let unit = read(&format!("systemd/{unit}.service"));
    let values: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert!(!values.is_empty(), "the unit has no {key}");
    values.join(" ")
}

/// A command with the user and the capabilities that a unit gives, and with mounts of its own, without its program.
pub(crate) fn bounded(unit: &str, user: u32) -> tokio::process::Command {
    let bounds = setting(unit, "CapabilityBoundingSet").to_lowercase();
    let bounds: Vec<String> = bounds.split_whitespace().map(|name| name.replace("cap_", ",+")).collect();
    let mut command = tokio::process::Command::new("unshare");
    command.args(["--mount", "setpriv"]);
    command.args([format!("--reuid={user}"), format!("--regid={user}")]);
    command.args(["--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
    command.args([format!("--bounding-set=-all{}", bounds.concat()), "--".to_owned()]);
    command
}

/// The program as a unit runs it: with its command line, as this user and with its capabilities.
pub(crate) fn as_a_service(scene: &Scene, unit: &str, user: u32) -> Process {
    // Build directories are often out of reach of other users.
    std::fs::copy(program(), scene.path("tart")).expect("the program can be copied");
    let mut chown = Command::new("chown");
    chown.args(["-R", &format!("{user}:{user}")]).arg(scene.directory());
    succeed(chown);
    let line = setting(unit, "ExecStart").replace("/etc/tart/config.toml", &scene.config().to_string_lossy());
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/bin/tart"));

    let mut command = bounded(unit, user);
    command.arg(scene.path("tart")).args(words).current_dir(scene.directory());
    command.env_clear().env("HOME", scene.path("home")).env("TMPDIR", scene.path("tmp"));
    for name in ["PATH", "TART_ASSETS_DIR", "TART_TIME_FACTOR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    Process::start(command)
}

#[tokio::test]
async fn a_service_without_any_right_serves_gitlab() {
    assert!(rustix::process::geteuid().is_root(), "root becomes the ordinary user of this test");
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("hello.txt", "hello from git\n").await;
    let mut tart = as_a_service(&scene, "tart", UNPRIVILEGED);
    let script = ["cat hello.txt", "echo user=$(id -u)", "echo it runs", "sleep 1", "echo it went on"];
    let job = scene.server.enqueue(JobSpec::of(&project, script)).await;
    job.wait_log_contains("it runs", JOB).await;

    // What `systemctl reload` and then `systemctl stop` do.
    assert!(setting("tart", "ExecReload").contains("-HUP"));
    tart.signal(Signal::HUP);
    tart.wait_output("Configuration loaded", SOON).await;
    assert_eq!(setting("tart", "KillSignal"), "SIGQUIT");
    tart.signal(Signal::QUIT);
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    assert!(tart.wait(SOON).await.success(), "systemd would take the end for a failure");
    for expected in ["hello from git", "user=0", "it went on"] {
        assert!(job.log().contains(expected), "no {expected:?} in {}", job.log());
    }
    scene.finish();
}

#[tokio::test]
async fn the_capabilities_of_roots_unit_are_enough_for_networks_in_namespaces() {
    assert!(rustix::process::geteuid().is_root(), "only root makes networks in namespaces");
    let scene = Scene::start(&Config::default().network("mode = \"netns\"")).await;
    let tart = as_a_service(&scene, "tart-root", 0);
    tart.wait_output("Tart is ready for jobs", JOB).await;
    let job = scene.server.enqueue(JobSpec::script(["getent hosts gitlab.com || echo no name"])).await;
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    scene.finish();
}
