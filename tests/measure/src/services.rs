//! What a service costs beside its job in one machine, compared with a machine of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{Image, JobSpec, JobState, ProjectHandle, Variable};
use tart_test_registry::{Options, TestRegistry, samples};

use crate::bench::host;
use crate::bench::record::Record;
use crate::report::{line, row};

/// Services of the job that is compared with one that has none.
const SERVICES: u32 = 4;

/// How it is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Services {
    /// How often; the medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What one job took.
struct Cost {
    /// From the start of the machine until its agent answered.
    boot: Duration,
    /// From there until the script's first output.
    ready_to_script: Duration,
    memory_mib: f64,
}

impl Services {
    /// Runs jobs with and without services and prints what was measured.
    pub(crate) async fn run(&self) -> Result<()> {
        let scene = Scene::start(&Config::default()).await;
        scene.own_store(Config::default().log_format("json").docker("pull_policy = \"if-not-present\""));
        let registry = TestRegistry::start(Options::default())?;
        registry.push_image(&samples::busybox()?, "web:1")?;
        let project = scene.server.create_project("group/services").await;
        let sha = project.commit_file("a.txt", "1\n").await;
        let mut tart = scene.run();
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            // The first round fills the store and the host's memory.
            let none = job(&scene, &registry, (&project, &sha), 0).await?;
            let some = job(&scene, &registry, (&project, &sha), SERVICES).await?;
            if round > 0 {
                without.push(none);
                with.push(some);
            }
        }
        tart.drain();
        ensure!(tart.wait(JOB).await.success(), "`tart run` failed:\n{}", tart.output());
        let log = tart.output();
        let without = median(&log, &without).context("the runner has recorded no job")?;
        let with = median(&log, &with).context("the runner has recorded no job with services")?;
        let own = without.boot + without.ready_to_script;
        let more = (with.boot + with.ready_to_script).saturating_sub(own) / SERVICES;
        line("| what | measured | ratio | of what |");
        line("| --- | ---: | ---: | --- |");
        row(
            "a service beside the job, until it listens",
            more,
            own,
            "a machine of its own, until it runs a script",
        );
        let memory = (with.memory_mib - without.memory_mib) / f64::from(SERVICES);
        line(&format!(
            "| host memory for a service beside the job | {memory:.1} MiB | {:.3} | a machine of its own ({:.0} MiB) |",
            memory / without.memory_mib,
            without.memory_mib
        ));
        Ok(())
    }
}

/// Runs a job with so many web servers, and looks at the machine's memory when it reaches them.
async fn job(
    scene: &Scene,
    registry: &TestRegistry,
    (project, sha): (&ProjectHandle, &str),
    services: u32,
) -> Result<(u64, f64)> {
    let lines = [
        "echo it runs",
        "until git ls-remote --exit-code \"$CI_REPOSITORY_URL\" go-$CI_JOB_ID > /dev/null; do sleep 0.1; done",
    ];
    let mut spec = JobSpec::of(project, lines);
    for number in 0..services {
        let command = "echo page > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp";
        let web = Image::new(registry.reference("web:1")).alias(format!("web{number}"));
        let web = web.entrypoint(["sh", "-c", command]);
        spec = spec.service(web.variable(Variable::new("HEALTHCHECK_TCP_PORT", "8080")));
    }
    let job = scene.server.enqueue(spec).await;
    job.wait_for("the script", JOB, |job| job.log().contains("\nit runs") || job.log().contains(" it runs"))
        .await;
    let memory = host::resident_mib(scene).context("no machine runs")?;
    project.branch(&format!("go-{}", job.id()), sha).await;
    let state = job.wait_finished(JOB).await;
    ensure!(state == JobState::Success, "the job is {}:\n{}", state.as_str(), job.log());
    Ok((job.id(), memory))
}

fn median(log: &str, jobs: &[(u64, f64)]) -> Option<Cost> {
    let mut costs = Vec::new();
    for (job, memory_mib) in jobs {
        let record = Record::find(log, *job)?;
        let (boot, ready_to_script) = record.spawn_to_ready.zip(record.ready_to_script)?;
        costs.push(Cost { boot, ready_to_script, memory_mib: *memory_mib });
    }
    costs.sort_by_key(|cost| cost.boot + cost.ready_to_script);
    let middle = costs.len() / 2;
    costs.into_iter().nth(middle)
}
