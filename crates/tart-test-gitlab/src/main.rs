//! Runs a test GitLab server by hand: it offers one job, shows its log and ends with it.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tart_test_gitlab::{JobSpec, JobState, Options, RunnerOptions, TestGitlab};

/// How long connections may take to end after the job.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Serves the runner API of GitLab and a repository, offers one job, shows its log, and ends with it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Listen at this port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// Listen at this address.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,

    /// Name this host in URLs, if jobs do not reach the server by the address it listens at.
    #[arg(long, value_name = "HOST")]
    external_host: Option<String>,

    /// Let the job build the current commit of this repository.
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,

    /// Take the job from a file with fields of the job payload, such as `steps`, `image` and `variables`.
    #[arg(long, value_name = "FILE", conflicts_with = "script", required_unless_present = "script")]
    job: Option<PathBuf>,

    /// Run this line; may be given more than once.
    #[arg(long, value_name = "LINE")]
    script: Vec<String>,

    /// Run the job in this image.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(JobState::Success) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            // Nobody is left to tell when standard error is closed.
            writeln!(io::stderr(), "error: {message}").ok();
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> Result<JobState, String> {
    let mut spec = job(&arguments)?;
    let mut options = Options::default().bind(SocketAddr::new(arguments.bind, arguments.port));
    if let Some(host) = arguments.external_host {
        options = options.external_host(host);
    }
    let server = TestGitlab::try_start(options)
        .await
        .map_err(|error| format!("cannot listen at {}:{}: {error}", arguments.bind, arguments.port))?;
    if let Some(directory) = &arguments.repo {
        let directory = directory
            .canonicalize()
            .map_err(|error| format!("cannot use the repository {}: {error}", directory.display()))?;
        let project = server.create_project("group/project").await;
        let head = project.import(&directory).await.map_err(|error| error.to_string())?;
        spec = spec.project(&project).sha(head);
    }
    let runner = server.add_runner(RunnerOptions::default());
    let job = server.enqueue(spec).await;
    say(&format!("url: {}\ntoken: {}\njob: {}\n", server.url(), runner.token(), job.id()))?;

    let mut closed = Ok(());
    let state = job.follow_log(|piece| closed = show(piece)).await;
    closed?;
    let reason = job.failure_reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
    say(&format!("job {}: {}{reason}\n", job.id(), state.as_str()))?;
    let violations = server.violations();
    // The runner is still to get the answer to its last update.
    server.shutdown(SHUTDOWN).await;
    if violations.is_empty() {
        Ok(state)
    } else {
        Err(format!("the runner broke the protocol:\n{}", violations.join("\n")))
    }
}

fn job(arguments: &Arguments) -> Result<JobSpec, String> {
    let spec = match &arguments.job {
        None => JobSpec::script(&arguments.script),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read the job {}: {error}", path.display()))?;
            let value = serde_json::from_str(&text)
                .map_err(|error| format!("the job {} is not JSON: {error}", path.display()))?;
            JobSpec::from_json(value).map_err(|error| format!("the job {}: {error}", path.display()))?
        }
    };
    Ok(match &arguments.image {
        Some(image) => spec.image(image.as_str()),
        None => spec,
    })
}

fn say(text: &str) -> Result<(), String> {
    show(text.as_bytes())
}

fn show(bytes: &[u8]) -> Result<(), String> {
    let mut output = io::stdout();
    output
        .write_all(bytes)
        .and_then(|()| output.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}
