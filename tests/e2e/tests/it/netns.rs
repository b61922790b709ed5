//! `mode = "netns"`: a machine between a host and an outside that are network namespaces of the test. Needs root.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tart_e2e::{Config, JOB, Process, SOON, Scene, program};
use tart_test_gitlab::{Image, JobHandle, JobSpec, JobState, Variable};
use tart_test_registry::{Options, TestRegistry, samples};

use crate::firecracker::{built, on_firecracker};
use crate::packaging::{UNPRIVILEGED, as_a_service, bounded};

/// A shell function that says whether a server at `host port` says hello.
const SCAN: &str = "scan() { timeout 5 bash -c \"exec 3<>/dev/tcp/$1/$2 && grep -q hello <&3\" 2>/dev/null && echo \"found: $1 $2\" || echo \"nothing: $1 $2\"; }";

/// Addresses of the outside, each with a server.
const OUTSIDE: [&str; 4] = ["198.51.100.10", "198.51.100.11", "10.9.9.9", "169.254.169.254"];
const OUTSIDE6: [&str; 3] = ["2001:db8:5::10", "fd99::9", "fd00:ec2::254"];

const POLICY: &str = "mode = \"netns\"\ndns = [\"203.0.113.1\"]\ndeny = [\"198.51.100.11\"]";

fn ip(commands: &str) {
    for command in commands.lines() {
        let status = Command::new("ip").args(command.split_whitespace()).status().expect("ip runs");
        assert!(status.success(), "ip {command}: {status}");
    }
}

/// Moves this thread, and with it all that it starts, into a host of the test's own.
fn enter_lab() -> Lab {
    let lab = Lab(format!("te{}", std::process::id()));
    let Lab(name) = &lab;
    ip(&format!(
        "netns add {name}-host\nnetns add {name}-out\n\
         link add up0 netns {name}-host type veth peer name up0 netns {name}-out\n\
         -n {name}-host link set lo up\n-n {name}-host address add 203.0.113.2/24 dev up0\n\
         -n {name}-host link set up0 up\n-n {name}-host route add default via 203.0.113.1\n\
         -n {name}-out link set lo up\n-n {name}-out address add 203.0.113.1/24 dev up0\n\
         -n {name}-out link set up0 up"
    ));
    ip(&format!(
        "-n {name}-host address add 2001:db8:113::2/64 dev up0 nodad\n\
         -n {name}-host route add default via 2001:db8:113::1\n\
         -n {name}-out address add 2001:db8:113::1/64 dev up0 nodad"
    ));
    let addresses = OUTSIDE.iter().map(|address| format!("{address}/32"));
    for address in addresses.chain(OUTSIDE6.iter().map(|address| format!("{address}/128"))) {
        ip(&format!("-n {name}-out address add {address} dev lo"));
    }
    enter(&format!("{name}-out"));
    let (listener, dns) = (TcpListener::bind("[::]:80"), UdpSocket::bind("0.0.0.0:53"));
    enter(&format!("{name}-host"));
    let on_host = TcpListener::bind("[::]:80");
    for listener in [listener, on_host] {
        let listener = listener.expect("a namespace of its own has all ports free");
        thread::spawn(move || greet(&listener));
    }
    let dns = dns.expect("a namespace of its own has all ports free");
    thread::spawn(move || serve_dns(&dns));
    lab
}

fn enter(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).expect("the namespace was made");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("this is root");
}

struct Lab(String);

impl Drop for Lab {
    fn drop(&mut self) {
        for end in ["host", "out"] {
            // A test that failed has said why.
            let _gone = Command::new("ip").args(["netns", "delete", &format!("{}-{end}", self.0)]).status();
        }
    }
}

fn greet(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        let _gone = connection.write_all(b"hello\n");
    }
}

/// Answers every query for an IPv4 address with the same one, and others with nothing.
fn serve_dns(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let name = buffer[12..len].iter().position(|byte| *byte == 0).unwrap_or_default();
        let end = 12 + name + 5;
        let mut answer = buffer[..end].to_vec();
        let is_address = buffer[end - 4..end] == [0, 1, 0, 1];
        (answer[2], answer[3], answer[7], answer[11]) = (0x81, 0x80, u8::from(is_address), 0);
        if is_address {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 10]);
        }
        let _gone = socket.send_to(&answer, from);
    }
}

const FORWARDING6: &str = "/proc/sys/net/ipv6/conf/up0/force_forwarding";

/// What was found by the lines `found: host port` of a log.
fn found(log: &str) -> Vec<&str> {
    let lines = log.lines().filter(|line| !line.contains("echo"));
    lines
        .filter_map(|line| line.split_once("found: ").map(|(_, found)| found.trim_end_matches('\r')))
        .collect()
}

#[tokio::test]
async fn a_guest_finds_what_is_public_and_nothing_of_the_host_or_of_clouds() {
    finds_what_is_public(Config::default()).await;
}

/// Has a job of this configuration look for hosts.
pub(crate) async fn finds_what_is_public(config: Config) {
    let _lab = enter_lab();
    let scene = Scene::start(&config.network(POLICY)).await;
    let server = scene.server.url().trim_start_matches("http://").replace(':', " ");
    let mut lines = vec![SCAN.to_owned()];
    let hosts = ["127.0.0.1", "203.0.113.2", "192.0.0.1", "169.254.64.0", "169.254.64.1", "169.254.64.2"];
    let hosts6 = ["::1", "2001:db8:113::2", "2001:db8:113::1", "fd74:6172:7400::1", "fd74:6172:7400:1::"];
    let all = OUTSIDE.iter().chain(&OUTSIDE6).chain(&hosts).chain(&hosts6).chain(&["public.test"]);
    lines.extend(all.map(|host| format!("scan {host} 80")));
    // The server of the job is on the host's loopback; it says hello to nobody, but is there.
    lines.push(format!("exec 3<>/dev/tcp/{} && echo served", server.replace(' ', "/")));
    let job = scene.server.enqueue(JobSpec::script(lines).env("GIT_STRATEGY", "none")).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    let log = job.log();
    let mut expected = vec!["198.51.100.10 80", "2001:db8:5::10 80", "public.test 80"];
    // Kernels before 6.17 do not forward IPv6 for single devices.
    expected.retain(|found| !found.contains("db8") || Path::new(FORWARDING6).exists());
    assert_eq!(found(&log), expected, "{log}");
    assert!(log.lines().any(|line| line.ends_with(" served")), "{log}");
    let denied = log.lines().find(|line| line.contains("the network policy denied")).expect(&log);
    for address in ["10.9.9.9:80/tcp", "169.254.169.254:80/tcp", "198.51.100.11:80/tcp"] {
        assert!(denied.contains(address), "{denied}");
    }

    // A job narrows what it reaches, by name and not beyond.
    let lines =
        [SCAN, "scan 198.51.100.10 80", "scan narrow.test 80", "scan other.test 80", "scan 10.9.9.9 80"];
    let narrowed = JobSpec::script(lines.map(str::to_owned)).env("GIT_STRATEGY", "none");
    let narrowed = narrowed.env("TART_EGRESS_ALLOW", "narrow.test:80, 10.9.9.9");
    let job = scene.server.enqueue(narrowed).await;
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    assert_eq!(found(&job.log()), ["narrow.test 80"], "{}", job.log());
    let denied = job.log().lines().any(|line| line.contains("policy denied") && line.contains("other.test"));
    assert!(denied, "{}", job.log());
    scene.drain(tart).await;
    scene.finish();

    assert_eq!(left(), "");
}

#[tokio::test]
async fn a_service_finds_what_its_job_finds() {
    let _lab = enter_lab();
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    registry
        .push_image(&samples::busybox().expect("busybox-static is installed"), "b:1")
        .expect("it is pushed");
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default().network(POLICY));
    let hosts =
        OUTSIDE.iter().chain(&["127.0.0.1", "203.0.113.2", "192.0.0.1", "169.254.64.0", "public.test"]);
    let hosts: Vec<_> = hosts.copied().collect();
    let scan = format!(
        "for h in {}; do busybox nc -w 3 $h 80 </dev/null | grep -q hello && echo \"found: $h 80\"; done; \
         exec busybox httpd -f -p 8080",
        hosts.join(" ")
    );
    let service = Image::new(registry.reference("b:1")).alias("scanner").entrypoint(["sh", "-c", &scan]);
    let service = service.variable(Variable::new("HEALTHCHECK_TCP_PORT", "8080"));
    let job = JobSpec::script(["true"]).env("GIT_STRATEGY", "none").env("CI_DEBUG_SERVICES", "true");
    let job = scene.server.enqueue(job.service(service)).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    let log = job.log();
    assert_eq!(found(&log), ["198.51.100.10 80", "public.test 80"], "{log}");
    assert!(log.contains("[service:b-scanner] "), "{log}");
    scene.drain(tart).await;
    scene.finish();
    assert_eq!(left(), "");
}

#[tokio::test]
async fn the_network_of_a_killed_runner_is_removed_by_the_next() {
    let _lab = enter_lab();
    let scene = Scene::start(&Config::default().network(POLICY)).await;
    let lost = scene.server.enqueue(JobSpec::script(["echo it runs", "sleep 100000"])).await;
    let mut tart = scene.run();
    lost.wait_log_contains("it runs", JOB).await;
    assert!(left().contains("tart-") && left().contains("table inet tart"), "{}", left());
    tart.signal(Signal::KILL);
    tart.wait(SOON).await;
    let processes = scene.leftovers().wait_for_processes(SOON);
    assert!(processes.is_empty(), "they outlive the runner: {processes:?}");
    assert!(left().contains("table inet tart"), "a killed runner cannot remove its rules");
    lost.fail("runner_system_failure");

    let tart = scene.run();
    tart.wait_output("ready for jobs", SOON).await;
    scene.drain(tart).await;
    scene.finish();
    assert_eq!(left(), "");
}

/// The users of QEMUs that are children of a process.
fn users_of_monitors(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("it can be read").flatten();
    let user = |process: std::fs::DirEntry| {
        let status = std::fs::read_to_string(process.path().join("status")).ok()?;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        let is_one = value("PPid")? == parent.to_string() && value("Name")?.starts_with("qemu-system");
        if is_one { value("Uid")?.parse().ok() } else { None }
    };
    processes.filter_map(user).collect()
}

/// A root helper for the unprivileged user, with more options and their paths.
async fn root_helper(socket: &Path, options: &[(&str, &PathBuf)]) -> Process {
    let mut command = bounded("tart-root-helper", 0);
    command.arg(program()).args(["root-helper", "--user", &UNPRIVILEGED.to_string(), "--guests", "8"]);
    command.arg("--socket").arg(socket);
    for (option, path) in options {
        command.arg(option).arg(path);
    }
    let helper = Process::start(command);
    helper.wait_output("The root helper is ready", SOON).await;
    helper
}

/// Kills a runner amid a job, of which nothing is left then; the next one works. The helper ends in good order.
async fn all_ends_with_its_runner(scene: &Scene, mut tart: Process, job: &JobHandle, mut helper: Process) {
    tart.signal(Signal::KILL);
    tart.wait(SOON).await;
    let processes = scene.leftovers().wait_for_processes(SOON);
    assert!(processes.is_empty(), "they outlive the runner: {processes:?}");
    job.fail("runner_system_failure");

    let mut tart = as_a_service(scene, "tart", UNPRIVILEGED);
    let job = scene.server.enqueue(JobSpec::script(["echo again"]).env("GIT_STRATEGY", "none")).await;
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    tart.signal(Signal::QUIT);
    assert!(tart.wait(SOON).await.success());
    helper.signal(Signal::TERM);
    assert!(helper.wait(SOON).await.success());
}

#[tokio::test]
async fn a_runner_without_any_right_has_networks_and_users_by_the_root_helper() {
    let _lab = enter_lab();
    let place = tempfile::tempdir().expect("a temporary directory");
    let socket = place.path().join("helper.sock");
    std::fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("it is this user's");
    let config = Config::default().network(POLICY).microvm(&format!("root_helper = {socket:?}"));
    let scene = Scene::start(&config.microvm("pool = { policy = [{ idle_count = 1 }] }")).await;
    let helper = root_helper(&socket, &[]).await;

    let tart = as_a_service(&scene, "tart", UNPRIVILEGED);
    tart.wait_output("A machine is ready for a job", JOB).await;
    let mut lines = vec![SCAN.to_owned()];
    lines.extend(
        ["198.51.100.10", "10.9.9.9", "203.0.113.2", "public.test"].map(|host| format!("scan {host} 80")),
    );
    lines.extend(["echo it runs", "sleep 100000"].map(str::to_owned));
    let job = scene.server.enqueue(JobSpec::script(lines).env("GIT_STRATEGY", "none")).await;
    job.wait_log_contains("it runs", JOB).await;
    let users = users_of_monitors(helper.id());
    assert!(!users.is_empty() && users.iter().all(|user| ![0, UNPRIVILEGED].contains(user)), "{users:?}");
    assert_eq!(users.iter().collect::<BTreeSet<_>>().len(), users.len(), "each has its own: {users:?}");
    let log = job.log();
    assert_eq!(found(&log), ["198.51.100.10 80", "public.test 80"], "{log}");
    assert!(log.contains("taken from the pool"), "{log}");

    all_ends_with_its_runner(&scene, tart, &job, helper).await;
    assert!(!socket.exists());
    scene.finish();
    assert_eq!(left(), "");
}

#[tokio::test]
async fn a_runner_without_any_right_has_jailed_guests_on_firecracker_by_the_root_helper() {
    if on_firecracker(true).is_none() {
        return;
    }
    let _lab = enter_lab();
    let place = tempfile::tempdir().expect("a temporary directory");
    let (socket, jails) = (place.path().join("helper.sock"), place.path().join("jails"));
    std::fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("it is this user's");
    // Which programs they are is the helper's to say.
    let config = Config::default().microvm("driver = \"firecracker\"");
    let config = config.network(POLICY).microvm(&format!("root_helper = {socket:?}"));
    let scene = Scene::start(&config.microvm("snapshot_memory = \"uffd\"")).await;
    let programs = [built("standin-firecracker"), built("fake-jailer"), jails.clone()];
    let options = ["--firecracker", "--jailer", "--jails"].into_iter().zip(&programs);
    let helper = root_helper(&socket, &options.collect::<Vec<_>>()).await;

    let tart = as_a_service(&scene, "tart", UNPRIVILEGED);
    let lines = [SCAN, "scan 198.51.100.10 80", "scan 10.9.9.9 80", "echo it runs", "sleep 100000"];
    let job = JobSpec::script(lines.map(str::to_owned)).env("GIT_STRATEGY", "none");
    let job = scene.server.enqueue(job).await;
    job.wait_log_contains("it runs", JOB).await;
    let log = job.log();
    assert!(log.contains("jailed by the root helper") && log.contains(", restored in "), "{log}");
    assert_eq!(found(&log), ["198.51.100.10 80"], "{log}");
    assert!(!has_jails(&jails).is_empty(), "{log}");

    all_ends_with_its_runner(&scene, tart, &job, helper).await;
    assert_eq!(has_jails(&jails), [""; 0]);
    scene.finish();
    assert_eq!(left(), "");
}

/// The jails of machines, below the directory of the helper that makes them.
fn has_jails(dir: &Path) -> Vec<String> {
    let runs = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let machines = runs.filter_map(|run| std::fs::read_dir(run.path()).ok()).flatten().flatten();
    let directories = machines.filter(|entry| entry.path().is_dir());
    directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What the host has of guests' networks.
fn left() -> String {
    let rules = Command::new("nft").args(["list", "ruleset"]).output().expect("nft runs").stdout;
    let links = Command::new("ip").args(["-brief", "link"]).output().expect("ip runs").stdout;
    let links = String::from_utf8_lossy(&links);
    let links: Vec<_> = links.lines().filter(|line| line.contains("tart-")).collect();
    links.join("\n") + &String::from_utf8_lossy(&rules)
}
