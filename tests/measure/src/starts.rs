//! How long jobs take to their script when their guests boot, go on from a snapshot, or come from the pool; and what a
//! guest that waits takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tart_e2e::{Config, JOB, Process, Scene};
use tart_test_gitlab::{JobSpec, JobState, ProjectHandle, Variable};

use crate::bench::record::Record;
use crate::load::Load;
use crate::report::{line, quantile, seconds};

/// Machines whose memory is measured.
const WAITING: usize = 4;

/// What the runner says when a machine is ready for a job.
const READY: &str = "A machine is ready for a job";

/// How it is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Starts {
    /// Jobs of each kind.
    #[arg(long, default_value_t = 100)]
    jobs: usize,

    /// Measure this kind alone: nothing to compare it with.
    #[arg(long)]
    only: Option<Kind>,

    /// Measure on an idle or a busy host alone.
    #[arg(long)]
    host: Option<Host>,
}

/// What else the host has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Host {
    Idle,
    Busy,
}

/// How a job gets its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Boot,
    Snapshot,
    Pool,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Boot, Self::Snapshot, Self::Pool];

    /// Its row's name, and a line of the configuration.
    const fn facts(self) -> (&'static str, &'static str) {
        match self {
            Self::Boot => ("booted", "snapshots = false"),
            Self::Snapshot => ("from a snapshot", "snapshots = true"),
            Self::Pool => ("from the pool", "pool = { policy = [{ idle_count = 1 }] }"),
        }
    }
}

impl Starts {
    /// Runs the jobs and prints what was measured.
    pub(crate) async fn run(&self) -> Result<()> {
        line(
            "| job to its script's first byte | p50 | ratio | p95 | ratio | to a guest | set up | to the script |",
        );
        line("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        for host in
            [Host::Idle, Host::Busy].into_iter().filter(|host| self.host.is_none_or(|only| only == *host))
        {
            let mut cold: Option<(Duration, Duration)> = None;
            for kind in Kind::ALL.into_iter().filter(|kind| self.only.is_none_or(|only| only == *kind)) {
                let load = (host == Host::Busy).then(Load::start);
                let records = self.jobs(kind).await?;
                drop(load);
                let times: Vec<_> = records.iter().filter_map(|record| record.to_script).collect();
                let (median, most) = (quantile(&times, 0.5), quantile(&times, 0.95));
                let (first, last) = *cold.get_or_insert((median, most));
                let ratio = |time: Duration, of: Duration| time.as_secs_f64() / of.as_secs_f64();
                let part = |of: fn(&Record) -> Option<Duration>| {
                    seconds(quantile(&records.iter().filter_map(of).collect::<Vec<_>>(), 0.5))
                };
                line(&format!(
                    "| {}, the host {} | {} | {:.3} | {} | {:.3} | {} | {} | {} |",
                    kind.facts().0,
                    if host == Host::Busy { "busy" } else { "idle" },
                    seconds(median),
                    ratio(median, first),
                    seconds(most),
                    ratio(most, last),
                    part(|record| record.spawn_to_ready),
                    part(|record| record.ready_to_set_up),
                    part(|record| record.ready_to_script?.checked_sub(record.ready_to_set_up?)),
                ));
            }
        }
        waiting().await
    }

    async fn jobs(&self, kind: Kind) -> Result<Vec<Record>> {
        let scene = Scene::start(&Config::default().log_format("json").microvm(kind.facts().1)).await;
        let project = scene.server.create_project("group/starts").await;
        project.commit_file("a.txt", "1\n").await;
        let mut tart = scene.run();
        let mut jobs = Vec::new();
        // The first one fills the host's memory.
        for round in 0..=self.jobs {
            if kind == Kind::Pool {
                ready(&tart, round + 1).await;
            }
            jobs.push(job(&scene, &project).await?);
        }
        tart.drain();
        ensure!(tart.wait(JOB).await.success(), "`tart run` failed:\n{}", tart.output());
        let log = tart.output();
        let record = |job: &u64| Record::find(&log, *job).filter(|record| record.to_script.is_some());
        let records = jobs.iter().skip(1).map(record).collect::<Option<_>>();
        records.context("the runner has not recorded all jobs")
    }
}

/// Waits until so many machines were made ready.
async fn ready(tart: &Process, count: usize) {
    while tart.output().matches(READY).count() < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn job(scene: &Scene, project: &ProjectHandle) -> Result<u64> {
    let spec = JobSpec::of(project, ["echo it runs"]).variable(Variable::new("GIT_STRATEGY", "none"));
    let job = scene.server.enqueue(spec).await;
    let state = job.wait_finished(JOB).await;
    ensure!(state == JobState::Success, "the job is {}:\n{}", state.as_str(), job.log());
    Ok(job.id())
}

/// What machines that wait take of the host, beside one that booted.
async fn waiting() -> Result<()> {
    let (booted, boot) = booted().await?;
    let pool = format!("pool = {{ policy = [{{ idle_count = {WAITING} }}] }}");
    let scene = Scene::start(&Config::default().log_format("json").microvm(&pool)).await;
    let mut tart = scene.run();
    ready(&tart, 1).await;
    let first = Instant::now();
    ready(&tart, WAITING).await;
    let each = first.elapsed() / u32::try_from(WAITING - 1)?;
    let memory = machines(&scene)?;
    ensure!(memory.len() == WAITING, "{} machines wait, not {WAITING}", memory.len());
    tart.drain();
    ensure!(tart.wait(JOB).await.success(), "`tart run` failed:\n{}", tart.output());
    let mean = |part: fn(&Memory) -> u64| memory.iter().map(part).sum::<u64>() / memory.len() as u64;
    line("");
    line(&format!("| a machine that waits, one of {WAITING} | measured | a machine that booted | ratio |"));
    line("| --- | ---: | ---: | ---: |");
    let row = |what: &str, kib: u64, other: u64| {
        let (mib, others) = (kib as f64 / 1024.0, other as f64 / 1024.0);
        line(&format!("| {what} | {mib:.0} MiB | {others:.0} MiB | {:.3} |", mib / others));
    };
    row("resident memory", mean(|memory| memory.resident), booted.resident);
    row("of it, its own", mean(|memory| memory.own), booted.own);
    row("of it, shared with the others", mean(|memory| memory.shared), booted.shared);
    let per_second = |time: Duration| 1.0 / time.as_secs_f64();
    line(&format!(
        "| starts in a second, one after the other | {:.2} | {:.2} | {:.3} |",
        per_second(each),
        per_second(boot),
        per_second(each) / per_second(boot)
    ));
    Ok(())
}

/// What a machine that booted takes while it runs a job, and how long it booted.
async fn booted() -> Result<(Memory, Duration)> {
    let scene = Scene::start(&Config::default().log_format("json").microvm("snapshots = false")).await;
    let project = scene.server.create_project("group/starts").await;
    project.commit_file("a.txt", "1\n").await;
    let mut tart = scene.run();
    // The first one fills the host's memory.
    job(&scene, &project).await?;
    let spec = JobSpec::of(&project, ["echo it runs", "sleep 1000"]);
    let job = scene.server.enqueue(spec.variable(Variable::new("GIT_STRATEGY", "none"))).await;
    job.wait_log_contains("O it runs", JOB).await;
    let memory = machines(&scene)?.pop().context("the machine is gone")?;
    job.cancel();
    job.wait_finished(JOB).await;
    tart.drain();
    ensure!(tart.wait(JOB).await.success(), "`tart run` failed:\n{}", tart.output());
    let record = Record::find(&tart.output(), job.id());
    Ok((memory, record.and_then(|record| record.spawn_to_ready).context("its boot was not recorded")?))
}

/// What a process has of the host's memory, in KiB.
#[derive(Debug)]
struct Memory {
    resident: u64,
    own: u64,
    shared: u64,
}

/// The memory of a scene's machines.
fn machines(scene: &Scene) -> Result<Vec<Memory>> {
    let processes = scene.leftovers().processes;
    let machines = processes.iter().filter(|(_, command)| command.contains("qemu-system"));
    let memory = |(pid, _): &(i32, String)| {
        let rollup = rollup(*pid)?;
        let sum = |keys: &[&str]| keys.iter().filter_map(|key| rollup.get(*key)).sum();
        let own = sum(&["Private_Clean", "Private_Dirty", "Private_Hugetlb"]);
        Some(Memory { resident: sum(&["Rss"]), own, shared: sum(&["Shared_Clean", "Shared_Dirty"]) })
    };
    machines.map(memory).collect::<Option<_>>().context("a machine is gone")
}

/// A process's memory in KiB.
fn rollup(pid: i32) -> Option<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let pair = |line: &str| {
        let (key, value) = line.split_once(':')?;
        Some((key.to_owned(), value.split_whitespace().next()?.parse().ok()?))
    };
    Some(text.lines().filter_map(pair).collect())
}
