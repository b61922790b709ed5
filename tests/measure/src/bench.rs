//! One run of the real program, compared with the same script on the host.

pub(crate) mod host;
pub(crate) mod record;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tart_e2e::{Config, JOB, Process, Scene};
use tart_test_gitlab::{JobHandle, JobSpec, JobState, ProjectHandle};

use crate::report::{line, seconds};
use record::Record;

/// What a small build does: a shell's own work, processes, files, compression.
const WORK: &str = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; \
    for n in $(seq 300); do /bin/true; done; \
    seq 1 2000000 > numbers; gzip -k numbers; gzip -cd numbers.gz | sha256sum numbers - | sort -u; \
    for n in $(seq 500); do echo $n > file-$n; done; cat file-* | sort -n | tail -n 1; rm numbers* file-*";

/// Megabytes of the flood.
const FLOOD_MB: u32 = 100;

/// Prints them.
const FLOOD: &str = "seq -f 'line %015.0f of a flood of log lines, each of which has one hundred bytes with its end, xyz' 1 1000000";

/// Memory of the guest in MiB.
const GUEST_MIB: u32 = 512;

/// How it is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Virtual processors of the guest.
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
}

impl Bench {
    /// Runs two jobs and prints what was measured.
    pub(crate) async fn run(&self) -> Result<()> {
        let config = Config::default()
            .log_format("json")
            .runner("output_limit = 1048576")
            .vcpus(self.vcpus)
            .microvm(&format!("memory = \"{GUEST_MIB}m\""));
        let scene = Scene::start(&config).await;
        let project = scene.server.create_project("group/bench").await;
        let sha = project.commit_file("a.txt", "1\n").await;
        let on_host = host::time(WORK, &scene.path("work"))?;
        let host_flood = host::time(&format!("{FLOOD} | cat > /dev/null"), &scene.path("flood"))?;

        let tart = scene.run();
        let worked = work(&scene, &project, &sha).await?;
        let flooded = flood(&scene, &project).await?;
        let output = finish(&scene, tart).await?;
        let record = Record::find(&output, worked.job).context("the runner has not recorded the job")?;

        line("| what | measured | ratio | of what |");
        line("| --- | ---: | ---: | --- |");
        let times = [
            ("machine started -> agent ready", record.spawn_to_ready),
            ("agent ready -> first byte of the script", record.ready_to_script),
            ("last stage ended -> nothing left of the machine", record.end_to_gone),
            ("the script, in the guest", Some(worked.in_guest)),
            ("the whole job", record.total),
        ];
        for (what, time) in times {
            let time = time.unwrap_or_default();
            row(
                what,
                &seconds(time),
                time.as_secs_f64() / on_host.as_secs_f64(),
                "the same script on the host",
            );
        }
        let speed = |time: Duration| f64::from(FLOOD_MB) / time.as_secs_f64();
        let of_pipe = speed(flooded) / speed(host_flood);
        let megabytes = format!("{:.1} MB/s", speed(flooded));
        row("log, guest -> server", &megabytes, of_pipe, "the same lines through a pipe on the host");
        let memory = worked.resident_mib / f64::from(GUEST_MIB);
        row("host memory of the machine", &format!("{:.0} MiB", worked.resident_mib), memory, "guest memory");
        let disk = record.disk_mib();
        row(
            "host disk of the job",
            &format!("{disk:.1} MiB"),
            disk / DISK_MIB,
            "the size of its scratch disk",
        );
        line(&format!("the script on the host: {}", seconds(on_host)));
        Ok(())
    }
}

/// Size of a scratch disk if nothing else is configured, in MiB.
const DISK_MIB: f64 = 20.0 * 1024.0;

fn row(what: &str, measured: &str, ratio: f64, of: &str) {
    line(&format!("| {what} | {measured} | {ratio:.3} | {of} |"));
}

struct Worked {
    job: u64,
    in_guest: Duration,
    resident_mib: f64,
}

/// Runs the script, and looks at the machine before the job ends.
async fn work(scene: &Scene, project: &ProjectHandle, sha: &str) -> Result<Worked> {
    let lines = [
        "echo began=$(date +%s%N)",
        WORK,
        "echo ended=$(date +%s%N)",
        "until git ls-remote --exit-code \"$CI_REPOSITORY_URL\" go > /dev/null; do sleep 0.1; done",
    ];
    let job = scene.server.enqueue(JobSpec::of(project, lines)).await;
    job.wait_for("the end of the script", JOB * 2, |job| nanos(&job.log(), "ended=").is_some()).await;
    let resident_mib = host::resident_mib(scene).context("no machine runs")?;
    project.branch("go", sha).await;
    succeeded(&job).await?;
    let log = job.log();
    let (began, ended) = nanos(&log, "began=").zip(nanos(&log, "ended=")).context("the log has no times")?;
    Ok(Worked { job: job.id(), in_guest: Duration::from_nanos(ended.saturating_sub(began)), resident_mib })
}

/// The number after a word in the output of a job; the command that prints it is in the log as well.
pub(crate) fn nanos(log: &str, word: &str) -> Option<u64> {
    log.split(word).skip(1).find_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        // The line must be there in full.
        (rest.len() > digits.len()).then(|| digits.parse().ok())?
    })
}

/// Runs the flood; how long it took from its first line to its last at the server.
async fn flood(scene: &Scene, project: &ProjectHandle) -> Result<Duration> {
    let spec = JobSpec::of(project, [FLOOD]).env("FF_TIMESTAMPS", "false").env("GIT_STRATEGY", "none");
    let job = scene.server.enqueue(spec.log_limit(300 << 20)).await;
    let wanted = b"\nline 000000000000001 ";
    let first = |log: &[u8]| log.windows(wanted.len()).any(|part| part == wanted);
    job.wait_for("the flood", JOB, |job| first(job.log_bytes().get(..65536).unwrap_or(job.log_bytes())))
        .await;
    let began = std::time::Instant::now();
    succeeded(&job).await?;
    Ok(began.elapsed())
}

async fn succeeded(job: &JobHandle) -> Result<()> {
    let state = job.wait_finished(JOB * 2).await;
    ensure!(state == JobState::Success, "job {} is {}:\n{}", job.id(), state.as_str(), job.log());
    Ok(())
}

async fn finish(scene: &Scene, mut tart: Process) -> Result<String> {
    tart.drain();
    let status = tart.wait(JOB).await;
    ensure!(status.success(), "`tart run` ended with {status}:\n{}", tart.output());
    scene.server.assert_no_violations();
    scene.assert_clean();
    Ok(tart.output())
}
