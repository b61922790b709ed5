//! The server as a test sees it.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::connection::{Service, accept};
use crate::faults::Faults;
use crate::git::ProjectHandle;
use crate::history::Request;
use crate::job::{Artifact, Job, JobHandle, JobState};
use crate::runner::{RunnerHandle, RunnerOptions, create};
use crate::settings::{Options, Settings};
use crate::spec::JobSpec;
use crate::state::{Shared, State, random_hex};
use crate::tls::{Identity, Tls};

/// The project of jobs that name none.
const DEFAULT_PROJECT: &str = "group/project";

/// A running server; it ends, with all its connections and repositories, when it is dropped.
#[derive(Debug)]
pub struct TestGitlab {
    shared: Arc<Shared>,
    ca_pem: Option<String>,
    client: Option<Identity>,
    /// Serializes the making of the default project.
    default_project: tokio::sync::OnceCell<ProjectHandle>,
    shutdown: CancellationToken,
    listeners: JoinSet<()>,
}

impl TestGitlab {
    /// Starts a server with the default [`Options`].
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts a server.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start_with(options: Options) -> Self {
        match Self::try_start(options).await {
            Ok(server) => server,
            Err(error) => panic!("cannot start the test GitLab server: {error}"),
        }
    }

    /// Starts a server.
    ///
    /// # Errors
    /// When it cannot listen at the address of the options, or make a temporary directory.
    pub async fn try_start(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.bind).await?;
        let mut storage_address = options.bind;
        storage_address.set_port(0);
        let storage = TcpListener::bind(storage_address).await?;
        let root = tempfile::Builder::new().prefix("tart-test-gitlab-").tempdir()?;

        let address = match options.bind.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        let local = address.to_string();
        let host = options.external_host.unwrap_or_else(|| local.clone());
        // Certificates name an IPv6 address without the brackets a URL needs.
        let host = host.trim_matches(['[', ']']).to_owned();
        let names = vec![host.clone(), local.clone(), "localhost".into()];
        let tls = options.tls.then(|| Tls::new(names, options.require_client_certificate));
        let scheme = if options.tls { "https" } else { "http" };
        let url = |host: &str, port: u16| match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        };
        let port = listener.local_addr()?.port();
        let settings = Settings {
            url: url(&host, port),
            local_url: url(&local, port),
            storage_url: url(&host, storage.local_addr()?.port()),
            registration_token: format!("GR1348941{}", &random_hex()[..20]),
            private_token: format!("glpat-{}", &random_hex()[..20]),
            long_poll: options.long_poll,
            ack_window: options.ack_window,
            update_interval: options.update_interval,
            max_artifact_bytes: options.max_artifact_bytes,
            direct_download: options.direct_download,
        };
        let shared = Arc::new(Shared::new(settings, root));
        let router = api::router(Arc::clone(&shared));
        let shutdown = CancellationToken::new();
        let acceptor = tls.as_ref().map(|tls| tls.acceptor.clone());
        let service = Service { router, tls: acceptor, shutdown: shutdown.clone() };
        let mut listeners = JoinSet::new();
        listeners.spawn(accept(storage, service.clone()));
        listeners.spawn(accept(listener, service));
        let (ca_pem, client) = tls.map(|tls| (tls.ca_pem, tls.client)).unzip();
        let default_project = tokio::sync::OnceCell::new();
        Ok(Self { shared, ca_pem, client, default_project, shutdown, listeners })
    }

    /// Ends the server once the answers under way were sent; polls are answered, nobody is waited for more
    /// than `timeout`.
    pub async fn shutdown(mut self, timeout: Duration) {
        self.shared.update(State::tick_queue);
        self.shutdown.cancel();
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(timeout, ended).await.is_err() {
            tracing::warn!("connections were cut after {timeout:?}");
        }
    }

    /// The URL a runner is configured with, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.shared.settings.url
    }

    /// The same server by the address it listens at, for clients on this machine when jobs need
    /// [`Options::external_host`].
    pub fn local_url(&self) -> &str {
        &self.shared.settings.local_url
    }

    /// The origin direct downloads are redirected to.
    pub fn storage_url(&self) -> &str {
        &self.shared.settings.storage_url
    }

    /// The certificate authority of a server with TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// A client certificate of the same authority.
    pub fn client_identity(&self) -> Option<&Identity> {
        self.client.as_ref()
    }

    /// The token of the legacy registration.
    pub fn registration_token(&self) -> &str {
        &self.shared.settings.registration_token
    }

    /// A personal access token, for the reset of a runner's token by its number.
    pub fn private_token(&self) -> &str {
        &self.shared.settings.private_token
    }

    /// Answers the legacy registration 410 from now on.
    pub fn disable_registration(&self) {
        self.shared.update(|state| state.registration_enabled = false);
    }

    /// The seconds of `X-GitLab-Trace-Update-Interval` from now on; zero sends no header.
    pub fn set_update_interval(&self, seconds: u64) {
        self.shared.update(|state| state.update_interval = seconds);
    }

    /// The faults to come.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Creates a runner as the web page does, with a `glrt-` token.
    pub fn add_runner(&self, options: RunnerOptions) -> RunnerHandle {
        let id = self.shared.update(|state| {
            state.tick_queue();
            create(state, options, "glrt-")
        });
        RunnerHandle::new(Arc::clone(&self.shared), id)
    }

    /// The runner that has this token now.
    pub fn runner_by_token(&self, token: &str) -> Option<RunnerHandle> {
        let id = self.shared.read(|state| state.runner_by_token(token).map(|runner| runner.id))?;
        Some(RunnerHandle::new(Arc::clone(&self.shared), id))
    }

    /// Creates a project with an empty repository.
    ///
    /// # Panics
    /// When the path is not `group/name`, is taken, or git cannot be run.
    pub async fn create_project(&self, path: &str) -> ProjectHandle {
        ProjectHandle::create(Arc::clone(&self.shared), path, "sha1").await
    }

    /// Creates a project whose repository names its objects by SHA-256.
    ///
    /// # Panics
    /// As [`Self::create_project`].
    pub async fn create_sha256_project(&self, path: &str) -> ProjectHandle {
        ProjectHandle::create(Arc::clone(&self.shared), path, "sha256").await
    }

    /// Offers a job to the runners.
    ///
    /// # Panics
    /// When the ref the job builds does not exist.
    pub async fn enqueue(&self, spec: JobSpec) -> JobHandle {
        self.create_job(spec, |_| {}).await
    }

    /// Adds a job that has succeeded and left this archive.
    pub async fn add_finished_job(
        &self,
        spec: JobSpec,
        filename: &str,
        archive: impl Into<Bytes>,
    ) -> JobHandle {
        let artifact = Artifact {
            kind: "archive".into(),
            format: "zip".into(),
            filename: filename.into(),
            expire_in: None,
            content: archive.into(),
        };
        self.create_job(spec, |job| {
            job.state = JobState::Success;
            job.artifacts.push(artifact);
        })
        .await
    }

    async fn create_job(&self, mut spec: JobSpec, prepare: impl FnOnce(&mut Job)) -> JobHandle {
        // Taken out, as a handle inside the state would keep the state, and its directory, for ever.
        let project = match spec.project.take() {
            Some(project) => project,
            None => self.default_project().await,
        };
        let (id, pipeline_id) = self.shared.update(|state| (state.next_id(), state.next_id()));
        let revision = project.revision(&spec, pipeline_id).await;
        let mut job = Job {
            id,
            pipeline_id,
            project_id: project.id(),
            spec,
            revision,
            token: format!("glcbt-64_{}", &random_hex()[..20]),
            state: JobState::Pending,
            assignment: None,
            failure_reason: None,
            exit_code: None,
            log: Vec::new(),
            debug_trace: false,
            resend_allowed: false,
            artifacts: Vec::new(),
            updates: Vec::new(),
            sent_variables: Vec::new(),
            created_at: SystemTime::now(),
            started_at: None,
        };
        prepare(&mut job);
        self.shared.update(|state| {
            state.jobs.insert(id, job);
            state.tick_queue();
        });
        JobHandle::new(Arc::clone(&self.shared), id)
    }

    async fn default_project(&self) -> ProjectHandle {
        let make = async || {
            let project = self.create_project(DEFAULT_PROJECT).await;
            project.commit_file("README.md", "A project for tests.\n").await;
            project
        };
        self.default_project.get_or_init(make).await.clone()
    }

    /// The job with this number.
    pub fn job(&self, id: u64) -> Option<JobHandle> {
        let known = self.shared.read(|state| state.jobs.contains_key(&id));
        known.then(|| JobHandle::new(Arc::clone(&self.shared), id))
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.read(|state| state.requests.clone())
    }

    /// Every breach of the protocol so far.
    pub fn violations(&self) -> Vec<String> {
        self.shared.read(|state| state.violations.clone())
    }

    /// # Panics
    /// When a client broke the protocol.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "the protocol was broken:\n{}", violations.join("\n"));
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// After `timeout`, with the requests and violations so far.
    #[track_caller]
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&State) -> bool,
    ) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let look = |state: &State| condition(state).then_some(());
            self.shared.wait_or_panic(timeout, caller, look, |state| describe(what, state)).await;
        }
    }
}

fn describe(what: &str, state: &State) -> String {
    let requests: Vec<String> = state
        .requests
        .iter()
        .map(|request| format!("{} {} -> {:?}", request.method, request.uri.path(), request.status))
        .collect();
    format!(
        "waited for {what}\n--- violations\n{}\n--- requests\n{}",
        state.violations.join("\n"),
        requests.join("\n")
    )
}
