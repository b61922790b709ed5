//! The services of a job: their images, their start in the guest, their output, and the wait until they are up.

mod health;
mod output;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tart_assets::{ImageConfig, ImageDisk};
use tart_guest::{Command, CommandEvent, GuestError};
use tart_job::Level;
use tart_job::outcome::Failure;
use tart_job::services::{self, ServicePlan};
use tart_proto::message::{Exec, ExitStatus, FailureKind, Limits, MAX_SERVICES, Output, Root};
use tart_spec::{Image, Variable};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::control::Scope;
use super::explain;
use super::image::Wishes;
use super::job::Job;
use super::script::PATH;
use crate::guest::{JobGuest, ServiceGuest};
use output::{Lines, Tail};

/// Pieces of output of services that may wait for a place in the job's log. When it is full, services wait.
const WAITING: usize = 64;

/// A service whose image is there.
#[derive(Debug, Clone)]
pub(super) struct FoundService {
    plan: ServicePlan,
    disk: ImageDisk,
    user: String,
}

impl FoundService {
    /// What the guest is to know of it.
    pub(super) fn guest(&self) -> ServiceGuest {
        ServiceGuest {
            image: self.disk.clone(),
            hostname: self.plan.hostname.clone(),
            names: self.plan.names.clone(),
        }
    }
}

/// The services of a job that run. They end with the guest, or when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Services {
    running: Vec<RunningService>,
    lines: Option<mpsc::Receiver<(u8, Bytes)>>,
    _followers: JoinSet<()>,
}

#[derive(Debug)]
struct RunningService {
    found: FoundService,
    tail: Arc<Mutex<Tail>>,
    ended: watch::Receiver<Option<End>>,
}

/// How a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Exited(ExitStatus),
    Lost(String),
}

impl Services {
    /// The next lines of a service for the job's log: its number and whole lines. Never returns if there are none to
    /// come. May be dropped without losing any.
    pub(super) async fn lines(&mut self) -> (u8, Bytes) {
        if let Some(lines) = &mut self.lines {
            if let Some(line) = lines.recv().await {
                return line;
            }
            self.lines = None;
        }
        std::future::pending().await
    }
}

impl Job<'_> {
    /// Finds the images of all services.
    pub(super) async fn find_services(&mut self, scope: &Scope) -> Result<Vec<FoundService>, Failure> {
        let (run, job) = (self.run, self.plan);
        let docker = &run.runner.docker;
        let configured: Vec<_> = docker.services.iter().map(configured).collect();
        let most = usize::try_from(docker.services_limit).unwrap_or(usize::from(MAX_SERVICES));
        let plans = services::plan(
            &run.payload,
            &configured,
            Some(most.min(usize::from(MAX_SERVICES))),
            &job.variables,
        );
        let mut found = Vec::new();
        for plan in plans.map_err(Failure::configuration)? {
            let wishes = Wishes {
                wanted: None,
                job: Some(&plan.image),
                variables: &job.variables,
                runner: &run.runner,
            };
            let name = wishes.choose_service(plan.configured)?;
            let user = wishes.service_user()?;
            self.log.line(Level::Print, &format!("Starting service {name} ..."));
            let leased = self.obtain(scope, &wishes.request(name, &run.payload)?).await?;
            self.log.line(Level::Print, &leased.description);
            let user = user.unwrap_or_else(|| leased.disk.config.user.clone());
            found.push(FoundService { plan, disk: leased.disk.clone(), user });
            self.leases.push(leased);
        }
        Ok(found)
    }

    /// Starts all services in a guest that has their trees, and waits until they are up. Only a service that cannot
    /// be started at all is a failure; one that does not come up is told of.
    pub(super) async fn start_services(
        &mut self,
        scope: &Scope,
        guest: &JobGuest,
        found: Vec<FoundService>,
    ) -> Result<(), Failure> {
        let debug = self.plan.settings.debug_services;
        let (sender, lines) = mpsc::channel(WAITING);
        let mut services = Services { lines: Some(lines), ..Services::default() };
        for (number, found) in (0..).zip(found) {
            let exec = self.exec(number, &found)?;
            let started = self.control.unless_halted(scope, guest.agent().exec(&exec)).await?;
            let command = match started {
                Ok(command) => command,
                Err(error) => return Err(cannot_start(&found.plan, &error, guest).await),
            };
            let tail = Arc::new(Mutex::new(Tail::default()));
            let (ends, ended) = watch::channel(None);
            let lines = Lines::new(&found.plan.label);
            let marked = debug.then(|| Marked { number, lines, sender: sender.clone() });
            services._followers.spawn(follow(command, tail.clone(), marked, ends));
            services.running.push(RunningService { found, tail, ended });
        }
        if !services.running.is_empty() {
            self.await_services(scope, guest, &mut services).await?;
        }
        self.services = services;
        Ok(())
    }

    fn exec(&self, number: u8, found: &FoundService) -> Result<Exec, Failure> {
        let config = &found.disk.config;
        let argv = arguments(&found.plan.image, config);
        if argv.is_empty() {
            let name = &found.plan.image.name;
            return Err(Failure::configuration(format!(
                "the service `{name}` has nothing to run: its image has neither entrypoint nor command, and the job \
                 names none"
            )));
        }
        let mut env = vec![("PATH".to_owned(), PATH.to_owned())];
        env.extend(config.env.iter().cloned());
        env.extend(found.plan.environment.iter().cloned());
        let memory = self.run.runner.docker.service_memory.map_or(0, tart_config::ByteSize::bytes);
        Ok(Exec {
            root: Root::Service(number),
            argv,
            env,
            cwd: if config.workdir.starts_with('/') { config.workdir.clone() } else { "/".to_owned() },
            user: found.user.clone(),
            output: Output::Merged,
            stdin: false,
            cgroup: format!("service-{number}"),
            limits: Limits { memory_bytes: memory, ..Limits::default() },
        })
    }
}

/// The words that start a service: as with containers, an entrypoint of the job's takes the image's command away.
fn arguments(wished: &Image, image: &ImageConfig) -> Vec<String> {
    let own = !wished.entrypoint.is_empty();
    let entrypoint = if own { &wished.entrypoint } else { &image.entrypoint };
    let command = match (wished.command.is_empty(), own) {
        (false, _) => wished.command.as_slice(),
        (true, true) => &[],
        (true, false) => &image.cmd,
    };
    // `[""]` is how an entrypoint is taken away.
    let entrypoint = entrypoint.iter().skip_while(|word| word.is_empty());
    entrypoint.chain(command).cloned().collect()
}

/// A service of the configuration as jobs write theirs.
fn configured(service: &tart_config::DockerService) -> Image {
    let variables = service.environment.iter().filter_map(|entry| entry.split_once('='));
    Image {
        name: service.name.clone(),
        alias: service.alias.clone().unwrap_or_default(),
        entrypoint: service.entrypoint.clone(),
        command: service.command.clone(),
        variables: variables
            .map(|(key, value)| Variable {
                key: key.to_owned(),
                value: value.to_owned(),
                ..Variable::default()
            })
            .collect(),
        ..Image::default()
    }
}

async fn cannot_start(plan: &ServicePlan, error: &GuestError, guest: &JobGuest) -> Failure {
    let name = &plan.image.name;
    match error.failure_kind() {
        Some(FailureKind::NotFound | FailureKind::Denied | FailureKind::Invalid) => {
            Failure::configuration(format!("the service `{name}` cannot be started: {error}"))
        }
        Some(_) => Failure::system(format!("the service `{name}` cannot be started: {error}")),
        None => Failure::system(explain::first_line(&guest.cause_of_death(error).await)),
    }
}

/// Where a service's lines for the job's log go.
struct Marked {
    number: u8,
    lines: Lines,
    sender: mpsc::Sender<(u8, Bytes)>,
}

/// Takes a service's output until its end.
async fn follow(
    mut command: Command,
    tail: Arc<Mutex<Tail>>,
    mut marked: Option<Marked>,
    ends: watch::Sender<Option<End>>,
) {
    let end = loop {
        let (bytes, end) = match command.next().await {
            Ok(CommandEvent::Stdout(bytes) | CommandEvent::Stderr(bytes)) => (bytes, None),
            Ok(CommandEvent::Exited(exited)) => (Bytes::new(), Some(End::Exited(exited.status))),
            Err(error) => (Bytes::new(), Some(End::Lost(error.to_string()))),
        };
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(&bytes);
        if let Some(Marked { number, lines, sender }) = &mut marked {
            let text = if end.is_some() { lines.rest() } else { lines.push(&bytes) };
            // Without a receiver the job is over.
            if !text.is_empty() && sender.send((*number, text.into())).await.is_err() {
                return;
            }
        }
        if let Some(end) = end {
            break end;
        }
    };
    ends.send_replace(Some(end));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_service_is_started_as_a_container_is() {
        let image =
            ImageConfig { entrypoint: words(&["/entry"]), cmd: words(&["serve"]), ..ImageConfig::default() };
        let start = |entrypoint: &[&str], command: &[&str]| {
            let wished = Image { entrypoint: words(entrypoint), command: words(command), ..Image::default() };
            arguments(&wished, &image).join(" ")
        };
        assert_eq!(start(&[], &[]), "/entry serve");
        assert_eq!(start(&[], &["other", "-v"]), "/entry other -v");
        assert_eq!(start(&["/own"], &[]), "/own");
        assert_eq!(start(&[""], &["sh"]), "sh");
        assert_eq!(start(&[""], &[]), "");
    }

    #[test]
    fn a_configured_service_is_like_one_of_a_job() {
        let service = tart_config::DockerService {
            name: "docker:dind".into(),
            alias: Some("docker".into()),
            environment: words(&["A=b=c", "nonsense"]),
            ..tart_config::DockerService::default()
        };
        let image = configured(&service);
        assert_eq!((image.variables.len(), image.variables[0].value.as_str()), (1, "b=c"));
        assert_eq!(image.alias, "docker");
    }
}
