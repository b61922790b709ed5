//! Guests that go on from a snapshot, and those of the pool.

use super::support::{Host, Log, host, job, run};
use tart_config::PoolPolicy;
use tart_runner::{JobRun, JobSignal, NoObserver, run_job};
use tokio::sync::watch;

/// What no two guests have in common.
const IDENTITY: &[&str] = &[
    "echo boot=$(cat /proc/sys/kernel/random/boot_id)",
    "echo random=$(od -An -tx8 -N16 /dev/urandom | tr -d ' ')",
    "echo uuid=$(cat /proc/sys/kernel/random/uuid)",
];

fn identity(log: &str) -> Vec<String> {
    let value = |line: &&str| ["boot=", "random=", "uuid="].iter().any(|key| line.starts_with(key));
    let found: Vec<_> = log.lines().filter(value).map(str::to_owned).collect();
    assert_eq!(found.len(), 3, "{log}");
    assert!(found.iter().all(|line| line.len() > 20), "{log}");
    found
}

#[tokio::test]
async fn guests_of_one_snapshot_have_nothing_random_in_common() {
    let host = host(|_| {}).await;
    let (one, first) = run(&host, job(IDENTITY, |_| {})).await;
    let (two, second) = run(&host, job(IDENTITY, |_| {})).await;
    assert!(one.succeeded() && two.succeeded());
    for log in [&first, &second] {
        assert!(log.contains(", restored in "), "{log}");
    }
    let (first, second) = (identity(&first), identity(&second));
    assert!(first.iter().all(|value| !second.contains(value)), "{first:?} {second:?}");
}

#[tokio::test]
async fn the_clock_of_a_guest_is_right_however_old_its_snapshot_is() {
    let host = host(|_| {}).await;
    let (_, log) = run(&host, job(&["echo now=$(date +%s)"], |_| {})).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let said = log.lines().find_map(|line| line.strip_prefix("now=")?.parse::<u64>().ok()).unwrap();
    assert!(now.abs_diff(said) < 60, "{said} {now}");
}

#[tokio::test]
async fn without_snapshots_guests_boot() {
    let host = host(|config| config.snapshots = false).await;
    let (report, log) = run(&host, job(&["true"], |_| {})).await;
    assert!(report.succeeded() && log.contains(", booted in "), "{log}");
    assert!(host.setup.describe().iter().any(|line| line == "start: guests boot"));
}

/// Runs a job while machines of the pool may be there.
async fn run_beside_pool(host: &Host, job: JobRun) -> String {
    let log = Log::default();
    let (_signal, signals) = watch::channel(JobSignal::None);
    let report = run_job(&host.setup, job, log.clone(), signals, &NoObserver).await;
    assert!(report.succeeded(), "{}", log.text());
    log.text()
}

/// The process of the one machine that is ready.
fn pid_of_ready(host: &Host) -> rustix::process::Pid {
    let run = host.state.path().join("run");
    let inside =
        |dir: std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let machines = inside(run).flat_map(inside);
    let ready: Vec<_> =
        machines.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("ready-")).collect();
    let [ready] = &ready[..] else { panic!("{ready:?}") };
    let record = std::fs::read_to_string(ready.join("process")).unwrap();
    let pid = record.split(' ').next().unwrap().parse().unwrap();
    rustix::process::Pid::from_raw(pid).unwrap()
}

#[tokio::test]
async fn a_machine_of_the_pool_serves_one_job_and_is_replaced() {
    let host = host(|config| {
        config.pool.policy = vec![PoolPolicy { idle_count: 1, ..PoolPolicy::default() }];
    })
    .await;
    let mut ready = host.setup.ready().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        ready.wait_for(|ready| *ready == 1).await.unwrap();
        let log = run_beside_pool(&host, job(IDENTITY, |_| {})).await;
        assert!(log.contains(", taken from the pool in "), "{log}");
        seen.push(identity(&log));
    }
    assert!(seen[0].iter().all(|value| !seen[1].contains(value)), "{seen:?}");
    // One that died while it waited is found out, and the job gets another.
    ready.wait_for(|ready| *ready == 1).await.unwrap();
    let pid = pid_of_ready(&host);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let log = run_beside_pool(&host, job(IDENTITY, |_| {})).await;
    assert!(!seen.contains(&identity(&log)), "{log}");
    drop(ready);
    let Host { setup, state } = host;
    setup.close().await;
    assert!(
        std::fs::read_dir(state.path().join("run")).unwrap().flatten().all(|entry| !entry.path().is_dir())
    );
}
