//! What a guest's network carries and how fast, to a server in a namespace of the measurement, compared with the same
//! script on the host. Needs root.

mod lab;
mod setup;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState};

use crate::bench::host;
use crate::bench::nanos;
use crate::report::{line, row};
use lab::{AMOUNT, ECHO, Lab, SERVER, SINK, SOURCE};

/// Messages that go there and back.
const TURNS: u32 = 500;

/// How it is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Network {}

impl Network {
    /// Runs the scripts on the host and in a guest, and prints what was measured.
    pub(crate) async fn run(&self) -> Result<()> {
        let lab = Lab::enter()?;
        let policy = "mode = \"netns\"\ndns = [\"203.0.113.1\"]";
        let scene = Scene::start(&Config::default().network(policy)).await;
        let scripts = scripts();
        let mut on_host = Vec::new();
        for (name, script) in &scripts {
            on_host.push(host::time(script, &scene.path(name))?);
        }
        let in_guest = in_guest(&scene, &scripts).await?;
        line("| what | measured | ratio | of what |");
        line("| --- | ---: | ---: | --- |");
        for (((name, _), guest), host) in scripts.iter().zip(in_guest).zip(on_host) {
            row(&described(name, guest), guest, host, "the time of the same script on the host");
        }
        setup::rows(&lab.host()).await
    }
}

/// What is measured: name and script for bash.
fn scripts() -> [(&'static str, String); 3] {
    let open = |port: u16| format!("exec 3<>/dev/tcp/{SERVER}/{port}");
    [
        ("down", format!("{}; head -c {AMOUNT} <&3 >/dev/null", open(SOURCE))),
        ("up", format!("{}; head -c {AMOUNT} /dev/zero >&3; read -r -u 3 all; test $all = all", open(SINK))),
        ("turns", format!("{}; for i in $(seq {TURNS}); do echo x >&3; read -r -u 3 x; done", open(ECHO))),
    ]
}

fn described(name: &str, time: Duration) -> String {
    let megabytes = (AMOUNT >> 20) as f64 / time.as_secs_f64();
    match name {
        "down" => format!("64 MiB from the server to the guest ({megabytes:.0} MiB/s)"),
        "up" => format!("64 MiB from the guest to the server ({megabytes:.0} MiB/s)"),
        _ => format!(
            "{TURNS} messages there and back ({:.0} us each)",
            time.as_secs_f64() * 1e6 / f64::from(TURNS)
        ),
    }
}

/// Runs the scripts one after the other in one guest.
async fn in_guest(scene: &Scene, scripts: &[(&str, String)]) -> Result<Vec<Duration>> {
    let lines = scripts.iter().map(|(name, script)| {
        format!("began=$(date +%s%N); bash -euc '{script}'; echo {name}-took=$(($(date +%s%N) - began))")
    });
    let job = scene.server.enqueue(JobSpec::script(lines).env("GIT_STRATEGY", "none")).await;
    let tart = scene.run();
    let state = job.wait_finished(JOB * 2).await;
    ensure!(state == JobState::Success, "the job is {}:\n{}", state.as_str(), job.log());
    scene.drain(tart).await;
    let took = |name: &str| nanos(&job.log(), &format!("{name}-took=")).map(Duration::from_nanos);
    scripts.iter().map(|(name, _)| took(name).with_context(|| format!("`{name}` has no time"))).collect()
}
