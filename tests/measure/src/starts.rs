//! How long jobs take to their script when their guests boot, go on from a snapshot, or come from the pool; and what a
//! guest that waits takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tart_e2e::{Config, JOB, Process, Scene};
use tart_test_gitlab::{JobSpec, JobState, ProjectHandle, Variable};

use crate::bench::record::Record;
use crate::load::Load;
use crate::report::{line, quantile, row, seconds};

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

    /// Leave the busy host out.
    #[arg(long)]
    idle: bool,
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
        for busy in [false, true].into_iter().filter(|busy| !(*busy && self.idle)) {
            let mut cold: Option<(Duration, Duration)> = None;
            for kind in Kind::ALL.into_iter().filter(|kind| self.only.is_none_or(|only| only == *kind)) {
                let load = busy.then(Load::start);
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
                    if busy { "busy" } else { "idle" },
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

/// What machines that wait take of the host.
async fn waiting() -> Result<()> {
    let pool = |count: usize| format!("pool = {{ policy = [{{ idle_count = {count} }}] }}");
    let scene = Scene::start(&Config::default().log_format("json").microvm(&pool(WAITING))).await;
    let mut tart = scene.run();
    ready(&tart, 1).await;
    let first = Instant::now();
    ready(&tart, WAITING).await;
    let each = first.elapsed() / u32::try_from(WAITING - 1)?;
    let processes = scene.leftovers().processes;
    let machines = processes.iter().filter(|(_, command)| command.contains("qemu-system"));
    let memory: Vec<_> =
        machines.map(|(pid, _)| rollup(*pid)).collect::<Option<_>>().context("a machine is gone")?;
    ensure!(memory.len() == WAITING, "{} machines wait, not {WAITING}", memory.len());
    tart.drain();
    ensure!(tart.wait(JOB).await.success(), "`tart run` failed:\n{}", tart.output());
    let sum =
        |key: &str| memory.iter().filter_map(|rollup| rollup.get(key)).sum::<u64>() / memory.len() as u64;
    let (rss, pss) = (sum("Rss"), sum("Pss"));
    let private = sum("Private_Clean") + sum("Private_Dirty");
    line("");
    line("| a machine that waits, one of 4 | measured | ratio | of what |");
    line("| --- | ---: | ---: | --- |");
    let of = |what: &str, kib: u64| {
        let (mib, ratio) = (kib as f64 / 1024.0, kib as f64 / rss as f64);
        line(&format!("| {what} | {mib:.0} MiB | {ratio:.3} | its resident memory |"));
    };
    of("resident memory", rss);
    of("memory of its own", private);
    of("its share of all", pss);
    row("made ready, one after the other", each, Duration::from_secs(1), "a second");
    Ok(())
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
